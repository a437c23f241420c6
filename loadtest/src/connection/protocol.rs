//! What a connection speaks: one of the two protocols.

use crate::http1::Http1;
use crate::http2::Http2;
use crate::payload::Wire;

use super::Route;

/// The state of a connection's protocol.
#[derive(Debug)]
pub(super) enum Protocol<T> {
    Http1(Http1<T>),
    Http2(Box<Http2<T>>),
}

impl<T> Protocol<T> {
    pub(super) fn new(route: &Route) -> Self {
        match route.wire {
            Wire::Grpc => Self::Http2(Box::new(Http2::new(route.headers.clone()))),
            Wire::HttpJson | Wire::HttpBinary => Self::Http1(Http1::default()),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(_) => true,
            Self::Http2(http2) => http2.is_ready(),
        }
    }

    pub(super) fn has_output(&mut self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(http2) => !http2.output().is_empty(),
        }
    }

    /// The server goes away and has answered everything.
    pub(super) fn has_left(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(http2) => http2.is_leaving() && http2.in_flight() == 0,
        }
    }
}
