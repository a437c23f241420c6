//! The twenty calls of `GRPCInferenceService`.

use std::sync::Arc;

use http::HeaderMap;
use proto::inference as pb;
use proto::inference::grpc_inference_service_server::GrpcInferenceService;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming};

use super::{Entered, decode, encode, log_settings, status, stream};
use crate::api::naming::Names;
use crate::api::timeouts::Arrival;
use crate::api::{Api, EXTENSIONS, SERVER_NAME, parameters};
use crate::error::{Kind, Rejection};
use crate::types::{Call, Caller, Protocol};

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) api: Api,
    /// The head of the stream that it answers.
    pub(super) head: Option<Arc<HeaderMap>>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Answers one prediction call; the stream and the unary call share it. The answer is named in
    /// `metadata` too, where it has some of its own.
    async fn infer(
        &self,
        request: pb::ModelInferRequest,
        entered: Entered,
        headers: Arc<HeaderMap>,
        metadata: Option<&mut HeaderMap>,
    ) -> Result<pb::ModelInferResponse, Rejection> {
        let Entered { caller, arrival, limiter, .. } = entered;
        let pipeline = &self.api.pipeline;
        if let Err(rejection) = self.api.authorize_call(&caller, &request.model_name) {
            pipeline.refused_early(Protocol::Grpc, rejection.kind());
            return Err(rejection);
        }
        // Its bytes stay until the answer is encoded.
        let mut held = pipeline.overload.hold();
        let decoded = self
            .decode(request, (caller, headers), arrival)
            .and_then(|decoded| held.cover(decoded.0.inputs.size()).map(|()| decoded));
        let (call, wanted) = match decoded {
            Ok(decoded) => decoded,
            Err(rejection) => {
                pipeline.refused_early(Protocol::Grpc, rejection.kind());
                return Err(rejection);
            }
        };
        let reply = pipeline.infer(call, &limiter).await?;
        let names = Names::of(&reply.answer);
        match encode::encode(&reply, &names, &wanted) {
            Ok(response) => {
                if let Some(metadata) = metadata {
                    names.mark(metadata);
                }
                reply.encoded();
                Ok(response)
            }
            Err(rejection) => Err(reply.refuse(rejection)),
        }
    }

    fn decode(
        &self,
        request: pb::ModelInferRequest,
        caller: (Caller, Arc<HeaderMap>),
        arrival: Arrival,
    ) -> Result<(Call, decode::Wanted), Rejection> {
        arrival.check()?;
        let check_key = |key: &[u8]| parameters::checked_key(&self.api, key);
        let (mut call, wanted) = decode::decode(request, caller, arrival, check_key)?;
        let key = parameters::idempotency_key(&self.api, &call.headers)?;
        if call.key.is_some() && key.is_some() && key != call.key {
            return Err(Rejection::invalid("the idempotency key is given twice"));
        }
        call.key = key.or(call.key);
        if self.api.pipeline.log.is_some() && !wanted.id.is_empty() {
            call.id = Some(wanted.id.as_str().into());
        }
        Ok((call, wanted))
    }

    /// Answers one message of a stream, which is a call of its own.
    pub(super) async fn message(
        &self,
        request: pb::ModelInferRequest,
        mut entered: Entered,
    ) -> Result<pb::ModelInferResponse, Rejection> {
        let pipeline = &self.api.pipeline;
        // A stream may outlive the key or token that it began with, and the limits.
        if let Some(headers) = &self.head {
            let identity = self.api.identities.identify(headers, &entered.caller.peer);
            entered.caller.identity = identity.inspect_err(|rejection| {
                pipeline.refused_early(Protocol::Grpc, rejection.kind());
            })?;
            let limiter = pipeline.snapshots.limiter();
            if !Arc::ptr_eq(&limiter, &entered.limiter) {
                limiter.mark(&mut entered.caller, headers);
                entered.limiter = limiter;
            }
        }
        // First what costs the caller nothing of its limits.
        let permit = pipeline.overload.enter(0);
        let _permit = permit.inspect_err(|rejection| {
            pipeline.refused_early(Protocol::Grpc, rejection.kind());
        })?;
        pipeline.limit(Protocol::Grpc, &entered.limiter, &entered.caller).await?;
        let headers = self.head.clone().unwrap_or_default();
        self.infer(request, entered, headers, None).await
    }

    /// Whether the caller may read what describes a model.
    fn may_read<T>(&self, request: &Request<T>, model: &str) -> Result<(), Rejection> {
        self.api.authorize_reading_of(&caller(request)?, model)
    }

    fn config(
        &self,
        request: &Request<pb::ModelConfigRequest>,
    ) -> Result<pb::ModelConfigResponse, Rejection> {
        let named = request.get_ref();
        self.may_read(request, &named.name)?;
        let described = self.api.describe(&named.name, Some(&named.version))?;
        Ok(pb::ModelConfigResponse { config: Some(described.config()) })
    }
}

