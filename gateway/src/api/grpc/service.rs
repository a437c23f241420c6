//! The twenty calls of `GRPCInferenceService`.

use std::collections::HashMap;

use proto::inference as pb;
use proto::inference::grpc_inference_service_server::GrpcInferenceService;
use proto::inference::log_settings_request::setting_value::ParameterChoice as LogChoice;
use proto::inference::model_repository_parameter::ParameterChoice;
use tonic::{Request, Response, Status, Streaming};

use super::{decode, encode, status, stream};
use crate::api::load_call::LoadParameter;
use crate::api::timeouts::{Arrival, Timeouts};
use crate::api::{Api, EXTENSIONS, SERVER_NAME, model_config};
use crate::error::{Kind, Rejection};
use crate::telemetry::logging::{self, Settings};
use crate::types::{Caller, ModelName, Protocol, Role, Version};

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) api: Api,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// Answers one prediction call; the stream and the unary call share it.
    pub(super) async fn infer(
        &self,
        request: pb::ModelInferRequest,
        caller: Caller,
        arrival: Arrival,
    ) -> Result<pb::ModelInferResponse, Rejection> {
        let pipeline = &self.api.pipeline;
        // Its bytes stay until the answer is encoded.
        let mut held = pipeline.overload.hold();
        let size = request.raw_input_contents.iter().map(bytes::Bytes::len).sum();
        let (call, wanted) = match arrival
            .check()
            .and_then(|()| held.cover(size))
            .and_then(|()| decode::decode(request, caller, arrival))
        {
            Ok(decoded) => decoded,
            Err(rejection) => {
                pipeline.undecodable(Protocol::Grpc, rejection.kind());
                return Err(rejection);
            }
        };
        let reply = pipeline.infer(call).await?;
        match encode::encode(&reply, &wanted) {
            Ok(response) => {
                reply.encoded();
                Ok(response)
            }
            Err(rejection) => Err(reply.refuse(rejection)),
        }
    }

    fn metadata(&self, model: &str, version: &str) -> Result<pb::ModelMetadataResponse, Rejection> {
        let snapshot = self.api.pipeline.snapshots.load();
        let served = snapshot.find(model, Some(version))?;
        let all = snapshot.model(model).ok_or_else(|| ModelName::unknown(model))?;
        let tensor = |spec: &engine::TensorSpec| pb::model_metadata_response::TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.datatype.name().to_owned(),
            shape: spec.shape.clone(),
        };
        let signature = served.signature();
        Ok(pb::ModelMetadataResponse {
            name: model.to_owned(),
            versions: all.ready.keys().map(ToString::to_string).collect(),
            platform: model_config::platform(&served.manifest).to_owned(),
            inputs: signature.inputs.iter().map(tensor).collect(),
            outputs: signature.outputs.iter().map(|output| tensor(&output.spec)).collect(),
            ..pb::ModelMetadataResponse::default()
        })
    }

    fn authorize<T>(&self, request: &Request<T>) -> Result<(), Rejection> {
        self.api.authorize(&caller(request)?, Role::Operate)
    }

    async fn load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<String, Rejection> {
        self.authorize(&request)?;
        let request = request.into_inner();
        let model = named(request.repository_name, request.model_name)?;
        let parameters = request
            .parameters
            .into_iter()
            .map(|(key, value)| match value.parameter_choice {
                Some(ParameterChoice::StringParam(text)) => Ok((key, LoadParameter::Text(text))),
                Some(ParameterChoice::BytesParam(bytes)) => {
                    Ok((key, LoadParameter::Bytes(bytes.into())))
                }
                _ => Err(Rejection::invalid(format!("parameter '{key}' must be text or bytes"))),
            })
            .collect::<Result<_, _>>()?;
        let call = self.api.load_call(parameters)?;
        self.api.control.load(&model, call).await?;
        Ok(model)
    }

    async fn unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<String, Rejection> {
        self.authorize(&request)?;
        let request = request.into_inner();
        let model = named(request.repository_name, request.model_name)?;
        let version = match request.parameters.get("version").map(|p| &p.parameter_choice) {
            None => None,
            Some(Some(ParameterChoice::StringParam(text))) => Some(text.parse::<Version>()?),
            Some(_) => return Err(Rejection::invalid("parameter 'version' must be text")),
        };
        self.api.control.unload(&model, version).await?;
        Ok(model)
    }
}

/// KServe's messages carry the model's name in the field that Triton's use for the repository.
fn named(repository: String, model: String) -> Result<String, Rejection> {
    match (repository.is_empty(), model.is_empty()) {
        (true, false) => Ok(model),
        (false, true) => Ok(repository),
        (true, true) => Err(Rejection::invalid("model_name is missing")),
        (false, false) => {
            Err(Rejection::new(Kind::Unsupported, "repository_name is not supported"))
        }
    }
}

