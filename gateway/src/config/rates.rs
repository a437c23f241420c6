//! `[[rate_limit]]`, `[[quota]]`, `[fair_share]` and `[redis]`: how much each caller may ask for.

mod terms;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderName;
use serde::Serialize;
use toml::Value;

use super::reader::Section;
use super::value::FromToml;
use terms::Amount;

pub use terms::{Cost, LimitKey, Rate};

/// Longest time in which an empty allowance may fill up: counters stay far from their ends.
const LONGEST_REFILL: Duration = Duration::from_secs(30 * 24 * 3600);

/// How much each caller may ask for. Empty by default: nobody is limited.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates {
    pub limits: Vec<RateLimit>,
    pub quotas: Vec<Quota>,
    pub fair_share: Option<FairShare>,
    pub redis: Redis,
}

/// So much per time, for each value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    pub name: String,
    pub key: LimitKey,
    pub rate: Rate,
    /// What may come at once after a pause.
    pub burst: u64,
    pub cost: Cost,
    /// Only calls of these models count; empty for all.
    pub models: Vec<String>,
    pub mode: Mode,
    pub store: Store,
    pub on_error: OnError,
    /// Keys with a state of their own; new ones beyond share one.
    pub max_keys: usize,
}

/// So much at the same time, for each value of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quota {
    pub name: String,
    pub key: LimitKey,
    pub max_in_flight: u64,
    pub unit: InFlightUnit,
    pub models: Vec<String>,
    pub mode: Mode,
}

/// Whether a limit acts or only counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Enforce,
    Shadow,
}

/// Where the state of a rate limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    Local,
    /// Shared by all gateways that name the same server and prefix.
    Redis,
}

/// What a rate limit says while its store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    Allow,
    Deny,
    /// Each gateway by itself, at the same rate.
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InFlightUnit {
    Calls,
    Rows,
}

/// Engine time divided between groups of callers while there is too little of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FairShare {
    pub by: ShareBy,
    pub weights: BTreeMap<String, f64>,
    /// Engine time that waits on a device before anybody is held to a share.
    pub above: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareBy {
    Tenant,
    Identity,
}

/// The server that shared limits are kept in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Redis {
    /// Without a password.
    pub url: String,
    pub password_file: Option<PathBuf>,
    /// What names of keys are hashed with; the same for all gateways.
    pub key_secret_file: Option<PathBuf>,
    /// Longest wait of a call.
    pub timeout: Duration,
    /// Before every key.
    pub prefix: String,
}

const COSTS: &[(&str, Cost)] =
    &[("requests", Cost::Requests), ("rows", Cost::Rows), ("bytes", Cost::Bytes)];
const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];
const STORES: &[(&str, Store)] = &[("local", Store::Local), ("redis", Store::Redis)];
const ON_ERRORS: &[(&str, OnError)] =
    &[("allow", OnError::Allow), ("deny", OnError::Deny), ("local", OnError::Local)];
const UNITS: &[(&str, InFlightUnit)] =
    &[("calls", InFlightUnit::Calls), ("rows", InFlightUnit::Rows)];
const SHARES: &[(&str, ShareBy)] = &[("tenant", ShareBy::Tenant), ("identity", ShareBy::Identity)];

impl Rates {
    pub(super) fn read(root: &mut Section<'_>, base: &Path) -> Self {
        let (limits, quotas) = (root.list("rate_limit"), root.list("quota"));
        let fair_share = FairShare::read(root.section("fair_share"));
        let redis = Redis::read(root.section("redis"), base);
        let mut names = Vec::new();
        let limits =
            limits.into_iter().filter_map(|section| RateLimit::read(section, &mut names)).collect();
        let quotas =
            quotas.into_iter().filter_map(|section| Quota::read(section, &mut names)).collect();
        Self { limits, quotas, fair_share, redis }
    }

    /// Headers that callers are told apart by, each once.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderName> {
        let keys = self.limits.iter().map(|limit| &limit.key);
        let mut found = Vec::new();
        for key in keys.chain(self.quotas.iter().map(|quota| &quota.key)) {
            if let LimitKey::Header(name) = key
                && !found.contains(name)
            {
                found.push(name.clone());
            }
        }
        found
    }
}

