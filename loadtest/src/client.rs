//! One caller for single questions: what a version answers alone, who answers at the moment. The
//! load itself goes another way.

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;

use crate::answer::{self, Answer, JSON_LENGTH};
use crate::failure::Failure;
use crate::http_client::HttpClient;
use crate::payload::Payload;
use crate::target::model_path;

/// Asks one model over HTTP, on a connection of its own.
#[derive(Debug)]
pub struct Client {
    client: HttpClient,
    path: Uri,
}

impl Client {
    /// A connected caller.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn http(url: &str, model: &str, version: &str) -> anyhow::Result<Self> {
        let path = format!("{}/infer", model_path(model, version)).parse()?;
        let mut client = HttpClient::new(url)?;
        client.connect().await.with_context(|| format!("cannot connect to {url}"))?;
        Ok(Self { client, path })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// When no answer came, or one that refuses or is none.
    pub async fn ask(&mut self, payload: &Payload) -> Result<Answer, Failure> {
        self.ask_as(payload, None).await
    }

    /// The same with a header that says who asks.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub async fn ask_as(
        &mut self,
        payload: &Payload,
        who: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(payload.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        if let Some(length) = payload.json_length {
            request.headers_mut().insert(JSON_LENGTH, HeaderValue::from(length));
        }
        request.headers_mut().extend(who);
        let response = self.client.send(request).await?;
        match response.status() {
            StatusCode::OK => answer::from_http(response.body(), json_length(&response)?),
            status => Err(Failure::http(status, response.body())),
        }
    }
}

fn json_length(response: &Response<Bytes>) -> Result<Option<usize>, Failure> {
    let Some(value) = response.headers().get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| Failure::malformed("the length of its JSON"))
}
