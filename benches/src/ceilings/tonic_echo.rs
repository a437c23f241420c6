//! Bare tonic: the protocol's generated service on tonic's own server with default settings and
//! nodelay. It answers the first 40 bytes of a request's first raw tensor as ten FP32 logits: the
//! digits model's answer in size, without a model.

use proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use proto::inference::model_infer_response::InferOutputTensor;
use proto::inference::model_metadata_response::TensorMetadata;
use proto::inference::{
    self, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
};
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::{Flavor, announce, end_with_the_driver};

/// Bytes of the answer's tensor.
const ANSWER: usize = 40;

/// Serves until the driver ends.
///
/// # Errors
/// When no port is free.
pub fn serve(flavor: Flavor) -> anyhow::Result<()> {
    end_with_the_driver()?;
    flavor.runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        announce(listener.local_addr()?);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let service = GrpcInferenceServiceServer::new(Echo);
        Ok(Server::builder().add_service(service).serve_with_incoming(incoming).await?)
    })
}

#[derive(Debug)]
struct Echo;

fn echo(request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    let raw = request.raw_input_contents.first().filter(|raw| raw.len() >= ANSWER);
    let Some(raw) = raw else {
        return Err(Status::invalid_argument("there is no raw tensor of 40 bytes or more"));
    };
    let output = InferOutputTensor {
        name: "logits".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 10],
        ..InferOutputTensor::default()
    };
    Ok(ModelInferResponse {
        model_name: request.model_name,
        model_version: "1".to_owned(),
        id: request.id,
        outputs: vec![output],
        raw_output_contents: vec![raw.slice(..ANSWER)],
        ..ModelInferResponse::default()
    })
}

fn metadata(name: String) -> ModelMetadataResponse {
    let tensor = |name: &str, width| TensorMetadata {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![-1, width],
    };
    ModelMetadataResponse {
        name,
        versions: vec!["1".to_owned()],
        platform: "echo".to_owned(),
        inputs: vec![tensor("pixels", 64)],
        outputs: vec![tensor("logits", 10)],
        ..ModelMetadataResponse::default()
    }
}

/// The whole service: two methods that answer, and all others.
macro_rules! service {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl GrpcInferenceService for Echo {
            type ModelStreamInferStream = Empty<Result<inference::ModelStreamInferResponse, Status>>;

            async fn model_infer(
                &self,
                request: Request<ModelInferRequest>,
            ) -> Result<Response<ModelInferResponse>, Status> {
                echo(request.into_inner()).map(Response::new)
            }

            async fn model_metadata(
                &self,
                request: Request<ModelMetadataRequest>,
            ) -> Result<Response<ModelMetadataResponse>, Status> {
                Ok(Response::new(metadata(request.into_inner().name)))
            }

            async fn model_stream_infer(
                &self,
                _: Request<Streaming<ModelInferRequest>>,
            ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
                Err(Status::unimplemented("a bare echo"))
            }

            $(
                async fn $method(
                    &self,
                    _: Request<inference::$request>,
                ) -> Result<Response<inference::$response>, Status> {
                    Err(Status::unimplemented("a bare echo"))
                }
            )*
        }
    };
}

service! {
    server_live(ServerLiveRequest) -> ServerLiveResponse;
    server_ready(ServerReadyRequest) -> ServerReadyResponse;
    model_ready(ModelReadyRequest) -> ModelReadyResponse;
    server_metadata(ServerMetadataRequest) -> ServerMetadataResponse;
    model_config(ModelConfigRequest) -> ModelConfigResponse;
    model_statistics(ModelStatisticsRequest) -> ModelStatisticsResponse;
    repository_index(RepositoryIndexRequest) -> RepositoryIndexResponse;
    repository_model_load(RepositoryModelLoadRequest) -> RepositoryModelLoadResponse;
    repository_model_unload(RepositoryModelUnloadRequest) -> RepositoryModelUnloadResponse;
    system_shared_memory_status(SystemSharedMemoryStatusRequest) -> SystemSharedMemoryStatusResponse;
    system_shared_memory_register(SystemSharedMemoryRegisterRequest)
        -> SystemSharedMemoryRegisterResponse;
    system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest)
        -> SystemSharedMemoryUnregisterResponse;
    cuda_shared_memory_status(CudaSharedMemoryStatusRequest) -> CudaSharedMemoryStatusResponse;
    cuda_shared_memory_register(CudaSharedMemoryRegisterRequest)
        -> CudaSharedMemoryRegisterResponse;
    cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest)
        -> CudaSharedMemoryUnregisterResponse;
    trace_setting(TraceSettingRequest) -> TraceSettingResponse;
    log_settings(LogSettingsRequest) -> LogSettingsResponse;
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_answer_is_the_beginning_of_the_tensor_without_a_copy() {
        let tensor = Bytes::from(vec![7; 256]);
        let request = ModelInferRequest {
            model_name: "digits".to_owned(),
            raw_input_contents: vec![tensor.clone()],
            ..ModelInferRequest::default()
        };
        let answer = echo(request).unwrap();
        assert_eq!(answer.raw_output_contents[0], tensor[..40]);
        assert_eq!(answer.raw_output_contents[0].as_ptr(), tensor.as_ptr());
        assert_eq!(answer.outputs[0].shape, [1, 10]);
    }

    #[test]
    fn a_request_that_is_too_small_is_refused() {
        assert!(echo(ModelInferRequest::default()).is_err());
    }
}