impl RateLimit {
    fn read(mut section: Section<'_>, names: &mut Vec<String>) -> Option<Self> {
        let name = read_name(&mut section, names);
        let key = section.required::<LimitKey>("key");
        let rate = section.required::<Rate>("rate");
        let burst = section.take::<Amount>("burst").or(rate.map(|rate| Amount(rate.count)));
        let cost = section.choice("cost", COSTS, Cost::Requests);
        let models = section.or("models", vec![]);
        let mode = section.choice("mode", MODES, Mode::Enforce);
        let store = section.choice("store", STORES, Store::Local);
        if section.has("on_error") && store == Store::Local {
            section.problem("on_error", "has no effect: the store is \"local\"");
        }
        let on_error = section.choice("on_error", ON_ERRORS, OnError::Local);
        let max_keys = section.or("max_keys", 100_000);
        if max_keys == 0 {
            section.problem("max_keys", "must be at least 1");
        }
        if rate.is_some_and(|rate| rate.is_size) && cost != Cost::Bytes {
            section.problem("rate", "is a size, which only cost = \"bytes\" is measured in");
        }
        if burst.is_some_and(|burst| burst.0 == 0) {
            section.problem("burst", "must be at least 1");
        }
        if let (Some(rate), Some(Amount(burst))) = (rate, burst)
            && rate.time_for(burst) > LONGEST_REFILL.as_nanos()
        {
            section.problem("burst", "takes longer than 30 days to fill up at this rate");
        }
        section.finish();
        let (rate, burst) = (rate?, burst?.0);
        let (name, key) = (name?, key?);
        Some(Self { name, key, rate, burst, cost, models, mode, store, on_error, max_keys })
    }
}

impl Quota {
    fn read(mut section: Section<'_>, names: &mut Vec<String>) -> Option<Self> {
        let name = read_name(&mut section, names);
        let key = section.required::<LimitKey>("key");
        let max_in_flight = section.required::<u64>("max_in_flight");
        if max_in_flight == Some(0) {
            section.problem("max_in_flight", "must be at least 1");
        }
        let unit = section.choice("unit", UNITS, InFlightUnit::Calls);
        let models = section.or("models", vec![]);
        let mode = section.choice("mode", MODES, Mode::Enforce);
        section.finish();
        let (name, key, max_in_flight) = (name?, key?, max_in_flight?);
        Some(Self { name, key, max_in_flight, unit, models, mode })
    }
}

/// A name that headers and metrics carry as it is, and that nothing else has.
fn read_name(section: &mut Section<'_>, names: &mut Vec<String>) -> Option<String> {
    let name = section.required::<String>("name")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        section.problem("name", "must be 1 to 64 letters, digits, '-', '_' or '.'");
    }
    if names.contains(&name) {
        section.problem("name", format!("\"{name}\" is taken by another limit"));
    }
    names.push(name.clone());
    Some(name)
}

impl FairShare {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let enabled = section.or("enabled", false);
        let by = section.choice("by", SHARES, ShareBy::Tenant);
        let above = section.or("above", Duration::from_millis(50));
        if above.is_zero() {
            section.problem("above", "must be longer than zero");
        }
        let mut weights = BTreeMap::new();
        for (name, value) in section.take::<BTreeMap<String, Value>>("weights").unwrap_or_default()
        {
            match f64::from_toml(&value) {
                Ok(weight) if (0.001..=1000.0).contains(&weight) => {
                    weights.insert(name, weight);
                }
                Ok(_) => section.problem(&format!("weights.{name}"), "must be 0.001 to 1000"),
                Err(error) => section.problem(&format!("weights.{name}"), error),
            }
        }
        section.finish();
        enabled.then_some(Self { by, weights, above })
    }
}

impl Redis {
    fn read(mut section: Section<'_>, base: &Path) -> Self {
        let default = Self::default();
        let url = section.or("url", default.url);
        let known = ["redis://", "redis+unix://", "unix://"];
        if !known.iter().any(|scheme| url.starts_with(scheme)) {
            section.problem("url", "must start with redis:// or unix://");
        }
        // What stands before the '@' is never shown, here or later.
        let secret = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
        if secret.is_some_and(|(user, _)| user.contains(':')) || url.contains("pass=") {
            section.problem("url", "holds a password: put it into a file, see password_file");
        }
        let mut file = |key| section.take::<String>(key).map(|path| base.join(path));
        let (password_file, key_secret_file) = (file("password_file"), file("key_secret_file"));
        let timeout = section.or("timeout", default.timeout);
        if timeout.is_zero() || timeout > Duration::from_secs(1) {
            section.problem("timeout", "must be above zero and at most 1s");
        }
        let prefix = section.or("prefix", default.prefix);
        section.finish();
        Self { url, password_file, key_secret_file, timeout, prefix }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379/0".to_owned(),
            password_file: None,
            key_secret_file: None,
            timeout: Duration::from_millis(5),
            prefix: "penstock".to_owned(),
        }
    }
}

