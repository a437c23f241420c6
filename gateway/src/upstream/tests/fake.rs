//! A server of the protocol on a free port, in either form, that can be as bad as servers get. Its
//! model `double` gives its input times two.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use proto::inference::model_infer_response::InferOutputTensor;
use proto::inference::model_metadata_response::TensorMetadata;
use proto::inference::{
    InferTensorContents, ModelConfig, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
    ModelMetadataResponse, ModelReadyResponse, ServerReadyResponse,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config::UpstreamProtocol;
use crate::tasks;

/// How a server answers calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mood {
    Well,
    Slow(Duration),
    /// This status, and words.
    Says(u16, &'static str),
    /// Takes calls and never answers.
    Hangs,
    Garbage(Garbage),
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Garbage {
    Datatype,
    Length,
    Shape,
    Rows,
    Missing,
    Twice,
    Undecodable,
    /// Ends in the middle.
    Cut,
    Oversize,
}

impl Garbage {
    pub(crate) const ALL: [Self; 9] = [
        Self::Datatype,
        Self::Length,
        Self::Shape,
        Self::Rows,
        Self::Missing,
        Self::Twice,
        Self::Undecodable,
        Self::Cut,
        Self::Oversize,
    ];
}

/// What a server says of itself and its model.
#[derive(Debug, Clone)]
pub(crate) struct Face {
    pub(crate) mood: Mood,
    pub(crate) is_ready: bool,
    /// Of the model's input; empty: it names none.
    pub(crate) shape: Vec<i64>,
    pub(crate) max_batch_size: Option<i32>,
    /// Whether tensors are binary, as Triton's, or in JSON and typed contents, as MLServer's.
    pub(crate) is_binary: bool,
    /// What answers call the version.
    pub(crate) version: String,
}

impl Default for Face {
    fn default() -> Self {
        Self {
            mood: Mood::Well,
            is_ready: true,
            shape: vec![-1, 2],
            max_batch_size: Some(8),
            is_binary: true,
            version: "7".into(),
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    calls: usize,
    connections: usize,
    last: HeaderMap,
    last_id: String,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: String,
    face: Arc<Mutex<Face>>,
    seen: Arc<Mutex<Seen>>,
    dead: CancellationToken,
}

type Body = BoxBody<Bytes, Infallible>;

impl Fake {
    pub(crate) async fn start(protocol: UpstreamProtocol) -> Self {
        Self::serve(protocol, Face::default(), "127.0.0.1:0", None).await
    }

    pub(crate) async fn with(protocol: UpstreamProtocol, face: Face) -> Self {
        Self::serve(protocol, face, "127.0.0.1:0", None).await
    }

    pub(crate) async fn serve(
        protocol: UpstreamProtocol,
        face: Face,
        address: &str,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = if tls.is_some() { "localhost" } else { "127.0.0.1" };
        let fake = Self {
            address: format!("{host}:{port}"),
            face: Arc::new(Mutex::new(face)),
            seen: Arc::default(),
            dead: CancellationToken::new(),
        };
        let (face, seen, dead) = (fake.face.clone(), fake.seen.clone(), fake.dead.clone());
        tasks::spawn("fake", async move {
            loop {
                let stream = tokio::select! {
                    () = dead.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (face, seen, dead) = (face.clone(), seen.clone(), dead.clone());
                seen.lock().unwrap().connections += 1;
                let tls = tls.clone();
                tasks::spawn("fake", async move {
                    let served = async {
                        match tls {
                            None => connection(protocol, stream, &face, &seen).await,
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    connection(protocol, stream, &face, &seen).await;
                                }
                            }
                        }
                    };
                    tokio::select! {
                        () = dead.cancelled() => {}
                        () = served => {}
                    }
                });
            }
        });
        fake
    }

    pub(crate) fn be(&self, mood: Mood) {
        self.face.lock().unwrap().mood = mood;
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Face)) {
        change(&mut self.face.lock().unwrap());
    }

    /// Closes the port and every connection.
    pub(crate) fn die(&self) {
        self.dead.cancel();
    }

    /// Calls for an answer that have come.
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().calls
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Headers and id of the last call.
    pub(crate) fn last(&self) -> (HeaderMap, String) {
        let seen = self.seen.lock().unwrap();
        (seen.last.clone(), seen.last_id.clone())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.dead.cancel();
    }
}

async fn connection(
    protocol: UpstreamProtocol,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    face: &Arc<Mutex<Face>>,
    seen: &Arc<Mutex<Seen>>,
) {
    let (face, seen) = (face.clone(), seen.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (face, seen) = (face.clone(), seen.clone());
        async move { one(protocol, request, &face, &seen).await }
    });
    let io = TokioIo::new(stream);
    // How a connection ends is the caller's matter.
    match protocol {
        UpstreamProtocol::Http => {
            drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
        }
        UpstreamProtocol::Grpc => drop(
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await,
        ),
    }
}

async fn one(
    protocol: UpstreamProtocol,
    request: Request<Incoming>,
    face: &Mutex<Face>,
    seen: &Mutex<Seen>,
) -> Result<Response<Body>, &'static str> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    let now = face.lock().unwrap().clone();
    let is_call = path.ends_with("/infer") || path.ends_with("/ModelInfer");
    if is_call {
        let mut seen = seen.lock().unwrap();
        seen.calls += 1;
        seen.last = head.headers.clone();
    }
    match now.mood {
        Mood::Hangs if is_call => std::future::pending::<()>().await,
        Mood::Slow(time) if is_call => tokio::time::sleep(time).await,
        _ => {}
    }
    let answer = match protocol {
        UpstreamProtocol::Http => over_http(&now, &path, &head.headers, &body, seen),
        UpstreamProtocol::Grpc => over_grpc(&now, &path, &body, seen),
    };
    // An answer that ends in the middle ends the connection too.
    answer.ok_or("cut")
}

fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into()).boxed()
}

fn answered(status: u16, body: &Value) -> Option<Response<Body>> {
    let status = StatusCode::from_u16(status).unwrap();
    Some(Response::builder().status(status).body(full(body.to_string())).unwrap())
}

/// Rows and bytes of the only output, as bad as it should be: datatype, shape, data.
fn output(face: &Face, rows: usize, data: &[u8]) -> (&'static str, Vec<usize>, Vec<u8>) {
    let floats = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes) * 2.0);
    let mut data: Vec<u8> = floats.flat_map(f32::to_le_bytes).collect();
    let (mut datatype, mut shape) = ("FP32", vec![rows, 2]);
    match face.mood {
        Mood::Garbage(Garbage::Datatype) => datatype = "INT32",
        Mood::Garbage(Garbage::Length) => data.truncate(data.len() - 1),
        Mood::Garbage(Garbage::Shape) => shape = vec![2, rows, 1],
        Mood::Garbage(Garbage::Rows) => {
            shape[0] += 1;
            data.extend([0; 8]);
        }
        Mood::Garbage(Garbage::Oversize) => {
            data = vec![0; crate::upstream::wire::MAX_ANSWER + 8];
            shape[0] = data.len() / 8;
        }
        _ => {}
    }
    (datatype, shape, data)
}

fn over_http(
    face: &Face,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
    seen: &Mutex<Seen>,
) -> Option<Response<Body>> {
    let ready = if face.is_ready { 200 } else { 503 };
    let tensor = |name| json!({"name": name, "datatype": "FP32", "shape": face.shape});
    match path {
        "/v2/health/ready" | "/v2/models/double/ready" => answered(ready, &json!({})),
        "/v2" => {
            let extensions = if face.is_binary { vec!["binary_tensor_data"] } else { vec![] };
            answered(200, &json!({"name": "fake", "extensions": extensions}))
        }
        "/v2/models/double" if face.shape.is_empty() => {
            answered(200, &json!({"name": "double", "inputs": [], "outputs": []}))
        }
        "/v2/models/double" => {
            answered(200, &json!({"inputs": [tensor("x")], "outputs": [tensor("y")]}))
        }
        "/v2/models/double/config" => match face.max_batch_size {
            Some(size) => answered(200, &json!({"max_batch_size": size})),
            None => answered(404, &json!({"error": "no such thing"})),
        },
        "/v2/models/double/infer" => infer_http(face, headers, body, seen),
        _ => answered(404, &json!({"error": "no such model"})),
    }
}

fn infer_http(
    face: &Face,
    headers: &HeaderMap,
    body: &[u8],
    seen: &Mutex<Seen>,
) -> Option<Response<Body>> {
    if let Mood::Says(status, text) = face.mood {
        return answered(status, &json!({"error": text}));
    }
    let length = headers.get("inference-header-content-length");
    let length = length.map_or(body.len(), |text| text.to_str().unwrap().parse().unwrap());
    assert_eq!(face.is_binary, length < body.len(), "as the server said that it can");
    let request: Value = serde_json::from_slice(&body[..length]).unwrap();
    seen.lock().unwrap().last_id = request["id"].as_str().unwrap().to_owned();
    let input = &request["inputs"][0];
    let rows = usize::try_from(input["shape"][0].as_u64().unwrap()).unwrap();
    let data: Vec<u8> = match face.is_binary {
        true => body[length..].to_vec(),
        false => input["data"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|value| value.to_string().parse::<f32>().unwrap().to_le_bytes())
            .collect(),
    };
    let (datatype, shape, data) = output(face, rows, &data);
    let mut one = json!({"name": "y", "datatype": datatype, "shape": shape});
    if face.is_binary {
        one["parameters"] = json!({"binary_data_size": data.len()});
    } else {
        let floats = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        one["data"] = floats.collect::<Vec<_>>().into();
    }
    let mut answer =
        json!({"model_name": "double", "model_version": face.version, "outputs": [one]});
    let mut tail = if face.is_binary { data } else { vec![] };
    match face.mood {
        Mood::Garbage(Garbage::Missing) => answer["outputs"] = json!([]),
        Mood::Garbage(Garbage::Twice) => {
            answer["outputs"] = json!([answer["outputs"][0], answer["outputs"][0]]);
            tail.extend(tail.clone());
        }
        _ => {}
    }
    if face.mood == Mood::Garbage(Garbage::Missing) {
        tail.clear();
    }
    let mut text = answer.to_string().into_bytes();
    if face.mood == Mood::Garbage(Garbage::Undecodable) {
        text[0] = b'(';
    }
    let length = text.len();
    text.extend(tail);
    let response = Response::builder().header("inference-header-content-length", length);
    if face.mood == Mood::Garbage(Garbage::Cut) {
        return None;
    }
    Some(response.body(full(text)).unwrap())
}