/// Who calls; the door settled it.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Rejection> {
    let entered = request.extensions().get::<Entered>();
    entered.map(|entered| entered.caller.clone()).ok_or_else(unsettled)
}

/// What the door settled about a prediction or a stream of them.
fn entered<T>(request: &mut Request<T>) -> Result<Entered, Status> {
    request.extensions_mut().remove().ok_or_else(|| status(&unsettled()))
}

fn unsettled() -> Rejection {
    Rejection::new(Kind::Internal, "nobody settled who calls")
}

fn reply<T>(result: Result<T, Rejection>) -> Answer<T> {
    result.map(Response::new).map_err(|rejection| status(&rejection))
}

fn unsupported<T>(what: &str) -> Answer<T> {
    let rejection = Rejection::new(Kind::Unsupported, format!("{what} is not implemented"));
    Err(status(&rejection))
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    type ModelStreamInferStream = stream::Replies;

    async fn server_live(
        &self,
        _: Request<pb::ServerLiveRequest>,
    ) -> Answer<pb::ServerLiveResponse> {
        Ok(Response::new(pb::ServerLiveResponse { live: self.api.is_live() }))
    }

    async fn server_ready(
        &self,
        _: Request<pb::ServerReadyRequest>,
    ) -> Answer<pb::ServerReadyResponse> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.api.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Answer<pb::ModelReadyResponse> {
        let named = request.get_ref();
        self.may_read(&request, &named.name).map_err(|rejection| status(&rejection))?;
        let ready = self.api.is_model_ready(&named.name, Some(&named.version));
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Answer<pb::ServerMetadataResponse> {
        Ok(Response::new(pb::ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.iter().map(|&extension| extension.to_owned()).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Answer<pb::ModelMetadataResponse> {
        let named = request.get_ref();
        let allowed = self.may_read(&request, &named.name);
        reply(allowed.and_then(|()| encode::metadata(&self.api, &named.name, &named.version)))
    }

    async fn model_infer(
        &self,
        mut request: Request<pb::ModelInferRequest>,
    ) -> Answer<pb::ModelInferResponse> {
        let mut entered = entered(&mut request)?;
        entered.arrival = entered.arrival.within(entered.timeouts.own);
        let (metadata, _, message) = request.into_parts();
        let headers = Arc::new(metadata.into_headers());
        let mut named = HeaderMap::new();
        let result = self.infer(message, entered, headers, Some(&mut named)).await;
        let answer = result.map_err(|rejection| status(&rejection))?;
        Ok(Response::from_parts(MetadataMap::from_headers(named), answer, Extensions::default()))
    }

    async fn model_stream_infer(
        &self,
        mut request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let entered = entered(&mut request)?;
        if request.metadata().contains_key(parameters::IDEMPOTENCY_KEY.as_str()) {
            let text = "a stream has no idempotency key: each message has its own, as its \
                        parameter 'idempotency_key'";
            return Err(status(&Rejection::invalid(text)));
        }
        let head = Some(Arc::new(request.metadata().as_ref().clone()));
        let service = Self { head, ..self.clone() };
        Ok(Response::new(stream::replies(service, entered, request)))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Answer<pb::ModelConfigResponse> {
        reply(self.config(&request))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Answer<pb::ModelStatisticsResponse> {
        let named = request.get_ref();
        let caller = caller(&request);
        let of = |caller| self.api.statistics(&caller, &named.name, Some(&named.version));
        reply(caller.and_then(of))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Answer<pb::RepositoryIndexResponse> {
        if !request.get_ref().repository_name.is_empty() {
            return unsupported("repository_name");
        }
        reply(self.index(&request))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Answer<pb::RepositoryModelLoadResponse> {
        let loaded = self.load(request).await;
        reply(
            loaded
                .map(|model_name| pb::RepositoryModelLoadResponse { model_name, is_loaded: true }),
        )
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Answer<pb::RepositoryModelUnloadResponse> {
        let unloaded = self.unload(request).await;
        reply(
            unloaded.map(|model_name| pb::RepositoryModelUnloadResponse {
                model_name,
                is_unloaded: true,
            }),
        )
    }

    async fn log_settings(
        &self,
        request: Request<pb::LogSettingsRequest>,
    ) -> Answer<pb::LogSettingsResponse> {
        let caller = caller(&request).map_err(|rejection| status(&rejection))?;
        reply(log_settings::answer(&self.api, &caller, request.get_ref()))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Answer<pb::SystemSharedMemoryStatusResponse> {
        unsupported("system shared memory")
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryRegisterResponse> {
        unsupported("system shared memory")
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryUnregisterResponse> {
        unsupported("system shared memory")
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Answer<pb::CudaSharedMemoryStatusResponse> {
        unsupported("CUDA shared memory")
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryRegisterResponse> {
        unsupported("CUDA shared memory")
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryUnregisterResponse> {
        unsupported("CUDA shared memory")
    }

    async fn trace_setting(
        &self,
        _: Request<pb::TraceSettingRequest>,
    ) -> Answer<pb::TraceSettingResponse> {
        unsupported("the trace extension")
    }
}
