//! The server under load: its addresses, what it says about a model, and the calls of its model
//! repository.

use anyhow::Context;
use proto::inference::ModelMetadataResponse;
use proto::inference::model_metadata_response::TensorMetadata;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::grpc_client::GrpcClient;
use crate::http_client::HttpClient;

/// Where a server listens, each as `http://host:port`.
#[derive(Debug, Clone)]
pub struct Target {
    pub http: String,
    pub grpc: String,
}

/// What the server says about a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    pub name: String,
    #[serde(default)]
    pub versions: Vec<String>,
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TensorInfo {
    pub name: String,
    pub datatype: String,
    /// -1 is a dimension of any size.
    pub shape: Vec<i64>,
}

/// One line of the repository's index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IndexEntry {
    pub name: String,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub reason: String,
}

impl Target {
    /// Asks about a model over HTTP.
    ///
    /// # Errors
    /// When the server does not answer or does not know the model.
    pub async fn metadata(&self, model: &str, version: &str) -> anyhow::Result<Metadata> {
        let mut client = HttpClient::new(&self.http)?;
        let body = client.get(&model_path(model, version)).await;
        parse(&body.with_context(|| format!("{}: metadata of '{model}'", self.http))?)
    }

    /// Asks about a model over gRPC.
    ///
    /// # Errors
    /// When the server does not answer or does not know the model.
    pub async fn metadata_by_grpc(&self, model: &str, version: &str) -> anyhow::Result<Metadata> {
        let client = GrpcClient::connect(&self.grpc).await?;
        let answer = client.metadata(model, version).await;
        let answer = answer.with_context(|| format!("{}: metadata of '{model}'", self.grpc))?;
        Ok(answer.into())
    }

    /// Everything in the server's model repository.
    ///
    /// # Errors
    /// When the server does not answer or has no repository.
    pub async fn index(&self) -> anyhow::Result<Vec<IndexEntry>> {
        let mut client = HttpClient::new(&self.http)?;
        let body = client.post("/v2/repository/index", "{}").await;
        parse(&body.context("the repository's index")?)
    }

    /// Has a model loaded as its folder says; returns when it serves.
    ///
    /// # Errors
    /// What the server refused it with.
    pub async fn load(&self, model: &str) -> Result<(), Failure> {
        let mut client = HttpClient::new(&self.http)
            .map_err(|error| Failure::unreachable(format!("{error:#}")))?;
        client.post(&format!("/v2/repository/models/{model}/load"), "{}").await.map(drop)
    }
}

/// The path of a model, or of one version when it is not empty.
#[must_use]
pub fn model_path(model: &str, version: &str) -> String {
    if version.is_empty() {
        format!("/v2/models/{model}")
    } else {
        format!("/v2/models/{model}/versions/{version}")
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body)
        .with_context(|| format!("cannot read {}", String::from_utf8_lossy(body)))
}

impl From<ModelMetadataResponse> for Metadata {
    fn from(answer: ModelMetadataResponse) -> Self {
        let ModelMetadataResponse { name, versions, inputs, outputs, .. } = answer;
        let info = |TensorMetadata { name, datatype, shape }| TensorInfo { name, datatype, shape };
        Self {
            name,
            versions,
            inputs: inputs.into_iter().map(info).collect(),
            outputs: outputs.into_iter().map(info).collect(),
        }
    }
}
