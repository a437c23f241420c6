//! Penstock, the inference gateway: this list of modules is its table of contents, lowest layer
//! first. A module names only modules above it in this list; `tests/it/architecture.rs` holds it.
#![forbid(unsafe_code)]

// Words and tables that everybody uses.
pub mod error;
pub mod types;
pub mod codec;
pub mod config;
pub mod telemetry;
pub mod tasks;

// Parts that do one thing each.
pub mod identity;
pub mod breaker;
pub mod limits;
pub mod overload;
pub mod idempotency;
pub mod contract;
pub mod routing;
pub mod revisions;
pub mod shadow;
pub mod predictions;
pub mod batching;
pub mod models;
pub mod upstream;
pub mod delivery;
pub mod feedback;

// What is served, and the path of a request through it.
pub mod snapshot;
pub mod pipeline;
pub mod control;
pub mod traffic;
pub mod reload;
pub mod replay;

// The wire, the sockets, the process.
pub mod api;
pub mod server;
pub mod app;
pub mod cli;
