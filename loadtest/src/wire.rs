//! What the two protocols' state machines have in common: a call's outcome as it leaves them.

use std::borrow::Cow;

use crate::failure::Failure;

/// An answer whose last byte has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    Http {
        status: u16,
        /// Bytes of JSON in front of binary tensors.
        json_length: Option<usize>,
        body: &'a [u8],
    },
    Grpc {
        status: u32,
        /// What the server said to it.
        message: Cow<'a, str>,
        /// The encoded answer; empty unless the status is OK.
        body: &'a [u8],
    },
}

/// Takes the outcome of the call that carries a ticket.
pub type Sink<'a, T> = dyn FnMut(T, Result<Response<'_>, Failure>) + 'a;

impl Response<'_> {
    /// The server had too much to do, or the caller asked for too much.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Http { status, .. } => matches!(status, 429 | 503),
            Self::Grpc { status, .. } => matches!(status, 8 | 14),
        }
    }
}
