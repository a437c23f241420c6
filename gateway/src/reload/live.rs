//! Configurations in force in a gateway: limits, circuit breakers and upstreams go on with their
//! state, and routes, limits and upstreams change by one store.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Applied, Apply, Asked, Prepared};
use crate::config::{Config, Problem};
use crate::control::Control;
use crate::limits::Limiter;
use crate::predictions::{self, PredictionLog};
use crate::tasks;
use crate::traffic::{By, Refused, Settings, Traffic};
use crate::upstream::Upstreams;

/// Applies configurations to what a gateway serves.
#[derive(Debug)]
pub struct Live {
    pub control: Arc<Control>,
    pub traffic: Arc<Traffic>,
    pub log: Option<Arc<PredictionLog>>,
}

impl Apply for Live {
    fn prepare<'a>(
        &'a self,
        new: &'a Config,
        hash: &'a str,
        asked: &'a Asked,
    ) -> BoxFuture<'a, Result<Prepared, Vec<Problem>>> {
        let prepare = async {
            let (control, traffic) = (self.control.clone(), self.traffic.clone());
            let (rates, breaker, before) = (new.rates.clone(), new.breaker, control.limiter());
            let known = before.clone();
            // It reads files: the password and the secret of shared limits.
            let started = tasks::blocking(move || Limiter::start(&rates, Some(&known))).await;
            let limiter = started.map_err(|text| vec![Problem::new("redis", text)])?;
            let current = control.snapshot().routing().upstreams.clone();
            let upstreams = Upstreams::start_with(&new.upstreams, &new.breaker, Some(&current))?;
            let log = self.log.clone().zip(new.prediction_log.clone());
            let log = tasks::blocking(move || {
                // It reads a file too: the key of hashes.
                log.map(|(log, config)| {
                    predictions::Settings::new(&config)
                        .map(|settings| predictions::Change { log, settings })
                })
            });
            let log = log.await.transpose().map_err(|problem| vec![problem])?;
            let settings = Settings { limiter: limiter.clone(), breaker, upstreams, log };
            let (routes, hash, by) = (new.routes.clone(), hash.to_owned(), by(asked));
            let rules = new.rules_to_check();
            let commit = async move {
                let applied = traffic.apply_file(routes, hash, Some(settings), by).await;
                let applied = applied.map_err(problems)?;
                before.retire(&limiter);
                control.check_rules(rules).await;
                Ok(Applied { revision: applied.revision, diff: applied.diff })
            };
            Ok(commit.boxed())
        };
        prepare.boxed()
    }

    fn preview<'a>(&'a self, new: &'a Config) -> BoxFuture<'a, Result<Vec<String>, Vec<Problem>>> {
        self.traffic.preview(new.routes.clone(), &new.upstreams).boxed()
    }

    fn revision(&self) -> u64 {
        self.traffic.current().number
    }

    fn set_hash<'a>(&'a self, hash: &'a str) -> BoxFuture<'a, ()> {
        self.traffic.set_config_hash(hash.to_owned()).boxed()
    }

    fn refused<'a>(
        &'a self,
        hash: &'a str,
        asked: &'a Asked,
        problems: &'a [Problem],
    ) -> BoxFuture<'a, ()> {
        let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
        self.traffic.note_refused_file(hash, by(asked), lines.join("; ")).boxed()
    }
}

fn by(asked: &Asked) -> By {
    By {
        author: asked.author.clone(),
        from: asked.from.clone(),
        reason: asked.reason.clone().unwrap_or_default(),
        expect_revision: None,
        unasked: *asked == Asked::by_file(),
    }
}

fn problems(refused: Refused) -> Vec<Problem> {
    if refused.problems.is_empty() {
        return vec![Problem::new("", refused.rejection.public_message())];
    }
    refused.problems
}
