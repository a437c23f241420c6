//! Calls a running gateway over its HTTP port.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

/// What must not stand as it is in one segment of a path.
const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'/').add(b'<').add(b'>').add(b'?');

/// A name as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Calls `path` and returns the JSON answer, `Null` for an empty one.
///
/// # Errors
/// When the gateway cannot be reached or refuses; then with its own words.
pub(super) async fn call(url: &str, method: Method, path: &str) -> anyhow::Result<Value> {
    let base = url.trim_end_matches('/');
    let (status, body) = exchange(base, method, path, Bytes::new())
        .await
        .with_context(|| format!("cannot reach a gateway at {base}"))?;
    let value: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body)
            .with_context(|| format!("{base}{path} did not answer with JSON"))?
    };
    if status.is_success()
        || status == http::StatusCode::SERVICE_UNAVAILABLE && value["error"].is_null()
    {
        return Ok(value);
    }
    match value["error"].as_str() {
        Some(text) => bail!("{text}"),
        None => bail!("{base}{path} answered {status}"),
    }
}

async fn exchange(
    base: &str,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<(http::StatusCode, Bytes)> {
    let request = Request::builder()
        .method(method)
        .uri(format!("{base}{path}"))
        .body(Full::new(body))
        .context("the address is not valid, use http://HOST:PORT")?;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
