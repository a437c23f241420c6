//! Whole doors under mutated and random bytes: whatever comes in, what goes out is an answer with
//! a status of the error table, soon, and memory stays bounded. The model is `identity`, so that
//! nothing but the gateway's own code can fail.

mod access;
mod mutation;
mod operators;
mod seeds;

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use penstock::api::grpc::Grpc;
use penstock::api::rest::Http;
use penstock::api::{Api, admin};
use penstock::app::App;
use penstock::config;
use penstock::error::Kind;
use penstock::types::{Origin, Peer};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tower::ServiceExt;

use mutation::Mutation;

/// Requests that each property tries; `PROPTEST_CASES` may ask for more.
const CASES: u32 = 4096;
/// The largest request; small, so that what is beyond it is tried too.
const MAX_REQUEST: usize = 64 << 10;
/// No answer takes this long: there is no model here that would.
const LIMIT: Duration = Duration::from_secs(20);
/// What all those requests together may add to the process: many times the largest one, and far
/// below what their lengths and shapes promise.
const MAX_GROWTH_KB: u64 = 128 << 10;
/// An error repeats what it is about, not all of what came in.
const LONGEST_ERROR: usize = 8 << 10;

/// A gateway without callers of its own.
struct Rig {
    runtime: Runtime,
    app: Option<App>,
    folder: TempDir,
}

impl Rig {
    fn start() -> Self {
        Self::start_with("", |_| {})
    }

    /// With more settings, and files that `prepare` puts beside the models.
    fn start_with(more: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, dtype) in [("floats", "FP32"), ("texts", "BYTES"), ("small", "INT8")] {
            let tensor = |name| format!("name = '{name}'\ndtype = '{dtype}'\nshape = [-1, -1]\n");
            let manifest = format!(
                "platform = 'identity'\nmax_batch_size = 8\n[[input]]\n{}[[output]]\n{}",
                tensor("x"),
                tensor("y")
            );
            fs::create_dir_all(folder.path().join(name).join("1")).unwrap();
            fs::write(folder.path().join(name).join("model.toml"), manifest).unwrap();
        }
        let text = format!(
            "version = 1\n[listen]\nhttp = '127.0.0.1:0'\ngrpc = 'off'\nmetrics = 'off'\n\
             admin = 'off'\n[log]\nlevel = 'error'\n[server]\nio_threads = 1\n\
             [engine]\ncpu_threads = 1\n[limits]\nmax_request = '{MAX_REQUEST}B'\n\
             [repository]\npath = '{}'\npoll = 'off'\nuploads = true\nmax_upload = '1MiB'\n{more}",
            folder.path().display()
        );
        prepare(folder.path());
        let config = config::parse(&text, folder.path()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let app =
            runtime.block_on(App::start(config, None, penstock::app::engines(), None)).unwrap();
        Self { runtime, app: Some(app), folder }
    }

    fn api(&self) -> Api {
        self.app.as_ref().expect("it runs until it is dropped").api().clone()
    }

    /// Runs a property over many mutations, and then sees that everything still answers. The
    /// property tells whether the request was taken.
    fn check(&self, property: impl Fn(&Mutation) -> Result<bool, TestCaseError>) {
        let (taken, refused) = (Cell::new(0_u32), Cell::new(0_u32));
        let before = peak_kb();
        let default = Config::default();
        let config =
            Config { cases: CASES.max(default.cases), source_file: Some(file!()), ..default };
        TestRunner::new(config)
            .run(&Mutation::any(), |mutation| {
                let count = if property(&mutation)? { &taken } else { &refused };
                count.set(count.get() + 1);
                Ok(())
            })
            .unwrap();
        // Mutations that are all harmless, or all refused at the first byte, would show nothing.
        let (taken, refused) = (taken.get(), refused.get());
        assert!(taken.min(refused) > CASES / 50, "{taken} were taken, {refused} refused");
        let growth = peak_kb().saturating_sub(before);
        assert!(growth < MAX_GROWTH_KB, "memory grew by {growth} kB at its peak");
        let http = Http::new(self.api());
        let seed = &seeds::http()[0];
        let answer = self.http(&http, seed.request(seed.body.clone()));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    fn http(&self, door: &Http, request: Request<Full<Bytes>>) -> Answer {
        self.runtime.block_on(async {
            let answered = timeout(LIMIT, door.call(request, peer())).await.expect("an answer");
            let (head, body) = answered.into_parts();
            let body = timeout(LIMIT, body.collect()).await.expect("a body").unwrap();
            Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() }
        })
    }

    /// The status that a unary call is refused with, if it is.
    fn grpc_status(&self, door: &Grpc, path: &str, message: &[u8]) -> Option<String> {
        let body = Full::new(Bytes::from(seeds::frame(message)));
        let mut request = Request::post(path).body(body).unwrap();
        let content_type = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert("content-type", content_type);
        let answer = self.runtime.block_on(door.call(request, peer()));
        let status = answer.headers().get("grpc-status")?;
        Some(status.to_str().unwrap().to_owned())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            self.runtime.block_on(app.stop());
        }
    }
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Bytes,
}

