//! The generated clients of etcd's API, which the server's crate makes.

pub use bellwether::proto::{etcdserverpb, mvccpb};
