//! The generated protobuf types; the texts that explain them are in `proto/`.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

/// The module tree that the generated code expects: one module a package.
mod bellwether {
    pub mod log {
        pub mod v1 {
            tonic::include_proto!("bellwether.log.v1");
        }
    }
    pub mod peer {
        pub mod v1 {
            tonic::include_proto!("bellwether.peer.v1");
        }
    }
    pub mod data {
        pub mod v1 {
            tonic::include_proto!("bellwether.data.v1");
        }
    }
}

/// etcd's packages, under the names that refer to each other.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
/// All of etcd's packages, as a `FileDescriptorSet`.
pub const ETCD_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/etcd.descriptors"));

pub use bellwether::data::v1 as data;
pub use bellwether::log::v1 as log;
pub use bellwether::peer::v1 as peer;
