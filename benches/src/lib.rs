//! Penstock against its ceilings: the driver behind `make bench`. The timed benches of single
//! functions live in `benches/`; this crate exists so that the gateway itself needs none of it.
//!
//! [`cli`] → [`run`] → one module of [`sections`] for each part of the table; servers are child
//! processes ([`process`]), bare ones included ([`ceilings`]), load comes from
//! `penstock-loadtest` ([`load`]).
#![forbid(unsafe_code)]

pub mod bench;
pub mod ceilings;
pub mod cli;
pub mod http;
pub mod load;
pub mod machine;
pub mod perf;
pub mod process;
pub mod procfs;
pub mod report;
pub mod repository;
pub mod row;
pub mod run;
pub mod say;
pub mod sections;
pub mod settings;
pub mod stats;
pub mod store;
pub mod torch;
