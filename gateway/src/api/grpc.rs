//! The protocol over gRPC, with health and reflection.

mod decode;
mod encode;
mod health;
mod service;
mod stream;
mod wire;

use axum::Router;
use axum::middleware::{map_request, map_response};
use proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::{Code, Status};
use tracing::debug;

use super::Api;
use crate::error::Rejection;

/// All gRPC services, behind the corrections of `wire`.
///
/// # Errors
/// When the protocol's descriptors, made by the build, cannot be read.
pub fn router(api: &Api) -> anyhow::Result<Router> {
    let limit = api.limits.max_request;
    let inference = GrpcInferenceServiceServer::new(service::Service { api: api.clone() })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        // Answers go out plain: every Python client says by itself that it could inflate them.
        .accept_compressed(CompressionEncoding::Deflate);
    let health = tonic_health::pb::health_server::HealthServer::new(health::Health::new(api));
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(inference)
        .add_service(health)
        .add_service(descriptors().build_v1()?)
        .add_service(descriptors().build_v1alpha()?);
    let (metrics, patience) = (api.pipeline.wire.clone(), api.limits.body_timeout);
    Ok(routes
        .prepare()
        .into_axum_router()
        .layer(map_response(move |response| std::future::ready(wire::correct(response, &metrics))))
        .layer(map_request(move |request| std::future::ready(wire::bounded(request, patience)))))
}

/// The one place where a rejection becomes a gRPC status.
fn status(rejection: &Rejection) -> Status {
    let kind = rejection.kind();
    debug!(kind = kind.label(), error = %rejection, detail = rejection.detail(), "refused");
    let mut status = Status::new(Code::from_i32(kind.grpc()), rejection.public_message());
    if let Some(after) = rejection.retry_after() {
        let seconds = format!("{:.0}", after.as_secs_f64().ceil());
        if let Ok(value) = seconds.parse() {
            status.metadata_mut().insert("retry-after", value);
        }
    }
    status
}
