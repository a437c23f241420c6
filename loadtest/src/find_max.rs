//! The highest rate of an open loop at which a server keeps a promise.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::arrivals::Arrivals;
use crate::job::{self, Job};
use crate::plan::{Drive, Limit, LoadStage};
use crate::recording::Recording;
use crate::report::{self, micros, say};
use crate::search::Search;
use crate::slo::{self, Bound};

/// What a sustained rate achieves of what is offered, at least.
const ACHIEVED: f64 = 0.99;

/// How to look for it.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// What has to hold, such as p99=20ms; may be given several times
    #[arg(long, value_name = "BOUND", required = true)]
    pub slo: Vec<Bound>,
    /// The first rate that is tried, a second
    #[arg(long, value_name = "RATE", default_value_t = 100.0)]
    pub start: f64,
    /// The highest rate that is tried
    #[arg(long, value_name = "RATE", default_value_t = 200_000.0)]
    pub most: f64,
    /// How close to the limit it gets, as a part of the rate
    #[arg(long, value_name = "PART", default_value_t = 0.05)]
    pub precision: f64,
    /// How long each rate is tried
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "5s")]
    pub duration: Duration,
    /// How long each rate goes on before it is measured
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "1s")]
    pub warmup: Duration,
    /// How calls arrive
    #[arg(long, value_enum, default_value = "poisson")]
    pub arrivals: Arrivals,
    /// Calls in flight at most; over HTTP so many connections are opened
    #[arg(long, value_name = "NUMBER", default_value_t = 512)]
    pub callers: usize,
}

/// Tries rate after rate; says each and returns the report.
///
/// # Errors
/// When the server cannot be reached or the figures make no sense.
pub async fn run(job: &Job, arguments: &Arguments, quiet: bool) -> anyhow::Result<(Value, bool)> {
    let Arguments { start, most, precision, .. } = *arguments;
    ensure!(start > 0.0 && most >= start, "--start lies above 0 and not above --most");
    ensure!((0.001..=1.0).contains(&precision), "--precision lies between 0.001 and 1");
    let target = job.targets.first().context("there must be a target")?;
    ensure!(job.targets.len() == 1, "find-max looks at one target");
    let load = job.load(&target.target).await?;
    let mut search = Search::new(start, (1.0_f64.min(start), most), precision);
    let (mut steps, mut best) = (Vec::new(), Value::Null);
    while let Some(rate) = search.next() {
        let outcome = job::once(&load, stages(rate, arguments), &format!("{rate:.0}/s")).await?;
        let recording = outcome.measured();
        let reasons = reasons(&arguments.slo, &recording);
        let figures = report::recording_json(&recording);
        if !quiet {
            let p99 = micros(recording.recorder.total().quantile(0.99));
            let verdict = if reasons.is_empty() { "holds".to_owned() } else { reasons.join("; ") };
            say(format_args!("  {rate:>10.1}/s  p99 {p99:<9}  {verdict}"));
        }
        steps.push(json!({ "rate": rate, "broken": &reasons, "figures": &figures }));
        if reasons.is_empty() {
            best = figures;
        }
        search.tried(reasons.is_empty());
    }
    let found = search.best();
    if !quiet {
        say(match found {
            Some(rate) => format!("the highest rate that holds: {rate:.1}/s"),
            None => "no rate holds".to_owned(),
        });
    }
    Ok((json!({ "max_rate": found, "at_max": best, "steps": steps }), found.is_some()))
}

/// Why a rate does not count as sustained.
fn reasons(bounds: &[Bound], recording: &Recording) -> Vec<String> {
    let mut reasons = slo::breaches(bounds, recording);
    reasons.extend(Bound::AchievedShare(ACHIEVED).breach(recording));
    reasons.extend(Bound::ErrorShare(0.0).breach(recording));
    reasons
}

fn stages(rate: f64, arguments: &Arguments) -> Vec<LoadStage> {
    let Arguments { arrivals, callers: bound, .. } = *arguments;
    let drive = Drive::Open { from: rate, to: rate, arrivals, bound };
    let stage = |name: &str, duration, warm_up| {
        let limit = Limit::Time(duration);
        LoadStage { name: name.to_owned(), drive: drive.clone(), limit, warm_up }
    };
    let mut stages = Vec::new();
    if !arguments.warmup.is_zero() {
        stages.push(stage("warm-up", arguments.warmup, true));
    }
    stages.push(stage("load", arguments.duration, false));
    stages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Phase;

    #[test]
    fn a_rate_counts_only_without_errors_and_without_falling_behind() {
        let bounds: Vec<Bound> = vec!["p99=20ms".parse().unwrap()];
        let mut recording = Recording::default();
        recording.sending.open = true;
        recording.sending.window = Duration::from_secs(1);
        (recording.sending.sent, recording.sending.answered_within) = (100, 100);
        for _ in 0..100 {
            let tally = recording.recorder.of(Phase::Before);
            tally.answer(Duration::from_millis(5), 1, "1");
        }
        assert!(reasons(&bounds, &recording).is_empty());
        let mut late = recording.clone();
        late.sending.answered_within = 98;
        assert_eq!(reasons(&bounds, &late).len(), 1);
        let mut failing = recording.clone();
        failing.recorder.of(Phase::Before).fail("HTTP 503".into(), String::new);
        assert_eq!(reasons(&bounds, &failing).len(), 1);
        let mut slow = recording;
        slow.recorder.of(Phase::Before).answer(Duration::from_millis(50), 1, "1");
        slow.recorder.of(Phase::Before).answer(Duration::from_millis(50), 1, "1");
        assert_eq!(reasons(&bounds, &slow), ["p99 50.01 ms above 20ms"]);
    }
}
