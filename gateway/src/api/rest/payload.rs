//! Bodies of answers: what is there at once goes out without a box and without a copy.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// The body of an answer over HTTP.
#[derive(Debug)]
pub enum Payload {
    Whole(Bytes),
    /// Pieces of memory that is shared with others, such as the outputs of a batch.
    Pieces(Pieces),
    /// What the router answered.
    Routed(Body),
}

/// Pieces that go out one behind the other; none is empty.
#[derive(Debug)]
pub struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    /// Bytes in all that are left.
    left: u64,
}

impl Payload {
    /// Makes a body of pieces; empty ones are left out.
    #[must_use]
    pub fn pieces(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self::Pieces(Pieces { pieces: pieces.into_iter(), left })
    }
}

impl http_body::Body for Payload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(std::mem::take(bytes)),
            Self::Pieces(Pieces { pieces, left }) => {
                let next = pieces.next();
                *left -= next.as_ref().map_or(0, |piece| piece.len() as u64);
                next
            }
            Self::Routed(body) => return Pin::new(body).poll_frame(context),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pieces(Pieces { left, .. }) => *left == 0,
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(Pieces { left, .. }) => SizeHint::with_exact(*left),
            Self::Routed(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_go_out_in_order_with_their_exact_length_and_without_a_copy() {
        let big = Bytes::from(vec![7; 100]);
        let pieces = vec![Bytes::from_static(b"{}"), Bytes::new(), big.slice(10..20)];
        let mut payload = Payload::pieces(pieces);
        assert_eq!(payload.size_hint().exact(), Some(12));
        assert_eq!(payload.frame().await.unwrap().unwrap().into_data().unwrap(), "{}");
        assert!(!payload.is_end_stream());
        let last = payload.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(last.as_ptr(), big[10..].as_ptr());
        assert!(payload.is_end_stream());
        assert!(payload.frame().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_without_a_body_ends_at_once() {
        for payload in [Payload::Whole(Bytes::new()), Payload::pieces(vec![Bytes::new()])] {
            assert!(payload.is_end_stream());
            assert!(payload.collect().await.unwrap().to_bytes().is_empty());
        }
    }
}
