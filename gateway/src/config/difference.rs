//! What differs between two configurations, key by key: what a running gateway can take over, and
//! what has to wait for its next start.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::file::Config;
use super::prediction_log::PredictionLog;
use super::reader::Problem;

/// One key that has another value, was added or was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Dotted path of the key; elements of lists by their names (`route.digits.arm.canary.share`).
    pub path: String,
    /// `None` for what was not there.
    pub before: Option<String>,
    /// `None` for what is no longer there.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.before, &self.after) {
            (None, _) => write!(f, "{path}: added"),
            (Some(_), None) => write!(f, "{path}: removed"),
            (Some(before), Some(after)) => write!(f, "{path}: {before} -> {after}"),
        }
    }
}

impl Config {
    /// Every key of `new` that a running gateway cannot take over.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<Problem> {
        // Named one by one: whoever adds a section has to say whether it can change.
        let Self {
            listen,
            tls,
            repository,
            engine,
            limits,
            auth,
            breaker: _,
            rates: _,
            idempotency,
            overload,
            server,
            log,
            state,
            prediction_log,
            routes: _,
            upstreams: _,
        } = self;
        let mut walk = Walk::default();
        walk.section("listen", listen, &new.listen);
        walk.section("tls", tls, &new.tls);
        walk.section("repository", repository, &new.repository);
        walk.section("engine", engine, &new.engine);
        walk.section("limits", limits, &new.limits);
        walk.opaque("auth.anonymous", &auth.anonymous, &new.auth.anonymous);
        walk.opaque("auth.reload", &auth.reload, &new.auth.reload);
        walk.opaque("auth.key", &auth.keys, &new.auth.keys);
        walk.opaque("auth.certificate", &auth.certificates, &new.auth.certificates);
        walk.opaque("auth.jwt", &auth.jwt, &new.auth.jwt);
        walk.section("idempotency", idempotency, &new.idempotency);
        walk.section("overload", overload, &new.overload);
        walk.section("server", server, &new.server);
        walk.section("log", log, &new.log);
        let mut others = new.state.clone();
        // The folder of the first route is made when it comes.
        others.is_needed = state.is_needed;
        walk.section("state", state, &others);
        let fixed = |log: &Option<PredictionLog>| log.as_ref().map(PredictionLog::fixed);
        walk.section("prediction_log", &fixed(prediction_log), &fixed(&new.prediction_log));
        let problem = |found: Difference| {
            Problem::new(found.path, "cannot change while the gateway runs: restart to change it")
        };
        walk.found.into_iter().map(problem).collect()
    }

    /// Every key of `new` that a running gateway takes over and that has another value there.
    #[must_use]
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let mut walk = Walk::default();
        walk.section("route", &self.routes, &new.routes);
        walk.found.extend(self.differences_beside_routes(new));
        walk.found
    }

    /// As [`Self::differences`], for who knows what becomes of the routes: with a thousand of them
    /// their comparison takes longer than everything else.
    #[must_use]
    pub fn differences_beside_routes(&self, new: &Self) -> Vec<Difference> {
        let mut walk = Walk::default();
        walk.section("upstream", &self.upstreams, &new.upstreams);
        walk.section("rate_limit", &self.rates.limits, &new.rates.limits);
        walk.section("quota", &self.rates.quotas, &new.rates.quotas);
        walk.section("fair_share", &self.rates.fair_share, &new.rates.fair_share);
        walk.section("redis", &self.rates.redis, &new.rates.redis);
        walk.section("breaker", &self.breaker, &new.breaker);
        walk.section("prediction_log", &self.prediction_log, &new.prediction_log);
        walk.found
    }
}

/// Walks through two values side by side.
#[derive(Debug, Default)]
struct Walk {
    found: Vec<Difference>,
}

impl Walk {
    /// Compares sections whose fields are called like their keys.
    fn section<T: Serialize + PartialEq>(&mut self, path: &str, before: &T, after: &T) {
        if before == after {
            return;
        }
        let count = self.found.len();
        if let (Ok(before), Ok(after)) = (serde_json::to_value(before), serde_json::to_value(after))
        {
            self.values(path, &before, &after);
        }
        if self.found.len() == count {
            self.opaque(path, before, after);
        }
    }

    /// Compares what is not shown.
    fn opaque<T: PartialEq>(&mut self, path: &str, before: &T, after: &T) {
        if before != after {
            let hidden = Some("…".to_owned());
            self.note(path, hidden.clone(), hidden);
        }
    }

    fn values(&mut self, path: &str, before: &Value, after: &Value) {
        if before == after {
            return;
        }
        match (before, after) {
            (Value::Array(before), Value::Array(after)) if is_named(before) && is_named(after) => {
                let count = self.found.len();
                self.objects(path, &by_name(before), &by_name(after));
                // The same ones in another order.
                if self.found.len() == count {
                    self.note(path, Some(names(before)), Some(names(after)));
                }
            }
            (Value::Object(before), Value::Object(after))
                if before.keys().eq(after.keys()) && duration(before).is_none() =>
            {
                self.objects(path, before, after);
            }
            (Value::Null, Value::Object(_)) if duration_of(after).is_none() => {
                self.note(path, None, Some(shown(after)));
            }
            (Value::Object(_), Value::Null) if duration_of(before).is_none() => {
                self.note(path, Some(shown(before)), None);
            }
            _ => self.note(path, Some(shown(before)), Some(shown(after))),
        }
    }

