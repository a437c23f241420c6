//! The configuration file of a gateway under test: written as an operator would write it, in one
//! step, since the gateway may look at any time.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// The header that the routes here tell callers apart by.
pub const KEY_HEADER: &str = "x-user-id";

/// A file with routes.
#[derive(Debug, Clone, Serialize)]
pub struct Configuration {
    version: u8,
    repository: Repository,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<Breaker>,
    #[serde(rename = "rate_limit", skip_serializing_if = "Vec::is_empty")]
    limits: Vec<RateLimit>,
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// `[breaker]`.
#[derive(Debug, Clone, Serialize)]
struct Breaker {
    consecutive: usize,
}

/// `[[rate_limit]]`.
#[derive(Debug, Clone, Serialize)]
struct RateLimit {
    name: String,
    key: String,
    rate: String,
}

#[derive(Debug, Clone, Serialize)]
struct Repository {
    path: &'static str,
    poll: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct State {
    path: &'static str,
}

/// `[[route]]`.
#[derive(Debug, Clone, Serialize)]
pub struct Route {
    pub name: String,
    sticky: String,
    salt: String,
    #[serde(rename = "arm")]
    pub arms: Vec<Arm>,
    #[serde(rename = "shadow", skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<Shadow>,
}

/// `[[route.arm]]`: a version of a model here.
#[derive(Debug, Clone, Serialize)]
pub struct Arm {
    pub name: String,
    model: String,
    pub version: String,
    share: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    buckets: Vec<(u16, u16)>,
}

/// `[[route.shadow]]`.
#[derive(Debug, Clone, Serialize)]
pub struct Shadow {
    name: String,
    model: String,
    version: String,
    sample: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<&'static str>,
}

// === impl Configuration ===

impl Configuration {
    /// The folder `repository` beside it is served and not polled, `state` is kept.
    #[must_use]
    pub fn of(routes: Vec<Route>) -> Self {
        let repository = Repository { path: "repository", poll: "off" };
        let (breaker, limits) = (None, Vec::new());
        Self { version: 1, repository, state: State { path: "state" }, breaker, limits, routes }
    }

    /// With a breaker that takes so many failures in a row.
    #[must_use]
    pub fn breaker(mut self, consecutive: usize) -> Self {
        self.breaker = Some(Breaker { consecutive });
        self
    }

    /// One more limit of callers.
    #[must_use]
    pub fn limit(mut self, name: &str, key: &str, rate: &str) -> Self {
        let [name, key, rate] = [name, key, rate].map(str::to_owned);
        self.limits.push(RateLimit { name, key, rate });
        self
    }

    /// Replaces the file in one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        replace(path, &self.text()?)
    }

    /// What stands in the file.
    ///
    /// # Errors
    /// When it is no TOML.
    pub fn text(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// Replaces a file in one step.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
}

// === impl Route ===

impl Route {
    /// A route without arms whose callers stay with their arm.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let (sticky, salt) = (format!("header:{KEY_HEADER}"), name.to_owned());
        Self { name: name.to_owned(), sticky, salt, arms: Vec::new(), shadows: Vec::new() }
    }

    #[must_use]
    pub fn salt(mut self, salt: &str) -> Self {
        salt.clone_into(&mut self.salt);
        self
    }

    /// One more arm: a version of a model, for this share of the callers.
    #[must_use]
    pub fn arm(mut self, name: &str, (model, version): (&str, &str), share: &str) -> Self {
        let [name, model, version, share] = [name, model, version, share].map(str::to_owned);
        self.arms.push(Arm { name, model, version, share, buckets: Vec::new() });
        self
    }

    /// Pins the last arm to these buckets, of which its share has as many.
    #[must_use]
    pub fn pinned(mut self, buckets: &[(u16, u16)]) -> Self {
        if let Some(arm) = self.arms.last_mut() {
            arm.buckets = buckets.to_vec();
        }
        self
    }

    /// One more shadow: a version of a model that sees all calls.
    #[must_use]
    pub fn shadow(mut self, name: &str, (model, version): (&str, &str)) -> Self {
        let [name, model, version] = [name, model, version].map(str::to_owned);
        let (sample, max_in_flight, timeout) = ("100%".to_owned(), None, None);
        self.shadows.push(Shadow { name, model, version, sample, max_in_flight, timeout });
        self
    }

    /// Has the shadows see so many calls at once, however long they take: a busy machine leaves
    /// them little time.
    #[must_use]
    pub fn patient(mut self, calls: u64) -> Self {
        for shadow in &mut self.shadows {
            (shadow.max_in_flight, shadow.timeout) = (Some(calls), Some("10m"));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml::{Table, Value};

    #[test]
    fn a_file_reads_as_an_operator_would_have_written_it() {
        let digits = Route::named("digits")
            .salt("spring")
            .arm("stable", ("digits", "1"), "95%")
            .pinned(&[(0, 9500)])
            .arm("canary", ("digits", "2"), "5%")
            .shadow("candidate", ("digits", "3"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("penstock.toml");
        let file = Configuration::of(vec![digits, Route::named("other")]);
        file.breaker(9).limit("all", "address", "5/s").write(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let table: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(table["state"]["path"].as_str(), Some("state"));
        assert_eq!(table["breaker"]["consecutive"].as_integer(), Some(9));
        assert_eq!(table["rate_limit"][0]["rate"].as_str(), Some("5/s"));
        let route = &table["route"][0];
        assert_eq!(route["sticky"].as_str(), Some("header:x-user-id"));
        assert_eq!(route["salt"].as_str(), Some("spring"));
        assert_eq!(route["arm"][0]["buckets"].to_string(), "[[0, 9500]]");
        assert_eq!(route["arm"][1].get("buckets"), None);
        assert_eq!(route["arm"][1]["version"], Value::from("2"));
        assert_eq!(route["shadow"][0]["sample"].as_str(), Some("100%"));
        assert_eq!(table["route"][1].get("shadow"), None);
    }
}
