//! What strangers, and callers whose rights change, get from the gRPC door before and while their
//! messages come.

use std::convert::Infallible;

use http::Response;
use http_body::Frame;
use http_body_util::StreamBody;
use penstock::identity::digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;

use super::*;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const KEY: &str = "the-key-of-a-client-of-models";
const OTHER: &str = "the-key-of-an-operator-alone";

type Pieces = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

/// A call whose body comes in pieces, from the peer of the tests.
async fn call(door: &Grpc, path: &str, key: &str) -> (Pieces, Response<Body>) {
    let (pieces, body) = mpsc::channel(8);
    let answer = timeout(LIMIT, door.call(request(path, key, body), peer())).await;
    (pieces, answer.expect("an answer"))
}

/// A body that goes on for as long as its sender lives.
type Messages = StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>;

fn request(
    path: &str,
    key: &str,
    body: mpsc::Receiver<Result<Frame<Bytes>, Infallible>>,
) -> Request<Messages> {
    Request::post(path)
        .header("content-type", "application/grpc")
        .header("x-api-key", key)
        .body(StreamBody::new(ReceiverStream::new(body)))
        .unwrap()
}

/// A whole call with one message.
async fn ask(door: &Grpc, path: &str, message: &[u8]) -> Response<Body> {
    let (pieces, body) = mpsc::channel(1);
    pieces.send(Ok(Frame::data(seeds::frame(message).into()))).await.unwrap();
    drop(pieces);
    timeout(LIMIT, door.call(request(path, KEY, body), peer())).await.expect("an answer")
}

/// A question about the health of a name.
fn health(name: &str) -> Vec<u8> {
    let mut length = vec![];
    prost::encoding::encode_varint(name.len() as u64, &mut length);
    [&[0x0a], &length[..], name.as_bytes()].concat()
}

fn code(answer: &Response<Body>) -> Option<i32> {
    answer.headers().get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn rig() -> Rig {
    let key = |name: &str, role: &str, rest: String| {
        format!("[[auth.key]]\nname = '{name}'\nroles = ['{role}']\n{rest}\n")
    };
    let more = [
        "[auth]\nreload = '50ms'\n".to_owned(),
        key("a", "predict", "file = 'keys'".to_owned()),
        key("b", "operate", format!("hashes = ['{}']", digest(OTHER.as_bytes()))),
    ];
    Rig::start_with(&more.concat(), |folder| fs::write(folder.join("keys"), KEY).unwrap())
}

#[test]
fn questions_about_health_are_short_and_come_in_time() {
    let rig = Rig::start_with("", |_| {});
    let mut api = rig.api();
    api.limits.body_timeout = Duration::from_millis(20);
    let door = Grpc::new(&api).unwrap();
    rig.runtime.block_on(async {
        let long = health(&"n".repeat(5000));
        assert_eq!(code(&ask(&door, CHECK, &long).await), Some(Kind::TooLarge.grpc()));
        assert_eq!(code(&ask(&door, CHECK, &health("nobody")).await), Some(5));
        for path in [CHECK, WATCH] {
            let (_pieces, answer) = call(&door, path, KEY).await;
            assert_eq!(code(&answer), Some(4), "{path}");
        }
        let (_pieces, answer) = call(&door, REFLECTION, KEY).await;
        let ended = timeout(LIMIT, answer.into_body().collect()).await;
        assert!(ended.is_ok(), "reflection that asks nothing is given up");
    });
}

#[test]
fn watchers_are_bounded_in_number_and_name_models() {
    let rig = Rig::start_with("", |_| {});
    let door = Grpc::new(&rig.api()).unwrap();
    rig.runtime.block_on(async {
        let long = ask(&door, WATCH, &health(&"n".repeat(200))).await;
        assert_eq!(code(&long), Some(Kind::InvalidInput.grpc()));
        let mut watchers = vec![];
        for _ in 0..1024 {
            let answer = ask(&door, WATCH, &health("floats")).await;
            assert_eq!(code(&answer), None, "it goes on");
            watchers.push(answer);
        }
        let beyond = ask(&door, WATCH, &health("floats")).await;
        assert_eq!(code(&beyond), Some(Kind::Overloaded.grpc()));
        watchers.pop();
        let again = async {
            while code(&ask(&door, WATCH, &health("floats")).await).is_some() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, again).await.expect("a place comes back");
    });
}

#[test]
fn who_may_not_predict_is_told_before_the_message_comes() {
    let rig = rig();
    let door = Grpc::new(&rig.api()).unwrap();
    rig.runtime.block_on(async {
        for path in [INFER, STREAM] {
            let (_pieces, answer) = call(&door, path, OTHER).await;
            assert_eq!(code(&answer), Some(Kind::PermissionDenied.grpc()), "{path}");
        }
    });
}

#[test]
fn a_stream_ends_its_calls_with_the_key_it_began_with() {
    let rig = rig();
    let door = Grpc::new(&rig.api()).unwrap();
    let message = seeds::grpc().into_iter().find(|seed| seed.path == STREAM).unwrap().message;
    let message = Bytes::from(seeds::frame(&message));
    rig.runtime.block_on(async {
        let (pieces, answer) = call(&door, STREAM, KEY).await;
        let mut answers = answer.into_body();
        pieces.send(Ok(Frame::data(message.clone()))).await.unwrap();
        let first = timeout(LIMIT, answers.frame()).await.unwrap().unwrap().unwrap();
        let text = String::from_utf8_lossy(first.data_ref().unwrap()).into_owned();
        assert!(!text.contains("credentials"), "{text}");
        fs::write(rig.folder.path().join("keys"), OTHER.replace("the", "new")).unwrap();
        let refused = async {
            loop {
                pieces.send(Ok(Frame::data(message.clone()))).await.unwrap();
                let answer = answers.frame().await.unwrap().unwrap().into_data().unwrap();
                if String::from_utf8_lossy(&answer).contains("the credentials are not valid") {
                    return;
                }
            }
        };
        timeout(LIMIT, refused).await.expect("the key was taken back");
    });
}

#[test]
fn pages_of_browsers_change_nothing_without_credentials() {
    let rig = Rig::start_with("", |_| {});
    let http = Http::new(rig.api());
    let admin = admin::router(rig.api());
    for path in ["/v2/repository/models/floats/unload", "/v2/logging", "/v1/drain"] {
        for origin in [Some("https://stranger.example"), None] {
            let mut request = Request::post(path).extension(peer());
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let body =
                Bytes::from_static(if path == "/v1/drain" { b"{\"on\":false}" } else { b"{}" });
            let status = if path == "/v1/drain" {
                let request = request.body(axum::body::Body::from(body)).unwrap();
                rig.runtime.block_on(admin.clone().oneshot(request)).unwrap().status().as_u16()
            } else {
                rig.http(&http, request.body(Full::new(body)).unwrap()).status
            };
            let expected = if origin.is_some() { 403 } else { 200 };
            assert_eq!(status, expected, "{path} {origin:?}");
        }
    }
}
