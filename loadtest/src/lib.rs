//! Load for servers of the Open Inference Protocol, over REST and gRPC: closed and open loops, what
//! came of them, and programs around them that show and soak a gateway.
//!
//! It knows the protocol and no server's code. The path of a request: [`dataset`] → [`payload`] →
//! [`request`] → [`pacer`] says when → [`worker`] sends it on a [`connection`] ([`http1`],
//! [`http2`]) → [`book`] → [`recorder`] → [`report`].
#![forbid(unsafe_code)]

// What is sent, and when.
pub mod random;
pub mod arrivals;
pub mod plan;
pub mod pacer;
pub mod keys;
pub mod dataset;
pub mod payload;

// The way to the server and back.
pub mod failure;
pub mod answer;
pub mod target;
pub mod wire;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod http_client;
pub mod admin;
pub mod grpc_client;
pub mod client;
pub mod metrics;
pub mod request;
pub mod poller;
pub mod connection;

// What came of it.
pub mod check;
pub mod recorder;
pub mod timeline;
pub mod recording;
pub mod stats;
pub mod report;
pub mod slo;
pub mod findings;

// Load.
pub mod tasks;
pub mod book;
pub mod worker;
pub mod run;
pub mod job;
pub mod search;
pub mod find_max;
pub mod compare;
pub mod html;
pub mod scenario;

// The programs around it.
pub mod verdict;
pub mod memory;
pub mod configuration;
pub mod repository;
pub mod gateway;
pub mod stage;
pub mod demo;
pub mod swap;
pub mod overload;
pub mod reload;
pub mod routes;
pub mod rollback;
pub mod shadow;
pub mod assignment;
pub mod predictions;
pub mod cli;
