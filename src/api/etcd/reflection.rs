//! The reflection service: tools such as grpcurl ask a server for its messages.

use tonic_reflection::server::Builder;

use crate::proto::ETCD_DESCRIPTORS;

/// In both versions of the protocol; older tools speak the first.
pub fn router() -> axum::Router {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(ETCD_DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let router = axum::Router::new();
    // The descriptors are compiled into this program: if they cannot be read, nothing can
    // be told of them.
    let router = match builder().build_v1() {
        Ok(service) => router.route_service("/grpc.reflection.v1.ServerReflection/{*rpc}", service),
        Err(_) => router,
    };
    match builder().build_v1alpha() {
        Ok(service) => router.route_service("/grpc.reflection.v1alpha.ServerReflection/{*rpc}", service),
        Err(_) => router,
    }
}