    fn objects(&mut self, path: &str, before: &Map<String, Value>, after: &Map<String, Value>) {
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let path = format!("{path}.{}", in_file(key));
            match (before.get(key), after.get(key)) {
                (Some(before), Some(after)) => self.values(&path, before, after),
                (before, after) => self.note(&path, before.map(shown), after.map(shown)),
            }
        }
    }

    fn note(&mut self, path: &str, before: Option<String>, after: Option<String>) {
        self.found.push(Difference { path: path.to_owned(), before, after });
    }
}

/// Lists of tables are called in the file by what one of them is.
fn in_file(key: &str) -> &str {
    match key {
        "arms" => "arm",
        "shadows" => "shadow",
        other => other,
    }
}

/// Whether every element has a name; an empty list stands beside either kind.
fn is_named(list: &[Value]) -> bool {
    list.iter().all(|element| element["name"].is_string())
}

fn by_name(list: &[Value]) -> Map<String, Value> {
    let name = |element: &Value| element["name"].as_str().unwrap_or_default().to_owned();
    list.iter().map(|element| (name(element), element.clone())).collect()
}

fn names(list: &[Value]) -> String {
    list.iter().filter_map(|element| element["name"].as_str()).collect::<Vec<_>>().join(", ")
}

/// As serde writes a [`Duration`].
fn duration(object: &Map<String, Value>) -> Option<Duration> {
    let (seconds, nanos) = (object.get("secs")?.as_u64()?, object.get("nanos")?.as_u64()?);
    let nanos = u32::try_from(nanos).ok().filter(|_| object.len() == 2)?;
    Some(Duration::new(seconds, nanos))
}

fn duration_of(value: &Value) -> Option<Duration> {
    value.as_object().and_then(duration)
}

