//! The configuration file: one TOML file in, a checked [`Config`] out, or every problem at once.
//!
//! [`mod@reader`] walks TOML and collects problems with their paths (model manifests use it too),
//! [`mod@file`] joins the sections, each of which has a file with its keys and defaults,
//! [`mod@difference`] says what two of them differ in, and [`mod@reference`] documents each key.

pub mod reader;
pub mod value;
pub mod secret;
pub mod auth;
pub mod breaker;
pub mod engine;
pub mod idempotency;
pub mod limits;
pub mod listen;
pub mod overload;
pub mod prediction_log;
pub mod rates;
pub mod repository;
pub mod routes;
pub mod server;
pub mod state;
pub mod tls;
pub mod upstreams;
pub mod file;
pub mod difference;
pub mod reference;

pub use auth::Auth;
pub use breaker::{Breaker, BreakerSettings};
pub use difference::Difference;
pub use engine::Engine;
pub use file::Config;
pub use idempotency::Idempotency;
pub use limits::Limits;
pub use listen::Listen;
pub use overload::Overload;
pub use prediction_log::{
    Confidence, Disk, Field, Fsync, Guarantee, HashKey, How, LogSampling, LogStore, Memory,
    PredictionLog, Redact, SECRET_HEADERS, Scheme, Slice, SliceSource,
};
pub use rates::{
    Cost, FairShare, InFlightUnit, LimitKey, Mode, OnError, Quota, Rate, RateLimit, Rates, Redis,
    ShareBy, Store,
};
pub use reader::{Problem, Problems};
pub use repository::{Control, Repository, Uploads};
pub use routes::{Arm, Fallback, Route, Shadow, StaticOutput, Sticky, Target, VersionChoice};
pub use secret::Digest;
pub use server::{Log, LogFormat, Server};
pub use state::State;
pub use tls::{ClientAuth, Tls, TlsVersion};
pub use upstreams::{Ejection, HealthCheck, Retry, Upstream, UpstreamProtocol, UpstreamTls};

use std::path::Path;

/// Reads and checks a configuration file.
///
/// # Errors
/// Every problem found, each with the path of its key.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![Problem::new("", format!("cannot read {}: {error}", path.display()))]
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse(&text, base)
}

/// Checks the text of a configuration file; relative paths in it start at `base`.
///
/// # Errors
/// Every problem found, each with the path of its key.
pub fn parse(text: &str, base: &Path) -> Result<Config, Vec<Problem>> {
    let problems = Problems::default();
    let config = match reader::table(text) {
        Ok(table) => Config::read(table, base, &problems),
        Err(problem) => return Err(vec![problem]),
    };
    problems.into_result(config)
}

/// The environment variables that the gateway reads: none of them changes what a file says. Others
/// are read only where the file names them.
pub mod environment {
    /// The log filter, in the syntax of `tracing` (`info,penstock::control=debug`).
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the environment")]
    pub fn log_filter() -> Option<String> {
        std::env::var("PENSTOCK_LOG").ok()
    }

    /// The token that the commands for a running gateway show it.
    #[must_use]
    pub fn token() -> Option<String> {
        secret("PENSTOCK_TOKEN")
    }

    /// A secret that the file names by its variable.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the environment")]
    pub fn secret(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|text| !text.is_empty())
    }
}
