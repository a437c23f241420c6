//! A caller's way to the server, over either protocol: what it sends is ready, what comes back is
//! decoded only after the clock has stopped.

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;

use crate::answer::{self, Answer, JSON_LENGTH};
use crate::failure::Failure;
use crate::grpc_client::GrpcClient;
use crate::http_client::HttpClient;
use crate::payload::Payload;
use crate::target::model_path;

/// Sends the requests of one caller.
#[derive(Debug)]
pub enum Client {
    Http { client: HttpClient, path: Uri },
    Grpc(GrpcClient),
}

/// An answer as it came.
#[derive(Debug)]
pub enum Received {
    Http(Response<Bytes>),
    Grpc(Bytes),
}

impl Client {
    /// A connected caller over HTTP, with a connection of its own.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn http(url: &str, model: &str, version: &str) -> anyhow::Result<Self> {
        let path = format!("{}/infer", model_path(model, version)).parse()?;
        let mut client = HttpClient::new(url)?;
        client.connect().await.with_context(|| format!("cannot connect to {url}"))?;
        Ok(Self::Http { client, path })
    }

    /// Sends one request and waits for the last byte of its answer.
    ///
    /// # Errors
    /// When no answer came, or one that refuses.
    pub async fn send(&mut self, payload: &Payload) -> Result<Received, Failure> {
        match self {
            Self::Grpc(client) => Ok(Received::Grpc(client.infer(payload.body.clone()).await?)),
            Self::Http { client, path } => {
                let mut request = Request::new(Full::new(payload.body.clone()));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = path.clone();
                if let Some(length) = payload.json_length {
                    request.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
                }
                let response = client.send(request).await?;
                match response.status() {
                    StatusCode::OK => Ok(Received::Http(response)),
                    status => Err(Failure::http(status, response.body())),
                }
            }
        }
    }
}

impl Received {
    /// Reads the answer.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(self) -> Result<Answer, Failure> {
        match self {
            Self::Http(response) => answer::from_http(&response),
            Self::Grpc(message) => answer::from_grpc(message),
        }
    }
}