impl Answer {
    /// What every answer of a door that speaks HTTP keeps to.
    fn check(&self) -> Result<bool, TestCaseError> {
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        let of_kinds = Kind::ALL.iter().any(|kind| kind.http() == self.status);
        let known = of_kinds || matches!(self.status, 200 | 405 | 408);
        require(known, || format!("status {} is in no table: {shown}", self.status))?;
        let broken = matches!(self.status, 500 | 502);
        require(!broken, || format!("the gateway failed with {}: {shown}", self.status))?;
        if self.status == 200 {
            return Ok(true);
        }
        let is_json = self.headers.get("content-type").is_some_and(|t| t == "application/json");
        require(is_json, || format!("an error that is not JSON: {shown}"))?;
        require(self.body.len() <= LONGEST_ERROR, || "an error as long as its cause".into())?;
        let error: serde_json::Value = serde_json::from_slice(&self.body)
            .map_err(|error| TestCaseError::fail(format!("{error}: {shown}")))?;
        let is_ready_answer = error["ready"].is_boolean();
        let says_why = error["error"].as_str().is_some_and(|text| !text.is_empty());
        require(says_why || is_ready_answer, || format!("an error without a text: {shown}"))?;
        Ok(false)
    }
}

fn require(holds: bool, text: impl FnOnce() -> String) -> Result<(), TestCaseError> {
    if holds { Ok(()) } else { Err(TestCaseError::fail(text())) }
}

fn peer() -> Peer {
    Peer::plain(Origin::Unix)
}

/// The most memory that this process ever held.
fn peak_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn http_answers_any_bytes_with_a_status_of_the_table() {
    let rig = Rig::start();
    let door = Http::new(rig.api());
    let seeds = seeds::http();
    rig.check(|mutation| {
        let mut seed = mutation.choose(&seeds).clone();
        let body = mutation.apply(&seed.body, &mutation.choose_other(&seeds).body);
        mutation.change_text(&mut seed.target);
        mutation.change_headers(&mut seed.headers, body.len());
        // What is no request target or header at all never reaches the door: hyper refuses it.
        let Some(request) = seed.try_request(body.into()) else { return Ok(false) };
        rig.http(&door, request).check()
    });
}

