//! The protocol over gRPC, with health and reflection.

mod decode;
mod encode;
mod feedback;
mod health;
mod log_settings;
mod management;
mod service;
mod stream;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use proto::penstock::v1::feedback_service_server::FeedbackServiceServer;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;
use tracing::debug;

use self::wire::Access;
use super::timeouts::{Arrival, Timeouts};
use super::{Api, hints};
use crate::error::Rejection;
use crate::limits::Limiter;
use crate::overload::Permit;
use crate::telemetry::{Outcome, WireMetrics};
use crate::types::{Caller, Peer, Protocol, Role};

/// The longest question about health: a name.
const HEALTH_MESSAGE: usize = 4 << 10;
/// The longest question of reflection: a file, a symbol or a type.
const REFLECTION_MESSAGE: usize = 64 << 10;

/// The gRPC door: the protocol's own calls go straight to their service, everything else through
/// the router. Cheap to clone.
#[derive(Clone)]
pub struct Grpc {
    api: Arc<Api>,
    inference: GrpcInferenceServiceServer<service::Service>,
    others: Router,
    metrics: Arc<WireMetrics>,
    patience: Duration,
}

/// What the door settled from the head of a call.
#[derive(Debug, Clone)]
struct Entered {
    caller: Caller,
    arrival: Arrival,
    timeouts: Timeouts,
    /// The limits that the call meets to its end.
    limiter: Arc<Limiter>,
}

impl fmt::Debug for Grpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grpc").finish_non_exhaustive()
    }
}

impl Grpc {
    /// All gRPC services.
    ///
    /// # Errors
    /// When the protocol's descriptors, made by the build, cannot be read.
    pub fn new(api: &Api) -> anyhow::Result<Self> {
        let limit = api.limits.max_request;
        let inference =
            GrpcInferenceServiceServer::new(service::Service { api: api.clone(), head: None })
                .max_decoding_message_size(limit)
                .max_encoding_message_size(usize::MAX)
                .accept_compressed(CompressionEncoding::Gzip)
                // Answers go out plain: every Python client says by itself that it could inflate them.
                .accept_compressed(CompressionEncoding::Deflate);
        let health = tonic_health::pb::health_server::HealthServer::new(health::Health::new(api))
            .max_decoding_message_size(HEALTH_MESSAGE);
        let descriptors = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let feedback = FeedbackServiceServer::new(feedback::Feedback(api.clone()))
            .max_decoding_message_size(limit.min(super::feedback::MAX_MESSAGE));
        let others = Routes::new(health)
            .add_service(feedback)
            .add_service(descriptors().build_v1()?.max_decoding_message_size(REFLECTION_MESSAGE))
            .add_service(
                descriptors().build_v1alpha()?.max_decoding_message_size(REFLECTION_MESSAGE),
            )
            .prepare()
            .into_axum_router();
        let (metrics, patience) = (api.pipeline.wire.clone(), api.limits.body_timeout);
        Ok(Self { api: Arc::new(api.clone()), inference, others, metrics, patience })
    }

    /// Answers one call from `peer`, behind the corrections of `wire`.
    pub async fn call<B>(&self, mut request: Request<B>, peer: Peer) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let caller = match self.admit(&request, &peer) {
            Ok(caller) => caller,
            Err(rejection) => {
                if wire::is_call(&request) {
                    self.api.pipeline.refused_early(Protocol::Grpc, rejection.kind());
                }
                return status(&rejection).into_http();
            }
        };
        let response = if wire::is_inference(&request) {
            // The permit lives as long as the call.
            let (patience, entered, _permit) = match self.enter(&request, caller).await {
                Ok(entered) => entered,
                Err(rejection) => {
                    self.metrics.count(Protocol::Grpc, Outcome::Refused(rejection.kind()));
                    return status(&rejection).into_http();
                }
            };
            if let Some(entered) = entered {
                request.extensions_mut().insert(entered);
            }
            let mut inference = self.inference.clone();
            let held = self.api.pipeline.overload.hold();
            match inference.call(wire::bounded(request, patience, held)).await {
                Ok(response) => response,
            }
        } else {
            // Who it is matters to some calls that everybody may make, and is worked out there.
            request.extensions_mut().insert(peer);
            caller.map(|caller| request.extensions_mut().insert(caller));
            let held = self.api.pipeline.overload.hold();
            let request = wire::bounded(request, self.patience, held);
            match self.others.clone().call(request).await {
                Ok(response) => response.map(Body::new),
            }
        };
        wire::correct(response, &self.metrics)
    }
}

impl Grpc {
    /// Who calls, where a call asks for it, from the head of a call alone.
    fn admit<B>(&self, request: &Request<B>, peer: &Peer) -> Result<Option<Caller>, Rejection> {
        let access = wire::access(request.uri().path());
        if access == Access::Open {
            // Load balancers have no credentials, and a signature is not checked for nothing.
            return Ok(None);
        }
        let caller = self.api.identify(request.headers(), peer.clone())?;
        if access == Access::Predict {
            self.api.authorize(&caller, Role::Predict)?;
        }
        Ok(Some(caller))
    }

    /// Reads how long a call may take and lets it in, before its message is read. The messages of
    /// a stream are let in one by one. Returns how long the message may take to arrive, and what
    /// the service needs to know of a caller who had to be settled.
    async fn enter<B>(
        &self,
        request: &Request<B>,
        caller: Option<Caller>,
    ) -> Result<(Duration, Option<Entered>, Permit), Rejection> {
        let timeouts = Timeouts::over_grpc(request.headers())?;
        let pipeline = &self.api.pipeline;
        let mut permit = Permit::default();
        let mut known = None;
        if let Some(mut caller) = caller {
            let limiter = pipeline.snapshots.limiter();
            limiter.mark(&mut caller, request.headers());
            if wire::is_prediction(request) {
                // First what costs the caller nothing of its limits.
                permit = pipeline.overload.enter(0)?;
                limiter.at_head(&caller).await?;
            }
            known = Some((caller, limiter));
        }
        let arrival = Arrival::now().within(timeouts.grpc);
        let patience = arrival.within(timeouts.own).left(self.patience);
        let entered = known.map(|(caller, limiter)| Entered { caller, arrival, timeouts, limiter });
        Ok((patience, entered, permit))
    }
}

/// The one place where a rejection becomes a gRPC status.
fn status(rejection: &Rejection) -> Status {
    let kind = rejection.kind();
    debug!(kind = kind.label(), error = %rejection, detail = rejection.detail(), "refused");
    let mut status = Status::new(Code::from_i32(kind.grpc()), rejection.public_message());
    if rejection.is_replayed() {
        let value = MetadataValue::from_static("true");
        status.metadata_mut().insert("penstock-replayed", value);
    }
    for (name, text) in hints::of(rejection) {
        if let Ok(value) = text.parse() {
            status.metadata_mut().insert(name, value);
        }
    }
    if let Some(after) = rejection.retry_after() {
        let pause =
            MetadataValue::from(u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
        status.metadata_mut().insert("grpc-retry-pushback-ms", pause);
    }
    status
}
