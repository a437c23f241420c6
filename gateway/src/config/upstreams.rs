//! `[[upstream]]`: other servers of the protocol that arms may send calls to.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A group of endpoints that serve the same models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    pub name: String,
    pub protocol: UpstreamProtocol,
    /// `host:port` of each endpoint.
    pub endpoints: Vec<String>,
    pub tls: Option<UpstreamTls>,
    pub connect_timeout: Duration,
    /// Of one attempt; the caller's deadline ends it earlier.
    pub timeout: Duration,
    /// Connections to each endpoint that each I/O thread keeps.
    pub max_connections: usize,
    /// Calls in flight to all endpoints together.
    pub max_in_flight: usize,
    pub retry: Retry,
    pub health: HealthCheck,
    pub ejection: Ejection,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    Http,
    Grpc,
}

/// TLS to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// Who may vouch for the endpoints; the system's without it.
    pub ca: Option<PathBuf>,
    /// Certificate and key to show.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The name in the endpoints' certificates, where it is not their host.
    pub server_name: Option<String>,
}

/// Retries of calls that another endpoint may answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// Beyond the first attempt.
    pub max: u32,
    /// Retries for each call over the last ten seconds, from 0 to 1.
    pub budget: f64,
    /// Retries a second that are allowed whatever the budget says.
    pub min_per_second: u32,
    pub backoff: Duration,
    pub max_backoff: Duration,
}

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `None`: they are not asked.
    pub every: Option<Duration>,
    pub timeout: Duration,
    /// Failures in a row that take an endpoint out.
    pub unhealthy_after: u32,
    /// Successes in a row that bring it back.
    pub healthy_after: u32,
}

/// When an endpoint gets no calls for a while because of how it answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ejection {
    /// Failures in a row.
    pub consecutive: u32,
    /// The first time; times the number of ejections in a row.
    pub time: Duration,
    pub max_time: Duration,
    /// At most this part of the endpoints is out, from 0 to 1.
    pub max_part: f64,
}

impl Upstream {
    /// With the defaults of everything that a file may leave out.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        protocol: UpstreamProtocol,
        endpoints: Vec<String>,
    ) -> Self {
        Self {
            name: name.into(),
            protocol,
            endpoints,
            tls: None,
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            max_connections: 32,
            max_in_flight: 4096,
            retry: Retry::default(),
            health: HealthCheck::default(),
            ejection: Ejection::default(),
        }
    }
}

impl UpstreamProtocol {
    /// The word for it in files and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 2,
            budget: 0.2,
            min_per_second: 3,
            backoff: Duration::from_millis(25),
            max_backoff: Duration::from_millis(250),
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            every: Some(Duration::from_secs(5)),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive: 5,
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_part: 0.5,
        }
    }
}