#[test]
fn grpc_answers_any_bytes_with_a_status_of_the_table() {
    let rig = Rig::start();
    let door = Grpc::new(&rig.api()).unwrap();
    let seeds = seeds::grpc();
    rig.check(|mutation| {
        let seed = mutation.choose(&seeds);
        let other = mutation.choose_other(&seeds);
        // Most mutations keep the length of the frame true, so that they get to the message.
        let body = match mutation.is_deep() {
            true => seeds::frame(&mutation.apply(&seed.message, &other.message)),
            false => mutation.apply(&seeds::frame(&seed.message), &seeds::frame(&other.message)),
        };
        let mut request = Request::post(seed.path).body(Full::new(Bytes::from(body))).unwrap();
        let headers = request.headers_mut();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        for (name, value) in mutation.grpc_headers() {
            headers.insert(HeaderName::from_static(name), value);
        }
        let (code, text) = rig.runtime.block_on(async {
            let answered = timeout(LIMIT, door.call(request, peer())).await.expect("an answer");
            let (head, body) = answered.into_parts();
            let body = timeout(LIMIT, body.collect()).await.expect("the answer ends").unwrap();
            let trailers = body.trailers().cloned().unwrap_or_default();
            let of = |name: &str| trailers.get(name).or(head.headers.get(name)).cloned();
            let text = |value: Option<HeaderValue>| {
                value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            (text(of("grpc-status")), text(of("grpc-message")).unwrap_or_default())
        });
        let code = code.and_then(|code| code.parse::<i32>().ok());
        let known = code.is_some_and(|code| {
            code == 0 || Kind::ALL.iter().any(|kind| kind.grpc() == code && code != 13)
        });
        // Frames that are none are refused by the transport, which the specification says is 13.
        let of_transport =
            code == Some(13) && TRANSPORT.iter().any(|start| text.starts_with(start));
        require(known || of_transport, || format!("status {code:?} is in no table: {text}"))?;
        require(text.len() <= LONGEST_ERROR, || "a status as long as its cause".into())?;
        Ok(code == Some(0))
    });
}

/// How the texts begin that tonic refuses frames with, as they stand in a header.
const TRANSPORT: &[&str] = &[
    "protocol%20error",
    "Missing%20request%20message",
    "Unexpected%20EOF",
    "unexpected%20end%20of%20file",
];

#[test]
fn the_admin_port_answers_any_bytes_with_a_status_of_the_table() {
    let rig = Rig::start();
    let router = admin::router(rig.api());
    rig.check(|mutation| {
        let (method, path) = mutation.choose(admin::ENDPOINTS);
        let mut path = path.replace(['{', '}'], "");
        mutation.change_text(&mut path);
        let body = mutation.apply(br#"{"on": true, "model": "floats", "version": 1}"#, b"[]");
        let request = Request::builder()
            .method(method.to_ascii_uppercase().as_str())
            .uri(path)
            .extension(peer())
            .body(axum::body::Body::from(body));
        let Ok(request) = request else { return Ok(false) };
        let answer = rig.runtime.block_on(async {
            let answered = timeout(LIMIT, router.clone().oneshot(request)).await;
            let (head, body) = answered.expect("an answer").unwrap().into_parts();
            let body = timeout(LIMIT, body.collect()).await.expect("a body").unwrap();
            Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() }
        });
        // Paths that are none get the router's own bare 404 and 405.
        if answer.body.is_empty() && matches!(answer.status, 404 | 405) {
            return Ok(false);
        }
        answer.check()
    });
}

#[test]
fn a_grpc_call_that_would_grow_in_memory_is_refused_before_it_is_decoded() {
    let rig = Rig::start();
    let grpc = Grpc::new(&rig.api()).unwrap();
    // Empty inputs: two bytes each on the wire, hundreds in memory.
    let body = Full::new(Bytes::from(seeds::frame(&[0x2a, 0x00].repeat(1025))));
    let mut request =
        Request::post("/inference.GRPCInferenceService/ModelInfer").body(body).unwrap();
    let content_type = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", content_type);
    let answer = rig.runtime.block_on(grpc.call(request, peer()));
    let of = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(of("grpc-status"), Kind::InvalidInput.grpc().to_string());
    let text = of("grpc-message");
    assert!(text.contains("ModelInferRequest.inputs") && text.contains("1024"), "{text}");
}

/// Keeps the generated mutations honest: without any, the seeds are valid.
#[test]
fn unchanged_seeds_are_answered() {
    let rig = Rig::start();
    let door = Http::new(rig.api());
    for seed in seeds::http() {
        let answer = rig.http(&door, seed.request(seed.body.clone()));
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{} {}: {text}", seed.method, seed.target);
    }
    let grpc = Arc::new(Grpc::new(&rig.api()).unwrap());
    for seed in seeds::grpc() {
        let body = Full::new(Bytes::from(seeds::frame(&seed.message)));
        let mut request = Request::post(seed.path).body(body).unwrap();
        let content_type = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert("content-type", content_type);
        let answer = rig.runtime.block_on(grpc.call(request, peer()));
        let refused = answer.headers().get("grpc-status").is_some_and(|status| status != "0");
        assert!(!refused, "{}: {:?}", seed.path, answer.headers());
    }
}

#[test]
fn small_grpc_calls_spend_nothing_of_what_predictions_may_hold() {
    let rig = Rig::start();
    let door = Grpc::new(&rig.api()).unwrap();
    let mut others = rig.api().pipeline.overload.hold();
    others.cover(rig.api().pipeline.overload.status().max_request_bytes).unwrap();
    let service = "/inference.GRPCInferenceService";
    // A field that the message does not have: number 9, so many bytes.
    let unknown = |size: u16| {
        let low = u8::try_from(size & 127).unwrap() | 128;
        let message = [vec![0x4a, low, u8::try_from(size >> 7).unwrap()], vec![0; size.into()]];
        message.concat()
    };
    let refused = Some("14".to_owned());
    assert_eq!(rig.grpc_status(&door, &format!("{service}/ModelInfer"), &unknown(100)), refused);
    for call in ["ServerLive", "ServerReady", "ServerMetadata", "RepositoryIndex"] {
        let status = rig.grpc_status(&door, &format!("{service}/{call}"), &unknown(100));
        assert_ne!(status, refused, "{call}");
    }
}

#[test]
fn typed_contents_count_as_the_tensors_that_they_are() {
    let rig = Rig::start();
    let door = Grpc::new(&rig.api()).unwrap();
    let infer = || {
        use prost::Message as _;
        let contents = proto::inference::InferTensorContents {
            int64_contents: vec![1; 1000],
            ..Default::default()
        };
        let input = proto::inference::model_infer_request::InferInputTensor {
            name: "x".to_owned(),
            datatype: "INT64".to_owned(),
            shape: vec![1, 1000],
            contents: Some(contents),
            ..Default::default()
        };
        let message = proto::inference::ModelInferRequest {
            model_name: "floats".to_owned(),
            inputs: vec![input],
            ..Default::default()
        };
        let path = "/inference.GRPCInferenceService/ModelInfer";
        rig.grpc_status(&door, path, &message.encode_to_vec())
    };
    assert_eq!(infer().as_deref(), Some("3"), "the model takes no integers");
    let mut others = rig.api().pipeline.overload.hold();
    others.cover(rig.api().pipeline.overload.status().max_request_bytes - 4000).unwrap();
    assert_eq!(infer().as_deref(), Some("14"), "a byte on the wire, eight as a tensor");
}
