//! Load for servers of the Open Inference Protocol, over REST and gRPC: closed loops of callers,
//! every answer checked, and two programs around them that show and soak a gateway.
//!
//! It knows the protocol and no server's code. Inputs → [`dataset`] → [`payload`] → clients →
//! [`answer`] → [`check`] → [`recorder`] → [`report`]; [`run`] drives that path.
#![forbid(unsafe_code)]

// What is sent.
pub mod dataset;
pub mod payload;

// The way to the server and back.
pub mod failure;
pub mod target;
pub mod http_client;
pub mod grpc_client;
pub mod client;
pub mod answer;

// What came of it.
pub mod check;
pub mod recorder;
pub mod report;

// Load, and the programs around it.
pub mod tasks;
pub mod run;
pub mod repository;
pub mod gateway;
