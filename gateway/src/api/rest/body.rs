//! Reads a request body within its limits of size and time.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::BoxError;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::respond;
use crate::api::timeouts::Arrival;
use crate::config::Limits;
use crate::error::{Kind, Rejection};
use crate::overload::Permit;

/// Memory set aside for a body that comes in several pieces: its declared length may be a lie.
const MAX_RESERVE: usize = 1 << 20;

/// Why a body could not be read.
pub(super) enum BodyError {
    Rejected(Rejection),
    /// It did not come in time: 408, and the connection is of no more use.
    TooSlow(Duration),
    /// The caller went away in the middle.
    Broken,
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Rejected(rejection) => rejection,
            BodyError::TooSlow(limit) => {
                Self::new(Kind::Cancelled, format!("the body did not come within {limit:?}"))
            }
            BodyError::Broken => Self::new(Kind::Cancelled, "the body ended before its length"),
        }
    }
}

impl BodyError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Rejected(rejection) => rejection.kind(),
            Self::TooSlow(_) | Self::Broken => Kind::Cancelled,
        }
    }

    pub(super) fn response(self) -> Response {
        let is_slow = matches!(self, Self::TooSlow(_));
        let rejection = Rejection::from(self);
        if !is_slow {
            return respond::rejection(&rejection);
        }
        let mut response = respond::error(StatusCode::REQUEST_TIMEOUT, rejection.public_message());
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(http::header::CONNECTION, close);
        response
    }
}

/// The length that a head declares; 0 where it declares none.
pub(super) fn declared(headers: &HeaderMap) -> usize {
    let length = headers.get(CONTENT_LENGTH);
    length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Reads the whole body. A declared length beyond the limit is refused before a byte is read.
pub(super) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    limits: &Limits,
    (arrival, permit): (Arrival, &mut Permit),
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let declared = declared(headers);
    if declared > limits.max_request {
        return Err(too_large(limits));
    }
    let mut reading = pin!(collect(body, declared, limits, permit));
    // Most bodies are there when they are asked for, and need no alarm.
    let at_once = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
    if let Poll::Ready(result) = at_once {
        return result;
    }
    match timeout(arrival.left(limits.body_timeout), reading).await {
        Ok(result) => result,
        Err(_) => Err(match arrival.check() {
            Err(rejection) => BodyError::Rejected(rejection),
            Ok(()) => BodyError::TooSlow(limits.body_timeout),
        }),
    }
}

async fn collect<B>(
    mut body: B,
    declared: usize,
    limits: &Limits,
    permit: &mut Permit,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if first.len().max(rest.len()) + data.len() > limits.max_request {
            return Err(too_large(limits));
        }
        permit.cover(first.len().max(rest.len()) + data.len()).map_err(BodyError::Rejected)?;
        // Most bodies are one frame: they are passed on as they came, without a copy.
        if first.is_empty() {
            first = data;
            if body.is_end_stream() {
                return Ok(first);
            }
            continue;
        }
        if rest.is_empty() {
            rest.reserve(declared.min(MAX_RESERVE).max(first.len() + data.len()));
            rest.extend_from_slice(&first);
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Tells a body whose chunks are no chunks from one whose sender has gone.
fn broken(error: impl Into<BoxError>) -> BodyError {
    let error = error.into();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(found) = cause {
        let kind = found.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) = kind {
            return BodyError::Rejected(Rejection::invalid("the chunks of the body are malformed"));
        }
        cause = found.source();
    }
    BodyError::Broken
}

fn too_large(limits: &Limits) -> BodyError {
    BodyError::Rejected(too_large_rejection(limits))
}

pub(super) fn too_large_rejection(limits: &Limits) -> Rejection {
    Rejection::new(
        Kind::TooLarge,
        format!("the request is larger than {} bytes, see limits.max_request", limits.max_request),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::path::Path;
    use std::pin::Pin;
    use std::task::Context;

    use http_body::Frame;

    use super::*;

    /// Gives its frames at once and then ends, or never does.
    struct Frames {
        frames: VecDeque<Bytes>,
        stalls: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.frames.pop_front() {
                None if self.stalls => Poll::Pending,
                next => Poll::Ready(next.map(|data| Ok(Frame::data(data)))),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.frames.is_empty() && !self.stalls
        }
    }

    async fn read_frames(frames: &[Bytes], stalls: bool) -> Result<Bytes, BodyError> {
        let text = "version = 1\n[limits]\nmax_request = '4KiB'\nbody_timeout = '30s'";
        let limits = crate::config::parse(text, Path::new("")).unwrap().limits;
        let body = Frames { frames: frames.to_vec().into(), stalls };
        read(&HeaderMap::new(), body, &limits, (Arrival::now(), &mut Permit::default())).await
    }

    #[tokio::test]
    async fn a_body_of_one_frame_is_passed_on_without_a_copy() {
        let frame = Bytes::from(vec![7; 1000]);
        let read = read_frames(std::slice::from_ref(&frame), false).await.ok().unwrap();
        assert_eq!(read.as_ptr(), frame.as_ptr());
        assert_eq!(read, frame);
    }

    #[tokio::test]
    async fn a_body_of_many_frames_is_joined_in_order() {
        let frames: Vec<Bytes> = ["", "ab", "", "c", "def"].map(Bytes::from).into();
        assert_eq!(read_frames(&frames, false).await.ok().unwrap(), "abcdef");
        assert!(read_frames(&[], false).await.ok().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_in_whatever_pieces_it_comes() {
        for sizes in [vec![4097], vec![4000, 97], vec![2000, 2000, 97]] {
            let frames: Vec<_> = sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect();
            let error = read_frames(&frames, false).await.err().unwrap();
            assert_eq!(error.kind(), Kind::TooLarge);
        }
        let frames = [Bytes::from(vec![0; 4000]), Bytes::from(vec![0; 96])];
        assert_eq!(read_frames(&frames, false).await.ok().unwrap().len(), 4096);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up_in_time() {
        for frames in [vec![], vec![Bytes::from_static(b"{")]] {
            let error = read_frames(&frames, true).await.err().unwrap();
            assert!(matches!(error, BodyError::TooSlow(limit) if limit.as_secs() == 30));
        }
    }
}