fn over_grpc(face: &Face, path: &str, body: &[u8], seen: &Mutex<Seen>) -> Option<Response<Body>> {
    let method = path.strip_prefix("/inference.GRPCInferenceService/").unwrap();
    let tensor = |name: &str| TensorMetadata {
        name: name.into(),
        datatype: "FP32".into(),
        shape: face.shape.clone(),
    };
    let tensors = |name| if face.shape.is_empty() { vec![] } else { vec![tensor(name)] };
    let unknown = |body: &[u8]| !String::from_utf8_lossy(body).contains("double");
    match method {
        "ServerReady" => message(&ServerReadyResponse { ready: face.is_ready }),
        "ModelReady" if unknown(body) => status(5, "no such model"),
        "ModelReady" => message(&ModelReadyResponse { ready: face.is_ready }),
        "ModelMetadata" => message(&ModelMetadataResponse {
            inputs: tensors("x"),
            outputs: tensors("y"),
            ..ModelMetadataResponse::default()
        }),
        "ModelConfig" => match face.max_batch_size {
            Some(max_batch_size) => message(&ModelConfigResponse {
                config: Some(ModelConfig { max_batch_size, ..ModelConfig::default() }),
            }),
            None => status(12, "no such thing"),
        },
        _ => infer_grpc(face, body, seen),
    }
}

fn infer_grpc(face: &Face, body: &[u8], seen: &Mutex<Seen>) -> Option<Response<Body>> {
    if let Mood::Says(code, text) = face.mood {
        return status(code, text);
    }
    let request = ModelInferRequest::decode(&body[5..]).unwrap();
    seen.lock().unwrap().last_id = request.id;
    let rows = usize::try_from(request.inputs[0].shape[0]).unwrap();
    let (datatype, shape, data) = output(face, rows, &request.raw_input_contents[0]);
    let mut one = InferOutputTensor {
        name: "y".into(),
        datatype: datatype.into(),
        shape: shape.iter().map(|&size| i64::try_from(size).unwrap()).collect(),
        ..InferOutputTensor::default()
    };
    let mut answer =
        ModelInferResponse { model_version: face.version.clone(), ..Default::default() };
    if face.is_binary {
        answer.raw_output_contents.push(data.into());
    } else {
        let floats = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let fp32_contents = floats.collect();
        one.contents = Some(InferTensorContents { fp32_contents, ..Default::default() });
    }
    answer.outputs.push(one);
    match face.mood {
        Mood::Garbage(Garbage::Missing) => {
            answer.outputs.clear();
            answer.raw_output_contents.clear();
        }
        Mood::Garbage(Garbage::Twice) => {
            answer.outputs.push(answer.outputs[0].clone());
            answer.raw_output_contents.extend(answer.raw_output_contents.clone());
        }
        Mood::Garbage(Garbage::Undecodable) => return framed(b"\xff\xff\xff"),
        Mood::Garbage(Garbage::Cut) => return None,
        _ => {}
    }
    message(&answer)
}

fn message(message: &impl Message) -> Option<Response<Body>> {
    framed(&message.encode_to_vec())
}

fn framed(message: &[u8]) -> Option<Response<Body>> {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames = [Ok(Frame::data(frame.freeze())), Ok(Frame::trailers(trailers))];
    let body = StreamBody::new(tokio_stream::iter(frames));
    let response = Response::builder().header("content-type", "application/grpc");
    Some(response.body(BodyExt::boxed(body)).unwrap())
}

/// An answer without a message.
fn status(code: u16, text: &str) -> Option<Response<Body>> {
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", text);
    Some(response.body(full(Bytes::new())).unwrap())
}
