//! What tonic decides before a call reaches the service, put in the gateway's own terms: which
//! status a broken message gets, and how long a message may take to arrive.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::{Code, Status};

use super::status;
use crate::error::{Kind, Rejection};
use crate::overload::Permit;
use crate::telemetry::{Outcome, WireMetrics};
use crate::types::Protocol;

/// The largest message of a call that carries no tensors and no files.
const SMALL: usize = 64 << 10;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Calls whose messages may come at any time.
const STREAMING: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const UNARY: &str = "/inference.GRPCInferenceService/ModelInfer";
const LOADING: &str = "/inference.GRPCInferenceService/RepositoryModelLoad";
const SERVICE: &str = "/inference.GRPCInferenceService/";
const FEEDBACK: &str = "/penstock.v1.FeedbackService/";
/// What feedback takes in memory, as a multiple of its bytes: empty ones are the worst.
const FEEDBACK_TIMES: usize = 100;
const REFLECTION: &str = "/grpc.reflection.";

/// The kind behind a status that tonic made of a message it could not take.
fn kind_of(code: Code, message: &str) -> Option<Kind> {
    match code {
        // Nothing else in this server says OUT_OF_RANGE: the message is beyond the size limit.
        Code::OutOfRange => Some(Kind::TooLarge),
        Code::ResourceExhausted if message.starts_with("Error decompressing") => {
            Some(Kind::TooLarge)
        }
        Code::Internal if message.starts_with("failed to decode") => Some(Kind::InvalidInput),
        Code::Internal if message.starts_with("Error decompressing") => Some(Kind::InvalidInput),
        _ => None,
    }
}

/// The status that a stream passes on for a message it could not take.
pub(super) fn of_stream(status: Status) -> Status {
    match kind_of(status.code(), status.message()) {
        Some(kind) => Status::new(Code::from_i32(kind.grpc()), status.message()),
        None => status,
    }
}

/// Corrects the status of a refused message, and counts it.
pub(super) fn correct<B>(mut response: Response<B>, metrics: &WireMetrics) -> Response<B> {
    let headers = response.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse().ok()) else {
        return response;
    };
    let message = text("grpc-message").unwrap_or("").replace("%20", " ");
    if let Some(kind) = kind_of(Code::from_i32(code), &message) {
        metrics.count(Protocol::Grpc, Outcome::Refused(kind));
        let code = HeaderValue::from(kind.grpc());
        response.headers_mut().insert("grpc-status", code);
    }
    response
}

/// Whether a call is one of the protocol's own.
pub(super) fn is_inference<B>(request: &http::Request<B>) -> bool {
    request.uri().path().starts_with(SERVICE)
}

/// Who gets past the door of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody, credentials or not.
    Open,
    /// Whoever is known; the call itself asks for a role.
    Known,
    Predict,
}

/// Who may make the calls of a path.
pub(super) fn access(path: &str) -> Access {
    if let Some(call) = path.strip_prefix(SERVICE) {
        return match call {
            "ServerLive" | "ServerReady" | "ServerMetadata" => Access::Open,
            "ModelInfer" | "ModelStreamInfer" => Access::Predict,
            _ => Access::Known,
        };
    }
    if path.starts_with("/grpc.health.v1.Health/") {
        return Access::Open;
    }
    let is_for_callers = path.starts_with(REFLECTION) || path.starts_with(FEEDBACK);
    if is_for_callers { Access::Predict } else { Access::Known }
}

/// Whether a call that is turned away would have been a prediction.
pub(super) fn is_call<B>(request: &http::Request<B>) -> bool {
    is_prediction(request) || request.uri().path() == STREAMING
}

/// Whether a call is one prediction. Those of a stream are in its messages.
pub(super) fn is_prediction<B>(request: &http::Request<B>) -> bool {
    request.uri().path() == UNARY
}

/// Bounds the time in which the message of a unary call has to arrive, and counts its bytes while
/// they come. Calls that carry little spend none of what predictions may hold; streams of
/// reflection and of feedback end when nothing comes for that time.
pub(super) fn bounded<B>(
    request: http::Request<B>,
    limit: Duration,
    held: Permit,
) -> http::Request<Timed<B>> {
    let path = request.uri().path();
    let feedback = path.strip_prefix(FEEDBACK);
    let is_stream =
        path == STREAMING || path.starts_with(REFLECTION) || feedback == Some("SendStream");
    let is_small = !matches!(path, STREAMING | UNARY | LOADING) && feedback.is_none();
    let times = if feedback.is_some() { FEEDBACK_TIMES } else { 1 };
    let limit = (path != STREAMING).then_some(limit);
    request.map(|body| Timed {
        body,
        limit,
        is_small,
        is_stream,
        alarm: None,
        held,
        times,
        read: 0,
    })
}

/// A body that fails when it does not end in time. Most bodies are there when they are first
/// asked for and never set the alarm.
pub(super) struct Timed<B> {
    body: B,
    limit: Option<Duration>,
    is_small: bool,
    is_stream: bool,
    alarm: Option<Pin<Box<Sleep>>>,
    held: Permit,
    /// What a message takes in memory, as a multiple of its bytes.
    times: usize,
    read: usize,
}

impl<B> Timed<B> {
    /// Counts a piece of a unary call; those of a stream are messages that come and go.
    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), Status> {
        if !self.is_stream
            && let Some(data) = frame.data_ref()
        {
            self.read += data.len();
            if self.is_small {
                return if self.read <= SMALL { Ok(()) } else { Err(status(&too_large())) };
            }
            self.held.cover(self.read * self.times).map_err(|rejection| status(&rejection))?;
        }
        Ok(())
    }
}

fn too_large() -> Rejection {
    let text = format!("the message is larger than {SMALL} bytes, which such a call never needs");
    Rejection::new(Kind::TooLarge, text)
}

impl<B> Body for Timed<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                if self.is_stream {
                    // The time is that of one message.
                    self.alarm = None;
                }
                let counted = self.count(&frame);
                return Poll::Ready(Some(counted.map(|()| frame).map_err(Into::into)));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        let Some(limit) = self.limit else { return Poll::Pending };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(limit)));
        match alarm.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let text = format!("the message did not come within {limit:?}");
                Poll::Ready(Some(Err(Status::deadline_exceeded(text).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn messages_that_carry_little_are_small() {
        let read = async |path: &str, size: usize| {
            let body = Full::new(Bytes::from(vec![0; size]));
            let request = http::Request::post(path).body(body).unwrap();
            let bounded = bounded(request, Duration::from_secs(1), Permit::default());
            bounded.into_body().collect().await.is_ok()
        };
        for call in ["ServerLive", "ServerReady", "ModelMetadata", "RepositoryIndex"] {
            let path = format!("{SERVICE}{call}");
            assert!(read(&path, SMALL).await && !read(&path, SMALL + 1).await, "{call}");
        }
        for path in [UNARY, STREAMING, LOADING] {
            assert!(read(path, SMALL + 1).await, "{path}");
        }
    }
}