impl Mode {
    /// As the file writes it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn rates(text: &str) -> Result<Rates, Vec<String>> {
        parse(&format!("version = 1\n{text}"), Path::new("/etc"))
            .map(|config| config.rates)
            .map_err(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_short_rule_has_the_documented_defaults() {
        let found = rates("[[rate_limit]]\nname = 'a'\nkey = 'identity'\nrate = '100/m'").unwrap();
        let expected = RateLimit {
            name: "a".into(),
            key: LimitKey::Identity,
            rate: Rate { count: 100, per: Duration::from_secs(60), is_size: false },
            burst: 100,
            cost: Cost::Requests,
            models: vec![],
            mode: Mode::Enforce,
            store: Store::Local,
            on_error: OnError::Local,
            max_keys: 100_000,
        };
        assert_eq!(found.limits, [expected]);
        assert_eq!(found.redis, Redis::default());
        assert_eq!(found.fair_share, None);
        let found = rates("[[quota]]\nname = 'q'\nkey = 'tenant'\nmax_in_flight = 3").unwrap();
        assert_eq!(found.quotas[0].unit, InFlightUnit::Calls);
        assert_eq!(found.quotas[0].mode, Mode::Enforce);
    }

    #[test]
    fn sizes_measure_bytes_and_nothing_else() {
        let text = "[[rate_limit]]\nname = 'a'\nkey = 'global'\nrate = '1MiB/s'\nburst = '2MiB'\n";
        let found = rates(&format!("{text}cost = 'bytes'")).unwrap();
        assert_eq!((found.limits[0].rate.count, found.limits[0].burst), (1 << 20, 2 << 20));
        let problems = rates(text).unwrap_err();
        assert_eq!(
            problems,
            ["rate_limit[0].rate: is a size, which only cost = \"bytes\" is measured in"]
        );
    }

    #[test]
    fn every_wrong_rule_is_named_with_its_place() {
        let text = "[[rate_limit]]\nname = 'a b'\nkey = 'ip'\nrate = '5'\nstore = 'redis'\n\
                    [[rate_limit]]\nname = 'x'\nkey = 'header:'\nrate = '0/s'\non_error = 'deny'\n\
                    [[rate_limit]]\nname = 'y'\nkey = 'global'\nrate = '1/h'\nburst = 1000\n\
                    [[quota]]\nname = 'x'\nkey = 'identity'\nmax_in_flight = 0\n\
                    [fair_share]\nabove = '0s'\n[fair_share.weights]\na = 0\nb = 'x'\n";
        assert_eq!(
            rates(text).unwrap_err(),
            [
                "fair_share.above: must be longer than zero",
                "fair_share.weights.a: must be 0.001 to 1000",
                "fair_share.weights.b: must be a finite number, is string",
                "rate_limit[0].name: must be 1 to 64 letters, digits, '-', '_' or '.'",
                "rate_limit[0].key: is \"ip\", must be \"identity\", \"header:NAME\", \
                 \"address\", \"tenant\", \"model\" or \"global\"",
                "rate_limit[0].rate: is \"5\", must be such as \"100/s\", \"10MiB/m\" or \
                 \"1000/h\"",
                "rate_limit[1].key: is \"header:\", which names no header",
                "rate_limit[1].rate: is zero, which nothing could pass",
                "rate_limit[1].on_error: has no effect: the store is \"local\"",
                "rate_limit[2].burst: takes longer than 30 days to fill up at this rate",
                "quota[0].name: \"x\" is taken by another limit",
                "quota[0].max_in_flight: must be at least 1",
            ]
        );
    }

    #[test]
    fn a_password_belongs_into_a_file_and_is_never_shown() {
        let problems = rates("[redis]\nurl = 'redis://me:hunter2@h:1/0'").unwrap_err();
        assert_eq!(
            problems,
            ["redis.url: holds a password: put it into a file, see password_file"]
        );
        let files = "password_file = 'p'\nkey_secret_file = 'k'";
        let found = rates(&format!("[redis]\nurl = 'redis://me@h:1/0'\n{files}")).unwrap();
        assert_eq!(found.redis.password_file.unwrap(), Path::new("/etc/p"));
        assert_eq!(found.redis.key_secret_file.unwrap(), Path::new("/etc/k"));
    }
}
