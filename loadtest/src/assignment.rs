//! Who belongs to which arm, seen from outside: many callers ask over both protocols, while the
//! share of one arm grows.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::configuration::Route;
use crate::report::{row, say, table};
use crate::repository::RepositoryCopy;
use crate::stage::{DIGITS, Scene, Stage};
use crate::verdict::Verdict;

/// Percent of the callers in the canary, step by step.
const STEPS: [u16; 4] = [5, 10, 50, 100];
/// The two-sided 99.9 % quantile of the normal distribution.
const Z: f64 = 3.291;

/// How many ask.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    /// Callers, each with a key of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    pub keys: usize,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What the callers of one step met.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// Percent of the callers that the canary was to have.
    percent: u16,
    /// Callers in it.
    members: usize,
    /// Callers that were in it one step before and are no longer.
    left: usize,
}

/// What all callers met.
#[derive(Debug)]
struct Census {
    callers: usize,
    steps: Vec<Step>,
    /// Callers whom the two protocols gave different arms.
    torn: usize,
    took: Duration,
}

/// Asks, prints and says whether all is well.
///
/// # Errors
/// When the gateway does not start or a call fails.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(arguments.keys >= 100, "too few callers to tell a share");
    let repository = RepositoryCopy::of(&arguments.scene.repository)?;
    repository.serve_only(DIGITS, &[1, 2])?;
    let route =
        Route::named(DIGITS).arm("stable", (DIGITS, "1"), "95%").arm("canary", (DIGITS, "2"), "5%");
    let stage = Stage::with_routes(&arguments.scene, repository, vec![route]).await?;
    if !arguments.json {
        say(format_args!("{} callers ask {DIGITS} over HTTP and gRPC", arguments.keys));
    }
    let census = census(&stage, arguments).await.map_err(|error| stage.explain(&error))?;
    let (status, _) = stage.gateway.stop().await?;
    let mut verdict = census.verdict();
    verdict.holds(status.success(), || format!("the gateway's {status}"));
    Ok(verdict.conclude(arguments.json, census.json(), &census.text()))
}

async fn census(stage: &Stage, arguments: &Arguments) -> anyhow::Result<Census> {
    let started = Instant::now();
    let (mut admin, mut http) = (stage.admin()?, stage.caller(DIGITS).await?);
    let mut grpc = stage.grpc_caller(DIGITS).await?;
    let (mut torn, mut steps) = (0, Vec::<Step>::new());
    let mut before = vec![false; arguments.keys];
    for percent in STEPS {
        if percent > STEPS[0] {
            admin.set(DIGITS, &[("canary", &format!("{percent}%"))]).await?;
        }
        let mut members = Vec::with_capacity(arguments.keys);
        for key in 0..arguments.keys as u64 {
            let arm = http.arm(Some(key)).await?;
            if percent == STEPS[0] {
                torn += usize::from(grpc.arm(key).await? != arm);
            }
            members.push(arm == "canary");
        }
        let left = before.iter().zip(&members).filter(|(was, is)| **was && !**is).count();
        steps.push(Step { percent, members: count(&members), left });
        before = members;
    }
    Ok(Census { callers: arguments.keys, steps, torn, took: started.elapsed() })
}

fn count(members: &[bool]) -> usize {
    members.iter().filter(|member| **member).count()
}

impl Census {
    /// From how many to how many callers a share gives in 999 of 1000 cases.
    fn interval(&self, percent: u16) -> (f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "there are few callers")]
        let callers = self.callers as f64;
        let part = f64::from(percent) / 100.0;
        let (mean, deviation) = (callers * part, (callers * part * (1.0 - part)).sqrt());
        (mean - Z * deviation, mean + Z * deviation)
    }

    fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for Step { percent, members, left } in &self.steps {
            let (low, high) = self.interval(*percent);
            #[expect(clippy::cast_precision_loss, reason = "there are few callers")]
            let within = (low..=high).contains(&(*members as f64));
            verdict.holds(within, || {
                format!("{members} callers at {percent}%, not {low:.0} to {high:.0}")
            });
            verdict.holds(*left == 0, || format!("{left} callers left the arm at {percent}%"));
        }
        let torn = self.torn;
        verdict.holds(torn == 0, || format!("{torn} callers met two arms at the same share"));
        verdict
    }

    fn text(&self) -> String {
        let mut rows = vec![row(&["SHARE", "CALLERS", "99.9 % INTERVAL", "LEFT"])];
        for Step { percent, members, left } in &self.steps {
            let (low, high) = self.interval(*percent);
            let interval = format!("{low:.0} to {high:.0}");
            rows.push(row(&[
                &format!("{percent}%"),
                &members.to_string(),
                &interval,
                &left.to_string(),
            ]));
        }
        let (torn, seconds) = (self.torn, self.took.as_secs_f64());
        format!("{}\n  {torn} callers with two arms; {seconds:.1} s", table(&rows))
    }

    fn json(&self) -> Value {
        let steps = self.steps.iter().map(|Step { percent, members, left }| {
            json!({ "percent": percent, "callers": members, "left": left })
        });
        json!({
            "callers": self.callers,
            "steps": steps.collect::<Vec<_>>(),
            "torn": self.torn,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(members: usize, left: usize, torn: usize) -> Census {
        let steps = vec![Step { percent: 5, members, left }];
        Census { callers: 10_000, steps, torn, took: Duration::ZERO }
    }

    #[test]
    fn a_share_off_its_interval_and_callers_who_leave_or_differ_are_broken() {
        let good = |census: Census| census.verdict().conclude(true, json!({}), "");
        assert!(good(census(500, 0, 0)));
        assert!(good(census(571, 0, 0)) && !good(census(572, 0, 0)));
        assert!(good(census(429, 0, 0)) && !good(census(428, 0, 0)));
        assert!(!good(census(500, 1, 0)));
        assert!(!good(census(500, 0, 1)));
    }
}
