//! Tensors as JSON and as plain numbers. Requests, golden requests and warm-up samples all use
//! the protocol's JSON form, so it is decoded in one place; typed contents of gRPC are, too.

pub mod contents;
pub mod finite;
pub mod json;
pub mod numbers;
pub mod tensors;
