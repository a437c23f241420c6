//! The protocol over HTTP/1.1. Tensors are binary where the server says that it knows them so;
//! else they are JSON.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::line::{Exchanged, unsendable};
use super::payload::Payload;
use super::{Answer, Attempt, Declared, Description, Line, Name, marks, tensor};
use crate::codec::json::{write_data, write_text};
use crate::codec::tensors;
use crate::upstream::failure::{Cause, Failure, plain};

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// What a segment of a path may not hold as it is. What is unreserved (RFC 3986, 2.3) stays: not
/// every server decodes the names in its paths.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The extension that a server with binary tensors names.
const BINARY: &str = "binary_tensor_data";

/// An endpoint that speaks HTTP.
#[derive(Debug)]
pub(in crate::upstream) struct Client {
    line: Line,
    /// Whether it knows binary tensors.
    has_binary: AtomicBool,
}

#[derive(Deserialize)]
struct Server {
    #[serde(default)]
    extensions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Ready {
    ready: bool,
}

#[derive(Deserialize)]
struct Metadata {
    inputs: Option<Vec<Declared>>,
    outputs: Option<Vec<Declared>>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    max_batch_size: i64,
}

#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(default)]
    model_version: Option<String>,
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Option<OutputParameters>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OutputParameters {
    binary_data_size: Option<usize>,
}

impl Client {
    pub(super) fn new(line: Line) -> Self {
        Self { line, has_binary: AtomicBool::new(false) }
    }

