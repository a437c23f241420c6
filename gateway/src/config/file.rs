//! The keys of the configuration file, their defaults and the checks across them.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Table;

use super::auth::Auth;
use super::breaker::{Breaker, BreakerSettings};
use super::engine::Engine;
use super::idempotency::Idempotency;
use super::limits::Limits;
use super::listen::Listen;
use super::overload::Overload;
use super::prediction_log::{Guarantee, PredictionLog};
use super::rates::Rates;
use super::reader::{Problem, Problems, Section};
use super::repository::Repository;
use super::routes::{self, Route};
use super::server::{Log, Server};
use super::state::State;
use super::tls::Tls;
use super::upstreams::Upstream;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub listen: Listen,
    pub tls: Option<Tls>,
    pub repository: Repository,
    pub engine: Engine,
    pub limits: Limits,
    pub auth: Auth,
    pub breaker: Breaker,
    pub rates: Rates,
    pub idempotency: Idempotency,
    pub overload: Overload,
    pub server: Server,
    pub log: Log,
    pub state: State,
    /// `None`: nothing is recorded.
    pub prediction_log: Option<PredictionLog>,
    pub routes: Vec<Route>,
    pub upstreams: Vec<Upstream>,
}

impl Config {
    /// The configuration of `penstock serve FOLDER`: every default, models from `repository`.
    #[must_use]
    pub fn for_repository(repository: &Path) -> Self {
        let problems = Problems::default();
        let mut table = Table::new();
        table.insert("version".into(), 1.into());
        let mut config = Self::read(table, Path::new(""), &problems);
        config.repository.path = repository.to_owned();
        // There is no file whose routes could change.
        config.state = State::default();
        config
    }

    /// Reads a whole file; relative paths start at `base`.
    pub fn read(table: Table, base: &Path, problems: &Problems) -> Self {
        let mut root = Section::root(table, problems);
        match root.required::<u64>("version") {
            None | Some(1) => {}
            Some(other) => root.problem("version", format!("is {other}, this build reads 1")),
        }
        let mut names = BTreeSet::new();
        let upstreams = Upstream::read_all(&mut root, &mut names, base);
        let routes = Route::read_all(&mut root, &names);
        let state = State::read(root.section("state"), base, !routes.is_empty());
        let prediction_log = PredictionLog::read(&mut root, base, state.path.as_deref());
        let config = Self {
            listen: Listen::read(root.section("listen"), base),
            tls: Tls::read(root.section("tls"), base),
            repository: Repository::read(root.section("repository"), base),
            engine: Engine::read(root.section("engine")),
            limits: Limits::read(root.section("limits")),
            auth: Auth::read(root.section("auth"), base),
            breaker: BreakerSettings::read(root.section("breaker")).over(&Breaker::default()),
            rates: Rates::read(&mut root, base),
            idempotency: Idempotency::read(root.section("idempotency")),
            overload: Overload::read(root.section("overload")),
            server: Server::read(root.section("server")),
            log: Log::read(root.section("log")),
            state,
            prediction_log,
            // What could not be read has been reported.
            routes: routes.into_iter().collect::<Option<_>>().unwrap_or_default(),
            upstreams: upstreams.into_iter().flatten().collect(),
        };
        config.check_across(problems);
        root.finish();
        config
    }

    /// Checks again what the command line may have changed.
    ///
    /// # Errors
    /// Every problem found, each with the path of its key.
    pub fn check(&self) -> Result<(), Vec<Problem>> {
        let problems = Problems::default();
        self.check_across(&problems);
        problems.into_result(())
    }

    fn check_across(&self, problems: &Problems) {
        self.listen.check(self.auth.guards_operators(self.repository.control), problems);
        self.check_logs(problems);
        routes::loops::check(&self.routes, &self.upstreams, &self.listen, problems);
    }
}

impl Config {
    /// The prediction log whose rules can be held against the models here: with upstreams nobody
    /// knows what models there are.
    #[must_use]
    pub fn rules_to_check(&self) -> Option<PredictionLog> {
        self.prediction_log.clone().filter(|_| self.upstreams.is_empty())
    }

    /// Routes can only choose how surely they are recorded where something records.
    fn check_logs(&self, problems: &Problems) {
        if self.prediction_log.is_some() {
            return;
        }
        for (index, route) in self.routes.iter().enumerate() {
            if route.log.is_some_and(|log| log != Guarantee::Off) {
                let text = "has no effect without [prediction_log]";
                problems.add(format!("route[{index}].log"), text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Control, parse};

    fn problems(text: &str) -> Vec<String> {
        let found = parse(text, Path::new("")).unwrap_err();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_file_lacks_only_its_version() {
        assert_eq!(problems(""), ["version: is missing"]);
        let config = parse("version = 1", Path::new("/etc")).unwrap();
        assert_eq!(config.listen.http.unwrap().port(), 8000);
        assert_eq!(config.repository.path, Path::new("/etc/models/repository"));
        assert_eq!(config.repository.control, Control::Local);
    }

    #[test]
    fn inapplicable_files_are_refused_with_every_problem() {
        let text = "version = 2\n[listen]\nhttp = '1.2.3.4:9'\ngrpc = '1.2.3.4:9'\nadnim = 'x'\n\
                    [engine]\nrun_timeout = '0s'\n[repositry]\n";
        assert_eq!(
            problems(text),
            [
                "version: is 2, this build reads 1",
                "listen.adnim: is not a known key, did you mean 'admin'?",
                "engine.run_timeout: must be longer than zero",
                "listen.grpc: is also listen.http",
                "repositry: is not a known key, did you mean 'repository'?",
            ]
        );
    }
}
