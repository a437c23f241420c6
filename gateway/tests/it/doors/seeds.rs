//! Valid requests of every kind, for mutation to start from.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use prost::Message;
use proto::inference as pb;
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use proto::inference::{InferParameter, InferTensorContents, ModelInferRequest};

/// A request over HTTP.
#[derive(Debug, Clone)]
pub(super) struct HttpSeed {
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// A message of a gRPC call, without its frame.
#[derive(Debug, Clone)]
pub(super) struct GrpcSeed {
    pub(super) path: &'static str,
    pub(super) message: Vec<u8>,
}

impl HttpSeed {
    pub(super) fn request(&self, body: Vec<u8>) -> Request<Full<Bytes>> {
        self.try_request(body.into()).expect("a seed is a valid request")
    }

    /// `None` when target or headers are none of HTTP.
    pub(super) fn try_request(&self, body: Bytes) -> Option<Request<Full<Bytes>>> {
        let request = Request::builder().method(self.method).uri(self.target.as_str());
        let mut request = request.body(Full::new(body)).ok()?;
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
        Some(request)
    }
}

fn post(target: &str, body: &[u8], headers: &[(&str, &str)]) -> HttpSeed {
    HttpSeed {
        method: "POST",
        target: target.to_owned(),
        headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        body: body.to_vec(),
    }
}

const FLOATS: &str = "/v2/models/floats/infer";
const JSON: &[u8] = br#"{"id": "7", "parameters": {"priority": 1, "timeout": 9000000},
 "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1.5, -2e3], [0, 4]]}],
 "outputs": [{"name": "y", "parameters": {"binary_data": false}}]}"#;
const TEXTS: &[u8] = br#"{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 2],
 "data": ["a\u00e4\ud83d\ude00", "\"\\n"]}]}"#;
const CONFIG: &str = r#"{"name": "up", "platform": "identity", "max_batch_size": 4,
 "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}],
 "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}]}"#;

/// Every kind of request over HTTP; the first is a plain prediction.
pub(super) fn http() -> Vec<HttpSeed> {
    let binary = |datatype: &str, shape: &str, blob: &[u8]| {
        let json = format!(
            r#"{{"inputs": [{{"name": "x", "datatype": "{datatype}", "shape": {shape},
 "parameters": {{"binary_data_size": {}}}}}], "parameters": {{"binary_data_output": true}}}}"#,
            blob.len()
        );
        (json.len().to_string(), [json.as_bytes(), blob].concat())
    };
    let (floats_length, floats) = binary("FP32", "[1, 2]", &[0; 8]);
    let (texts_length, texts) = binary("BYTES", "[1, 2]", b"\x02\0\0\0ab\0\0\0\0");
    let load = serde_json::json!({"parameters": {
        "config": CONFIG,
        "file:1/model.pt": STANDARD.encode(b"no model at all"),
    }});
    let length = "inference-header-content-length";
    let mut seeds = vec![
        post(FLOATS, JSON, &[]),
        post("/v2/models/texts/versions/1/infer", TEXTS, &[("accept-encoding", "gzip")]),
        post(FLOATS, &floats, &[(length, &floats_length)]),
        post("/v2/models/texts/infer", &texts, &[(length, &texts_length)]),
        post(FLOATS, &gzip(JSON), &[("content-encoding", "gzip")]),
        post(FLOATS, &zlib(JSON), &[("content-encoding", "deflate")]),
        post("/v2/repository/index", br#"{"ready": true}"#, &[]),
        post("/v2/repository/models/up/load", load.to_string().as_bytes(), &[]),
        post("/v2/repository/models/small/load", b"", &[]),
        post("/v2/repository/models/up/unload", br#"{"parameters": {}}"#, &[]),
        post("/v2/logging", br#"{"log_error": true, "log_info": false}"#, &[]),
    ];
    for path in ["/v2", "/v2/health/ready", "/v2/models", "/v2/models/floats/config"] {
        seeds.push(HttpSeed { method: "GET", ..post(path, b"", &[]) });
    }
    for path in ["/v2/models/texts/versions/1", "/v2/models/floats/stats", "/v2/logging"] {
        seeds.push(HttpSeed { method: "GET", ..post(path, b"", &[]) });
    }
    seeds
}

/// Every kind of message over gRPC, health and reflection included.
pub(super) fn grpc() -> Vec<GrpcSeed> {
    let number =
        |value| InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(value)) };
    let typed = ModelInferRequest {
        model_name: "floats".into(),
        id: "7".into(),
        parameters: [("priority".to_owned(), number(1))].into(),
        inputs: vec![input("FP32", &[1, 2], |contents| contents.fp32_contents = vec![1.0, 2.0])],
        outputs: vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }],
        ..Default::default()
    };
    let mut raw = typed.clone();
    raw.inputs[0].contents = None;
    raw.raw_input_contents = vec![Bytes::from_static(&[0; 8])];
    let small = ModelInferRequest {
        model_name: "small".into(),
        model_version: "1".into(),
        inputs: vec![input("INT8", &[1, 3], |contents| contents.int_contents = vec![1, -2, 3])],
        ..Default::default()
    };
    let texts = ModelInferRequest {
        model_name: "texts".into(),
        inputs: vec![input("BYTES", &[1, 1], |contents| {
            contents.bytes_contents = vec![Bytes::from_static(b"ab")];
        })],
        ..Default::default()
    };
    let mut raw_texts = texts.clone();
    raw_texts.inputs[0].contents = None;
    raw_texts.raw_input_contents = vec![Bytes::from_static(b"\x02\0\0\0ab")];
    let mut seeds: Vec<GrpcSeed> = [&typed, &raw, &small, &texts, &raw_texts]
        .map(|request| seed("/inference.GRPCInferenceService/ModelInfer", request))
        .into();
    seeds.push(seed("/inference.GRPCInferenceService/ModelStreamInfer", &raw));
    seeds.push(seed(
        "/inference.GRPCInferenceService/ModelMetadata",
        &pb::ModelMetadataRequest { name: "floats".into(), version: "1".into() },
    ));
    seeds.push(seed(
        "/inference.GRPCInferenceService/RepositoryIndex",
        &pb::RepositoryIndexRequest { ready: true, ..Default::default() },
    ));
    seeds.push(GrpcSeed { path: "/grpc.health.v1.Health/Check", message: vec![] });
    seeds.push(GrpcSeed {
        path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        // Field 7, list_services, with any text.
        message: b"\x3a\x01*".to_vec(),
    });
    seeds
}

fn seed(path: &'static str, message: &impl Message) -> GrpcSeed {
    GrpcSeed { path, message: message.encode_to_vec() }
}

fn input(
    datatype: &str,
    shape: &[i64],
    fill: impl FnOnce(&mut InferTensorContents),
) -> InferInputTensor {
    let mut contents = InferTensorContents::default();
    fill(&mut contents);
    InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.into(),
        contents: Some(contents),
        ..Default::default()
    }
}

/// A message in its frame: a flag, the length, the bytes.
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0], &length.to_be_bytes()[..], message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