/// Who calls; the door settled it.
fn caller<T>(request: &Request<T>) -> Result<Caller, Rejection> {
    let missing = || Rejection::new(Kind::Internal, "nobody settled who calls");
    request.extensions().get::<Caller>().cloned().ok_or_else(missing)
}

/// When a call or a stream arrived and what its headers say, as the door read them.
pub(super) fn arrival<T>(request: &Request<T>) -> (Arrival, Timeouts) {
    let read = request.extensions().get::<(Arrival, Timeouts)>().copied();
    read.unwrap_or_else(|| (Arrival::now(), Timeouts::default()))
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
        let request = request.into_inner();
        let ready = self.api.is_model_ready(&request.name, Some(&request.version));
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
        let request = request.into_inner();
        reply(self.metadata(&request.name, &request.version))
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Answer<pb::ModelInferResponse> {
        let caller = caller(&request).map_err(|rejection| status(&rejection))?;
        let (arrival, timeouts) = arrival(&request);
        let arrival = arrival.within(timeouts.own);
        reply(self.infer(request.into_inner(), caller, arrival).await)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let caller = caller(&request).map_err(|rejection| status(&rejection))?;
        Ok(Response::new(stream::replies(self.clone(), caller, request)))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Answer<pb::ModelConfigResponse> {
        let request = request.into_inner();
        let snapshot = self.api.pipeline.snapshots.load();
        let found = snapshot.find(&request.name, Some(&request.version));
        let config = found.map(|served| Some(model_config::of_version(served)));
        reply(config.map(|config| pb::ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Answer<pb::ModelStatisticsResponse> {
        let request = request.into_inner();
        reply(self.api.statistics(&request.name, Some(&request.version)))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Answer<pb::RepositoryIndexResponse> {
        let request = request.into_inner();
        if !request.repository_name.is_empty() {
            return unsupported("repository_name");
        }
        let models = self
            .api
            .control
            .index(request.ready)
            .into_iter()
            .map(|entry| pb::repository_index_response::ModelIndex {
                name: entry.name.to_string(),
                version: entry.version.map_or_else(String::new, |version| version.to_string()),
                state: entry.state.map_or("", |state| state.name()).to_owned(),
                reason: entry.reason,
            })
            .collect();
        Ok(Response::new(pb::RepositoryIndexResponse { models }))
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
        let mut settings = logging::settings();
        if !request.get_ref().settings.is_empty() {
            self.authorize(&request).map_err(|rejection| status(&rejection))?;
            for (key, value) in &request.get_ref().settings {
                change(&mut settings, key, value.parameter_choice.as_ref())
                    .map_err(|rejection| status(&rejection))?;
            }
            logging::change(settings);
        }
        Ok(Response::new(pb::LogSettingsResponse { settings: shown(logging::settings()) }))
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

fn change(settings: &mut Settings, key: &str, value: Option<&LogChoice>) -> Result<(), Rejection> {
    match (key, value) {
        ("log_error", Some(LogChoice::BoolParam(on))) => settings.error = *on,
        ("log_warning", Some(LogChoice::BoolParam(on))) => settings.warning = *on,
        ("log_info", Some(LogChoice::BoolParam(on))) => settings.info = *on,
        ("log_verbose_level", Some(LogChoice::Uint32Param(level))) => settings.verbose = *level,
        ("log_file" | "log_format", _) => {
            let text = format!("'{key}' is fixed at start: see [log] in the configuration");
            return Err(Rejection::new(Kind::Unsupported, text));
        }
        _ => {
            let shown: String = key.chars().take(80).collect();
            return Err(Rejection::invalid(format!("'{shown}' is no log setting of this type")));
        }
    }
    Ok(())
}

fn shown(settings: Settings) -> HashMap<String, pb::log_settings_response::SettingValue> {
    use pb::log_settings_response::SettingValue;
    use pb::log_settings_response::setting_value::ParameterChoice as Choice;
    [
        ("log_file", Choice::StringParam(String::new())),
        ("log_info", Choice::BoolParam(settings.info)),
        ("log_warning", Choice::BoolParam(settings.warning)),
        ("log_error", Choice::BoolParam(settings.error)),
        ("log_verbose_level", Choice::Uint32Param(settings.verbose)),
        ("log_format", Choice::StringParam("default".to_owned())),
    ]
    .into_iter()
    .map(|(key, choice)| (key.to_owned(), SettingValue { parameter_choice: Some(choice) }))
    .collect()
}
