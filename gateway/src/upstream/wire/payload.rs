//! The body of a request: pieces that are sent from where they are.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Tensors smaller than this are copied behind what stands before them: that costs less than one
/// more piece.
const WORTH_A_PIECE: usize = 16 << 10;

/// Pieces in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Payload {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl Payload {
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.left += piece.len() as u64;
            self.pieces.push_back(piece);
        }
    }

    /// A head and what stands behind it.
    pub(super) fn join<'a>(mut head: Vec<u8>, tails: impl Iterator<Item = &'a Bytes>) -> Self {
        let mut payload = Self::default();
        for tail in tails {
            if tail.len() < WORTH_A_PIECE {
                head.extend_from_slice(tail);
            } else {
                payload.push(std::mem::take(&mut head).into());
                payload.push(tail.clone());
            }
        }
        payload.push(head.into());
        payload
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.pop_front();
        self.left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn pieces_come_out_whole_and_in_order_and_large_ones_are_not_copied() {
        let large = Bytes::from(vec![7; WORTH_A_PIECE]);
        let tails =
            [Bytes::from_static(b"a"), large.clone(), Bytes::new(), Bytes::from_static(b"z")];
        let payload = Payload::join(b"head".to_vec(), tails.iter());
        assert_eq!(payload.size_hint().exact(), Some(WORTH_A_PIECE as u64 + 6));
        assert_eq!(payload.pieces.len(), 3);
        assert_eq!(payload.pieces[1].as_ptr(), large.as_ptr());
        let sent = payload.collect().await.unwrap().to_bytes();
        assert_eq!(sent, [b"heada", &large[..], b"z"].concat());
    }
}
