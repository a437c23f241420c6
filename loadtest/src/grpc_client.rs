//! Single questions over gRPC. The load itself goes another way.

use std::time::Duration;

use anyhow::Context;
use proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::inference::{ModelInferRequest, ModelMetadataRequest, ModelMetadataResponse};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::answer::{self, Answer};
use crate::failure::Failure;

/// How long a connection or an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client on one connection.
#[derive(Debug, Clone)]
pub struct GrpcClient {
    channel: Channel,
}

impl GrpcClient {
    /// Opens a connection to `http://host:port`.
    ///
    /// # Errors
    /// When the address is malformed or the server cannot be reached within a minute.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .with_context(|| format!("'{url}' is no address"))?
            .tcp_nodelay(true);
        let problem = || format!("cannot connect to {url}");
        let opened = timeout(PATIENCE, endpoint.connect()).await;
        let opened = opened.map_err(|_| Failure::late(PATIENCE)).with_context(problem)?;
        let channel = opened.with_context(problem)?;
        Ok(Self { channel })
    }

    /// A model's versions and tensors.
    ///
    /// # Errors
    /// When there is no connection, the status is not OK, or no answer comes within a minute.
    pub async fn metadata(
        &self,
        model: &str,
        version: &str,
    ) -> Result<ModelMetadataResponse, Failure> {
        let mut client = GrpcInferenceServiceClient::new(self.channel.clone());
        let request = ModelMetadataRequest { name: model.to_owned(), version: version.to_owned() };
        let answer = timeout(PATIENCE, client.model_metadata(request)).await;
        let answer = answer.map_err(|_| Failure::late(PATIENCE))?;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::grpc(&status))
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// When there is no connection, the status is not OK, no answer comes within a minute, or it
    /// is none.
    pub async fn infer(
        &self,
        request: ModelInferRequest,
        (name, value): (&'static str, &str),
    ) -> Result<Answer, Failure> {
        let mut client = GrpcInferenceServiceClient::new(self.channel.clone());
        let mut request = tonic::Request::new(request);
        let value = value.parse().map_err(|error| Failure::new("no metadata", error))?;
        request.metadata_mut().insert(name, value);
        let answer = timeout(PATIENCE, client.model_infer(request)).await;
        let answer = answer.map_err(|_| Failure::late(PATIENCE))?;
        answer::from_message(answer.map_err(|status| Failure::grpc(&status))?.into_inner())
    }
}
