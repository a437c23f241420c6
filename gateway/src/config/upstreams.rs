//! `[[upstream]]`: other servers of the protocol that arms may send calls to.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::reader::Section;
use super::routes::{bounded, is_word};
use super::value::{FromToml, OrOff, Percent};

const MAX_UPSTREAMS: usize = 1000;
const MAX_ENDPOINTS: usize = 64;
const PROTOCOLS: &[(&str, UpstreamProtocol)] =
    &[("http", UpstreamProtocol::Http), ("grpc", UpstreamProtocol::Grpc)];
/// Waits and pauses are at most so long.
const LONGEST: Duration = Duration::from_secs(3600);

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
    /// Connections to each endpoint that are kept.
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

    /// Reads every upstream; `None` in the place of one that could not be read. Their names, all
    /// that are given, go to `names`.
    pub(super) fn read_all(
        root: &mut Section<'_>,
        names: &mut BTreeSet<String>,
        base: &Path,
    ) -> Vec<Option<Self>> {
        let tables = bounded(root, "upstream", MAX_UPSTREAMS).into_iter();
        tables.map(|section| Self::read(section, names, base)).collect()
    }

    fn read(mut section: Section<'_>, names: &mut BTreeSet<String>, base: &Path) -> Option<Self> {
        let name = section.required::<String>("name");
        if let Some(name) = &name {
            if !is_word(name) {
                section.problem("name", "must be 1 to 64 letters, digits, '-', '_' or '.'");
            }
            if !names.insert(name.clone()) {
                section.problem("name", format!("\"{name}\" is the name of another upstream"));
            }
        }
        let protocol = section.choice("protocol", PROTOCOLS, UpstreamProtocol::Grpc);
        let endpoints = section.required::<Vec<Endpoint>>("endpoints");
        let endpoints = endpoints.map(|all| all.into_iter().map(|one| one.0).collect::<Vec<_>>());
        if let Some(endpoints) = &endpoints {
            check_endpoints(&section, endpoints);
        }
        let has_tls = section.has("tls");
        let tls = UpstreamTls::read(section.section("tls"), base);
        let defaults = Self::new("", protocol, vec![]);
        let connect_timeout = duration(&mut section, "connect_timeout", defaults.connect_timeout);
        let timeout = duration(&mut section, "timeout", defaults.timeout);
        let max_connections =
            count(&mut section, "max_connections", defaults.max_connections, 1..=1024);
        let max_in_flight =
            count(&mut section, "max_in_flight", defaults.max_in_flight, 1..=1_000_000);
        let retry = Retry::read(section.section("retry"));
        let health = HealthCheck::read(section.section("health"));
        let ejection = Ejection::read(section.section("ejection"));
        section.finish();
        Some(Self {
            name: name?,
            protocol,
            endpoints: endpoints?,
            tls: has_tls.then_some(tls),
            connect_timeout,
            timeout,
            max_connections,
            max_in_flight,
            retry,
            health,
            ejection,
        })
    }
}

fn check_endpoints(section: &Section<'_>, endpoints: &[String]) {
    if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
        section.problem("endpoints", format!("must be 1 to {MAX_ENDPOINTS}"));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = endpoints.iter().find(|endpoint| !seen.insert(*endpoint)) {
        section.problem("endpoints", format!("has \"{twice}\" twice"));
    }
}

/// A `host:port`.
struct Endpoint(String);

impl FromToml for Endpoint {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        match split_endpoint(&text) {
            Some((_, 1..)) => Ok(Self(text)),
            _ => Err(format!("is \"{text}\", must be host:port such as \"10.0.0.1:8001\"")),
        }
    }
}

/// Host and port of an endpoint: an IPv4 address, an IPv6 one in brackets (which are taken off) or
/// a name. `None` where it is neither.
#[must_use]
pub fn split_endpoint(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // Only digits: a number with a sign parses too.
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok())??;
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok().then_some((address, port));
    }
    is_host(host).then_some((host, port))
}

/// An IPv4 address or a name of a host; what has digits and dots alone must be an address.
fn is_host(host: &str) -> bool {
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(fits);
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(is_label)
}

impl UpstreamTls {
    fn read(mut section: Section<'_>, base: &Path) -> Self {
        let mut file = |key| section.take::<String>(key).map(|path| base.join(path));
        let (ca, certificate, key) = (file("ca"), file("certificate"), file("key"));
        match (&certificate, &key) {
            (Some(_), None) => section.problem("key", "is missing: certificate needs it"),
            (None, Some(_)) => section.problem("certificate", "is missing: key needs it"),
            _ => {}
        }
        let server_name = section.take::<String>("server_name");
        if server_name
            .as_ref()
            .is_some_and(|name| !is_host(name) && name.parse::<Ipv6Addr>().is_err())
        {
            section.problem("server_name", "must be the name or address of a host");
        }
        section.finish();
        Self { ca, certificate, key, server_name }
    }
}

impl Retry {
    fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let max = count(&mut section, "max", defaults.max, 0..=10);
        let budget = section.or("budget", Percent(defaults.budget)).0;
        let min_per_second =
            count(&mut section, "min_per_second", defaults.min_per_second, 0..=10_000);
        let backoff = duration(&mut section, "backoff", defaults.backoff);
        let max_backoff = duration(&mut section, "max_backoff", defaults.max_backoff);
        if max_backoff < backoff {
            section.problem("max_backoff", "is shorter than backoff");
        }
        section.finish();
        Self { max, budget, min_per_second, backoff, max_backoff }
    }
}

impl HealthCheck {
    fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let every = section.or("every", OrOff(defaults.every)).0;
        if every.is_some_and(|every| every.is_zero() || every > LONGEST) {
            section.problem("every", "must be above zero and at most 1h, or \"off\"");
        }
        let timeout = duration(&mut section, "timeout", defaults.timeout);
        let unhealthy_after =
            count(&mut section, "unhealthy_after", defaults.unhealthy_after, 1..=100);
        let healthy_after = count(&mut section, "healthy_after", defaults.healthy_after, 1..=100);
        section.finish();
        Self { every, timeout, unhealthy_after, healthy_after }
    }
}

impl Ejection {
    fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let consecutive = count(&mut section, "consecutive", defaults.consecutive, 1..=1000);
        let time = duration(&mut section, "time", defaults.time);
        let max_time = duration(&mut section, "max_time", defaults.max_time);
        if max_time < time {
            section.problem("max_time", "is shorter than time");
        }
        let max_part = section.or("max_part", Percent(defaults.max_part)).0;
        section.finish();
        Self { consecutive, time, max_time, max_part }
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

fn duration(section: &mut Section<'_>, key: &str, default: Duration) -> Duration {
    let found = section.or(key, default);
    if found.is_zero() || found > LONGEST {
        section.problem(key, "must be above zero and at most 1h");
    }
    found
}

fn count<T>(section: &mut Section<'_>, key: &str, default: T, bounds: RangeInclusive<T>) -> T
where
    T: FromToml + PartialOrd + fmt::Display,
{
    let found = section.or(key, default);
    if !bounds.contains(&found) {
        section.problem(key, format!("must be {} to {}", bounds.start(), bounds.end()));
    }
    found
}

#[cfg(test)]
mod tests;