/// A value in a line of text.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => match duration_of(other) {
            Some(time) => humantime::format_duration(time).to_string(),
            None => other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Route, parse, reference};

    fn config(text: &str) -> Config {
        parse(&format!("version = 1\n{text}"), Path::new("/etc")).unwrap()
    }

    fn restart(before: &str, after: &str) -> Vec<String> {
        let found = config(before).needs_restart(&config(after));
        found.into_iter().map(|problem| problem.path).collect()
    }

    fn differences(before: &Config, after: &Config) -> Vec<String> {
        before.differences(after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_that_waits_for_a_restart_is_named() {
        assert_eq!(restart("", ""), [""; 0]);
        // The same in other words.
        assert_eq!(
            restart("", "[limits]\nmax_request = '65536KiB'\n[server]\ndrain = '30s'"),
            [""; 0]
        );
        let after = "[listen]\nhttp = '0.0.0.0:9000'\nadmin = 'off'\n[tls]\ncertificate = 'a'\nkey = 'b'\n\
                     [repository]\npath = 'x'\nuploads = true\n[engine]\nrun_timeout = '1s'\n\
                     [limits]\ndefault_timeout = '1s'\nmax_head = '16KiB'\n\
                     [auth]\nreload = '1s'\nanonymous = ['predict']\n\
                     [idempotency]\nenabled = false\n[overload]\ninterval = '1s'\n\
                     [server]\ndrain = '1s'\n[log]\nlevel = 'debug'";
        assert_eq!(
            restart("", after),
            [
                "listen.admin",
                "listen.http",
                "tls",
                "repository.path",
                "repository.uploads",
                "engine.run_timeout",
                "limits.default_timeout",
                "limits.max_head",
                "auth.anonymous",
                "auth.reload",
                "idempotency.enabled",
                "overload.interval",
                "server.drain",
                "log.level",
            ]
        );
        let tls = "[tls]\nkey = 'b'\nclient_ca = 'c'\ncertificate = ";
        assert_eq!(restart(&format!("{tls}'a'"), &format!("{tls}'d'")), ["tls.certificate"]);
        assert_eq!(restart("", "[state]\npath = 'x'"), ["state.path"]);
        assert_eq!(restart("", "[state]\npath = 'penstock-data'"), [""; 0]);
        let route = "[[route]]\nname = 'a'\n[[route.arm]]\nname = 'x'";
        assert_eq!(restart("", route), [""; 0]);
        assert_eq!(restart(route, ""), [""; 0]);
        let mut other = config("");
        (other.state.path, other.state.watch) = (Some("/etc/penstock-data".into()), None);
        let found: Vec<_> = config("").needs_restart(&other);
        assert_eq!(found.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["state.watch"]);
        let mut other = config("");
        other.state.keep_warm = Duration::from_secs(1);
        assert_eq!(config("").needs_restart(&other)[0].path, "state.keep_warm");
    }

    #[test]
    fn what_can_change_while_running_needs_no_restart() {
        let after = "[breaker]\nconsecutive = 9\n[fair_share]\nenabled = true\n\
                     [redis]\nurl = 'redis://other:6379'\n\
                     [[quota]]\nname = 'q'\nkey = 'tenant'\nmax_in_flight = 3";
        assert_eq!(restart("", after), [""; 0]);
        assert_eq!(config("").differences(&config(after)).len(), 4);
    }

    #[test]
    fn of_the_prediction_log_what_is_taken_of_calls_can_change_and_its_folder_cannot() {
        let before = "[prediction_log]\npath = 'a'\n";
        let after = "guarantee = 'sampled'\ntensor_limit = '1KiB'\nslices = ['header:x']\n\
                     hash_key = 'env:X'\ncommit_timeout = '1s'\n[prediction_log.sampling]\n\
                     rate = '1%'\n[[prediction_log.redact]]\nfield = 'in.x'\nhow = 'drop'";
        let after = format!("{before}{after}");
        assert_eq!(restart(before, &after), [""; 0]);
        let differences = differences(&config(before), &config(&after));
        assert_eq!(differences.len(), 7, "{differences:?}");
        let fixed = "[prediction_log]\npath = 'b'\nqueue_rows = 1\nqueue_bytes = '1MiB'\n\
                     segment_size = '1MiB'\nsegment_age = '1s'\nfsync = 'always'\n\
                     fsync_interval = '2s'";
        assert_eq!(restart(before, fixed).len(), 7);
        assert_eq!(restart("", before), ["prediction_log"]);
        assert_eq!(restart(before, ""), ["prediction_log"]);
    }

    #[test]
    fn differences_are_told_key_by_key_with_old_and_new_values() {
        let rule =
            |rest: &str| config(&format!("[[rate_limit]]\nname = 'bulk'\nkey = 'tenant'\n{rest}"));
        let before = rule("rate = '10/s'\n[breaker]\nwindow = '10s'");
        let after = rule("rate = '20/m'\nburst = 10\n[breaker]\nwindow = '1m'\nslow_call = '2s'");
        assert_eq!(
            differences(&before, &after),
            [
                "rate_limit.bulk.rate: 10/s -> 20/m",
                "breaker.slow_call: none -> 2s",
                "breaker.window: 10s -> 1m",
            ]
        );
        assert_eq!(differences(&config(""), &before), ["rate_limit.bulk: added"]);
        assert_eq!(differences(&before, &config("")), ["rate_limit.bulk: removed"]);
        assert_eq!(differences(&before, &before.clone()), [""; 0]);
    }

    fn route(text: &str) -> Route {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn elements_of_lists_are_told_by_their_names() {
        let text = |shares: [&str; 2], names: [&str; 2]| {
            let arm = |index: usize| {
                format!(
                    r#"{{"name": "{}", "share": "{}", "buckets": null,
                        "target": {{"local": {{"model": "m", "version": "latest"}}}}}}"#,
                    names[index], shares[index],
                )
            };
            route(&format!(
                r#"{{"name": "digits", "sticky": "off", "salt": "", "fallback": "refuse",
                    "testers": [], "shadows": [], "arms": [{}, {}]}}"#,
                arm(0),
                arm(1),
            ))
        };
        let with = |route: Route| Config { routes: vec![route], ..config("") };
        let before = with(text(["95%", "5%"], ["stable", "canary"]));
        let after = with(text(["90%", "10%"], ["stable", "canary"]));
        assert_eq!(
            differences(&before, &after),
            [
                "route.digits.arm.canary.share: 5% -> 10%",
                "route.digits.arm.stable.share: 95% -> 90%"
            ]
        );
        let renamed = with(text(["95%", "5%"], ["stable", "other"]));
        assert_eq!(
            differences(&before, &renamed),
            ["route.digits.arm.canary: removed", "route.digits.arm.other: added"]
        );
        let turned = with(text(["5%", "95%"], ["canary", "stable"]));
        assert_eq!(
            differences(&before, &turned),
            ["route.digits.arm: stable, canary -> canary, stable"]
        );
    }

    #[test]
    fn sections_are_compared_by_the_names_that_their_keys_have_in_the_file() {
        let config = config("[tls]\ncertificate = 'a'\nkey = 'b'");
        let sections = [
            ("listen", serde_json::to_value(&config.listen)),
            ("tls", serde_json::to_value(&config.tls)),
            ("repository", serde_json::to_value(&config.repository)),
            ("engine", serde_json::to_value(&config.engine)),
            ("limits", serde_json::to_value(&config.limits)),
            ("idempotency", serde_json::to_value(&config.idempotency)),
            ("overload", serde_json::to_value(config.overload)),
            ("server", serde_json::to_value(&config.server)),
            ("log", serde_json::to_value(&config.log)),
            ("redis", serde_json::to_value(&config.rates.redis)),
            ("breaker", serde_json::to_value(config.breaker)),
        ];
        for (section, value) in sections {
            let Value::Object(fields) = value.unwrap() else { panic!("{section} is no table") };
            for field in fields.keys() {
                let path = format!("{section}.{field}");
                assert!(
                    reference::CONFIG.iter().copied().flatten().any(|key| key.path == path),
                    "{path}"
                );
            }
        }
    }
}