    /// Takes over what another client of the same servers has learnt.
    pub(super) fn inherit(&self, other: &Self) {
        self.has_binary.store(other.has_binary.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) async fn infer(&self, attempt: &Attempt<'_>) -> Result<Answer, Failure> {
        let path = format!("{}/infer", model_path(attempt.name));
        let (json_length, payload) = self.encode(attempt)?;
        let mut request = self.request(Method::POST, &path, payload)?;
        let headers = request.headers_mut();
        marks(attempt, headers)?;
        match json_length {
            Some(length) => {
                headers.insert(JSON_LENGTH, HeaderValue::from(length));
                let octets = HeaderValue::from_static("application/octet-stream");
                headers.insert(CONTENT_TYPE, octets);
            }
            None => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
        }
        decode(&self.exchange(request).await?)
    }

    pub(super) async fn ready(&self) -> Result<(), Failure> {
        self.get("/v2/health/ready").await.map(|_| ())
    }

    pub(super) async fn describe(&self, name: Name<'_>) -> Result<Description, Failure> {
        let server: Server = read(&self.get("/v2").await?)?;
        let extensions = server.extensions.unwrap_or_default();
        let has_binary = extensions.iter().any(|extension| extension == BINARY);
        self.has_binary.store(has_binary, Ordering::Relaxed);
        let path = model_path(name);
        self.model_ready(&path).await?;
        let metadata: Metadata = read(&self.get(&path).await?)?;
        let max_batch_size = match self.get(&format!("{path}/config")).await {
            Ok(answer) => read::<Config>(&answer).ok().map(|config| config.max_batch_size),
            Err(failure) if failure.cause.may_retry() => return Err(failure),
            // Not every server has one.
            Err(_) => None,
        };
        Ok(Description {
            inputs: metadata.inputs.unwrap_or_default(),
            outputs: metadata.outputs.unwrap_or_default(),
            max_batch_size: max_batch_size.map(|size| usize::try_from(size).unwrap_or(0)),
        })
    }

    /// Whether a model is ready. A bare status may be that of something in between: only a server
    /// that says so in words has the model and is not ready.
    async fn model_ready(&self, path: &str) -> Result<(), Failure> {
        let answer = self.line.exchange(self.request(
            Method::GET,
            &format!("{path}/ready"),
            Payload::default(),
        )?);
        let Exchanged { head, body, .. } = answer.await?;
        if head.status == StatusCode::OK {
            return Ok(());
        }
        let failure = Failure::of_http(head.status, &head.headers, &words(&body));
        let says_no = || {
            let said = serde_json::from_slice::<Ready>(&body);
            said.is_ok_and(|said| !said.ready)
        };
        // Triton refuses the request where the model is not ready.
        let is_denied = failure.cause == Cause::Invalid || says_no();
        let cause = if is_denied { Cause::Unready } else { failure.cause };
        Err(Failure { cause, ..failure })
    }

    async fn get(&self, path: &str) -> Result<Exchanged, Failure> {
        self.exchange(self.request(Method::GET, path, Payload::default())?).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        payload: Payload,
    ) -> Result<Request<Payload>, Failure> {
        let path: PathAndQuery =
            path.parse().map_err(|error| unsendable(&http::Error::from(error)))?;
        let request = Request::builder().method(method).uri(self.line.uri(path)).body(payload);
        request.map_err(|error| unsendable(&error))
    }

    async fn exchange(&self, request: Request<Payload>) -> Result<Exchanged, Failure> {
        let answer = self.line.exchange(request).await?;
        let Exchanged { head, body, .. } = &answer;
        if head.status == StatusCode::OK {
            return Ok(answer);
        }
        Err(Failure::of_http(head.status, &head.headers, &words(body)))
    }

    /// The length of the JSON where binary tensors stand behind it, and all of it.
    fn encode(&self, attempt: &Attempt<'_>) -> Result<(Option<usize>, Payload), Failure> {
        let is_binary = self.has_binary.load(Ordering::Relaxed);
        let mut json = Vec::with_capacity(256);
        let mut text = format!("{{\"id\":\"{}\",\"parameters\":{{", attempt.id());
        if is_binary {
            text += "\"binary_data_output\":true";
        }
        if let Some(priority) = attempt.priority {
            let comma = if is_binary { "," } else { "" };
            // A String takes every byte.
            let _ = write!(text, "{comma}\"priority\":{}", priority.level());
        }
        text += "},\"inputs\":[";
        json.extend_from_slice(text.as_bytes());
        for (index, (tensor, spec)) in
            attempt.tensors.iter().zip(&attempt.signature.inputs).enumerate()
        {
            json.extend_from_slice(if index > 0 { b",{\"name\":" } else { b"{\"name\":" });
            write_text(&spec.name, &mut json);
            let (datatype, shape) = (tensor.datatype(), tensor.shape());
            json.extend_from_slice(
                format!(",\"datatype\":\"{datatype}\",\"shape\":{shape:?},").as_bytes(),
            );
            if is_binary {
                let size = tensor.data().len();
                let text = format!("\"parameters\":{{\"binary_data_size\":{size}}}}}");
                json.extend_from_slice(text.as_bytes());
            } else {
                json.extend_from_slice(b"\"data\":");
                write_data(tensor, &mut json).map_err(|error| {
                    let text = format!("input '{}': {error}", spec.name);
                    Failure::new(Cause::Invalid, text + ", and this server takes nothing else")
                })?;
                json.push(b'}');
            }
        }
        json.extend_from_slice(b"]}");
        if !is_binary {
            return Ok((None, Payload::join(json, std::iter::empty())));
        }
        let length = json.len();
        let tails = attempt.tensors.iter().map(engine::Tensor::data);
        Ok((Some(length), Payload::join(json, tails)))
    }
}

fn decode(answer: &Exchanged) -> Result<Answer, Failure> {
    let body = &answer.body;
    let headers = &answer.head.headers;
    if let Some(length) = headers.get(CONTENT_LENGTH)
        && length.to_str().ok().and_then(|text| text.parse().ok()) != Some(body.len())
    {
        return Err(Failure::garbage("the answer is not as long as it says"));
    }
    let length = match headers.get(JSON_LENGTH) {
        None => body.len(),
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|&length| length <= body.len())
            .ok_or_else(|| Failure::garbage("the length of its JSON is none"))?,
    };
    let answered: Answered<'_> = serde_json::from_slice(&body[..length])
        .map_err(|error| Failure::garbage(format!("no answer in JSON: {error}")))?;
    let mut binary = body.slice(length..);
    let mut outputs = Vec::with_capacity(answered.outputs.len());
    for output in answered.outputs {
        let name = output.name.clone();
        let tensor = output
            .tensor(&mut binary)
            .map_err(|error| Failure::garbage(format!("output '{}': {error}", plain(&name))))?;
        outputs.push((name, tensor));
    }
    if !binary.is_empty() {
        return Err(Failure::garbage("there are bytes behind the last output"));
    }
    Ok(Answer { version: answered.model_version.unwrap_or_default(), outputs })
}

impl Output<'_> {
    /// The tensor; a binary one is the next of the bytes behind the JSON.
    fn tensor(self, binary: &mut Bytes) -> Result<engine::Tensor, String> {
        let size = self.parameters.and_then(|parameters| parameters.binary_data_size);
        match (size, self.data) {
            (Some(size), None) if size <= binary.len() => {
                tensor(&self.datatype, &self.shape, binary.split_to(size))
            }
            (Some(size), None) => Err(format!("{size} bytes are more than there are")),
            (None, Some(data)) => {
                let sizes = self.shape.iter().map(|&size| u64::try_from(size));
                let shape = sizes.collect::<Result<Vec<_>, _>>();
                let shape = shape.map_err(|_| "a dimension is negative".to_owned())?;
                tensors::decode(&self.datatype, &shape, data.get())
            }
            _ => Err("it must have either data or binary_data_size".into()),
        }
    }
}

/// The path of a model; names are those of the configuration.
fn model_path(name: Name<'_>) -> String {
    let segment = |text| utf8_percent_encode(text, RESERVED);
    let mut path = format!("/v2/models/{}", segment(name.model));
    if let Some(version) = name.version {
        path += &format!("/versions/{}", segment(version));
    }
    path
}

fn read<T: DeserializeOwned>(answer: &Exchanged) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::garbage(format!("what it says about itself: {error}")))
}

/// What a refusal says: `error` of its JSON, else the start of its text.
fn words(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => plain(&refusal.error),
        Err(_) => plain(&String::from_utf8_lossy(&body[..body.len().min(1024)])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_no_escape_stand_in_paths_as_they_are() {
        let path = |model, version| model_path(Name { model, version });
        assert_eq!(path("identity_fp32", None), "/v2/models/identity_fp32");
        assert_eq!(path("a-b.c~d", Some("1")), "/v2/models/a-b.c~d/versions/1");
        assert_eq!(path("a/b?c d", None), "/v2/models/a%2Fb%3Fc%20d");
    }
}
