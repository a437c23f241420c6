//! gRPC calls over a tonic channel. Inference sends messages encoded beforehand and returns them
//! undecoded: the load pays for HTTP/2 alone.

use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use proto::inference::{ModelMetadataRequest, ModelMetadataResponse};
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::failure::Failure;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client on one connection, which it may share with others.
#[derive(Debug, Clone)]
pub struct GrpcClient {
    channel: Channel,
    grpc: Grpc<Channel>,
}

impl GrpcClient {
    /// Opens a connection to `http://host:port`.
    ///
    /// # Errors
    /// When the address is malformed or the server cannot be reached.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .with_context(|| format!("'{url}' is no address"))?
            .tcp_nodelay(true);
        let channel =
            endpoint.connect().await.with_context(|| format!("cannot connect to {url}"))?;
        // Real clients allow what a length of 31 bits can say.
        let limit = usize::try_from(i32::MAX).expect("an address has 32 bits or more");
        let grpc = Grpc::new(channel.clone()).max_decoding_message_size(limit);
        Ok(Self { channel, grpc })
    }

    /// Sends an encoded `ModelInferRequest` and returns the encoded `ModelInferResponse`.
    ///
    /// # Errors
    /// When there is no connection, the status is not OK, or the answer takes longer than a
    /// minute.
    pub async fn infer(&mut self, message: Bytes) -> Result<Bytes, Failure> {
        timeout(PATIENCE, self.exchange(message))
            .await
            .unwrap_or_else(|_| Err(Failure::late(PATIENCE)))
    }

    async fn exchange(&mut self, message: Bytes) -> Result<Bytes, Failure> {
        let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
        self.grpc.ready().await.map_err(Failure::unreachable)?;
        let answer = self.grpc.unary(Request::new(message), path, Encoded).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::grpc(&status))
    }

    /// A model's versions and tensors.
    ///
    /// # Errors
    /// As for inference.
    pub async fn metadata(
        &self,
        model: &str,
        version: &str,
    ) -> Result<ModelMetadataResponse, Failure> {
        let mut client = GrpcInferenceServiceClient::new(self.channel.clone());
        let request = ModelMetadataRequest { name: model.to_owned(), version: version.to_owned() };
        let answer = client.model_metadata(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Failure::grpc(&status))
    }
}

/// Passes messages through as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
