//! The Open Inference Protocol over gRPC: messages, client and server.
//!
//! All of it is generated at build time from `inference/*.proto`, and Penstock's own service from
//! `penstock/*.proto`; this crate adds no behaviour but
//! bounds on what a request may hold, in [`mod@codec`].
//! Every `bytes` field is a [`bytes::Bytes`], so decoding a request shares the received buffer
//! instead of copying tensors out of it.
//! The client is generic over its channel: hand `GrpcInferenceServiceClient::new` a tonic
//! `Channel` or any other `GrpcService`.

#![forbid(unsafe_code)]

pub mod codec;

pub use generated::{inference, penstock};

#[allow(
    clippy::all,
    clippy::pedantic,
    missing_debug_implementations,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    reason = "generated code"
)]
mod generated {
    /// Package `inference`: the messages, and one module each for the client and the server of
    /// `GRPCInferenceService`.
    pub mod inference {
        include!(concat!(env!("OUT_DIR"), "/inference.rs"));
    }

    /// Package `penstock.v1`: feedback about predictions.
    pub mod penstock {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/penstock.v1.rs"));
        }
    }
}

/// The encoded `google.protobuf.FileDescriptorSet` of the protocol, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.binpb"));
