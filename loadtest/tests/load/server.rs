//! A small server of the protocol over hyper, for both wires, that misbehaves as it is told. Its
//! one model doubles numbers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use proto::inference::model_infer_response::InferOutputTensor;
use proto::inference::model_metadata_response::TensorMetadata;
use proto::inference::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the server does to the call of a number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Answer,
    /// Answers with numbers that are wrong.
    Lie,
    /// Refuses as overloaded.
    Refuse,
    /// Answers and closes the connection.
    Part,
    /// Closes the connection without an answer.
    Break,
    /// Says nothing.
    Hang,
    /// Says nothing to anybody for this long.
    Stall(Duration),
}

type Manners = Arc<dyn Fn(u64) -> Manner + Send + Sync>;
type Body = BoxBody<Bytes, Infallible>;

/// A server; it ends with the test.
pub(crate) struct Server {
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) state: Arc<State>,
    _tasks: JoinSet<()>,
}

pub(crate) struct State {
    manners: Manners,
    calls: AtomicU64,
    pub(crate) connections: AtomicU64,
    /// How often each key came.
    pub(crate) keys: Mutex<BTreeMap<String, u64>>,
    /// Until then nobody is answered.
    stalled: watch::Sender<Option<tokio::time::Instant>>,
}

impl Server {
    pub(crate) async fn start(manners: impl Fn(u64) -> Manner + Send + Sync + 'static) -> Self {
        let state = Arc::new(State {
            manners: Arc::new(manners),
            calls: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            keys: Mutex::default(),
            stalled: watch::Sender::default(),
        });
        let mut tasks = JoinSet::new();
        let mut addresses = Vec::new();
        for grpc in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(format!("http://{}", listener.local_addr().unwrap()));
            tasks.spawn(listen(listener, state.clone(), grpc));
        }
        let (http, grpc) = (addresses[0].clone(), addresses[1].clone());
        Self { http, grpc, state, _tasks: tasks }
    }
}

async fn listen(listener: TcpListener, state: Arc<State>, grpc: bool) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        state.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, state.clone(), grpc));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, grpc: bool) {
    stream.set_nodelay(true).unwrap();
    let broken = Arc::new(tokio::sync::Notify::new());
    let breaks = broken.clone();
    let service = service_fn(move |request| answer(request, state.clone(), breaks.clone(), grpc));
    let io = TokioIo::new(stream);
    if grpc {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::select! {
            _ = server.serve_connection(io, service) => {}
            () = broken.notified() => {}
        }
    } else {
        tokio::select! {
            _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service) => {}
            () = broken.notified() => {}
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
    broken: Arc<tokio::sync::Notify>,
    grpc: bool,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if !path.ends_with("infer") && !path.ends_with("ModelInfer") {
        return Ok(if grpc { metadata_message() } else { metadata() });
    }
    let key = request.headers().get("x-user").map(|key| key.to_str().unwrap().to_owned());
    if let Some(key) = key {
        *state.keys.lock().unwrap().entry(key).or_default() += 1;
    }
    let binary = request.headers().contains_key("inference-header-content-length");
    let length = request.headers().get("inference-header-content-length").cloned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let manner = (state.manners)(state.calls.fetch_add(1, Ordering::Relaxed));
    if let Manner::Stall(time) = manner {
        state.stalled.send_replace(Some(tokio::time::Instant::now() + time));
    }
    let stalled = *state.stalled.borrow();
    if let Some(until) = stalled {
        tokio::time::sleep_until(until).await;
    }
    match manner {
        Manner::Break => {
            broken.notify_one();
            return pending().await;
        }
        Manner::Hang => return pending().await,
        Manner::Refuse => return Ok(if grpc { refusal_message() } else { refusal() }),
        _ => {}
    }
    let lie = if manner == Manner::Lie { 1.0 } else { 0.0 };
    let mut response = if grpc {
        infer_message(body.slice(5..), lie)
    } else if binary {
        infer_binary(&body, length.unwrap().to_str().unwrap().parse().unwrap(), lie)
    } else {
        infer(&body, lie)
    };
    if manner == Manner::Part && !grpc {
        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

fn metadata() -> Response<Body> {
    let tensor = |name| json!([{ "name": name, "datatype": "FP32", "shape": [-1, 3] }]);
    let body = json!({ "name": "double", "versions": ["1"], "platform": "test",
        "inputs": tensor("x"), "outputs": tensor("y") });
    Response::new(full(body.to_string()))
}

fn refusal() -> Response<Body> {
    let mut response = Response::new(full(r#"{"error":"the queue is full"}"#));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response
}

fn infer(body: &[u8], lie: f64) -> Response<Body> {
    let request: Value = serde_json::from_slice(body).unwrap();
    let input = &request["inputs"][0];
    let numbers = input["data"].as_array().unwrap().iter();
    let doubled: Vec<f64> = numbers.map(|x| x.as_f64().unwrap() * 2.0 + lie).collect();
    let body = json!({ "model_name": "double", "model_version": "1", "outputs": [
        { "name": "y", "datatype": "FP32", "shape": input["shape"], "data": doubled }] });
    // In two pieces without a length: hyper sends them as chunks.
    let text = Bytes::from(body.to_string());
    let pieces = [text.slice(..10), text.slice(10..)].map(|piece| Ok(Frame::data(piece)));
    Response::new(StreamBody::new(futures_util::stream::iter(pieces)).boxed())
}

fn infer_binary(body: &[u8], length: usize, lie: f64) -> Response<Body> {
    let doubled = double(&body[length..], lie);
    let head = json!({ "model_name": "double", "model_version": "1", "outputs": [
        { "name": "y", "datatype": "FP32", "shape": [doubled.len() / 12, 3],
          "parameters": { "binary_data_size": doubled.len() } }] })
    .to_string();
    let mut response = Response::new(full([head.as_bytes(), &doubled].concat()));
    let length = HeaderValue::from(head.len());
    response.headers_mut().insert("inference-header-content-length", length);
    response
}

#[expect(clippy::cast_possible_truncation, reason = "an offset of 0 or 1")]
fn double(bytes: &[u8], lie: f64) -> Vec<u8> {
    let numbers = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    numbers.flat_map(|x| (x * 2.0 + lie as f32).to_le_bytes()).collect()
}

/// A message of gRPC with its trailers.
fn message(message: &impl prost::Message) -> Response<Body> {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(bytes.freeze())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn refusal_message() -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    for (name, value) in
        [("content-type", "application/grpc"), ("grpc-status", "14"), ("grpc-message", "full")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn metadata_message() -> Response<Body> {
    let tensor = |name: &str| TensorMetadata {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![-1, 3],
    };
    message(&ModelMetadataResponse {
        name: "double".to_owned(),
        versions: vec!["1".to_owned()],
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        ..ModelMetadataResponse::default()
    })
}

fn infer_message(body: Bytes, lie: f64) -> Response<Body> {
    let request = ModelInferRequest::decode(body).unwrap();
    let output = InferOutputTensor {
        name: "y".to_owned(),
        datatype: "FP32".to_owned(),
        shape: request.inputs[0].shape.clone(),
        ..InferOutputTensor::default()
    };
    message(&ModelInferResponse {
        model_name: "double".to_owned(),
        model_version: "1".to_owned(),
        outputs: vec![output],
        raw_output_contents: vec![double(&request.raw_input_contents[0], lie).into()],
        ..ModelInferResponse::default()
    })
}
