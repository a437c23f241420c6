//! Several targets side by side: the median of each figure over the rounds, and how it stands to
//! that of the first target.

use serde_json::{Map, Value, json};

use crate::job::Rounds;
use crate::recording::Outcome;
use crate::report::{self, table};
use crate::stats;

/// A figure of a round.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    pub of: fn(&Outcome) -> f64,
}

/// What targets are compared by; latencies in microseconds.
pub const FIGURES: [Figure; 6] = [
    Figure {
        name: "requests_per_second",
        of: |outcome| {
            let all = outcome.measured();
            all.achieved_rate(&all.recorder.total())
        },
    },
    Figure { name: "p50", of: |outcome| quantile(outcome, 0.5) },
    Figure { name: "p90", of: |outcome| quantile(outcome, 0.9) },
    Figure { name: "p99", of: |outcome| quantile(outcome, 0.99) },
    Figure { name: "p99.9", of: |outcome| quantile(outcome, 0.999) },
    Figure {
        name: "error_share",
        of: |outcome| {
            let total = outcome.measured().recorder.total();
            report::share(total.failed + total.mismatches, total.requests()).unwrap_or(0.0)
        },
    },
];

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^53")]
fn quantile(outcome: &Outcome, part: f64) -> f64 {
    outcome.measured().recorder.total().quantile(part) as f64
}

/// The median of a figure over a target's rounds.
#[must_use]
pub fn median(target: &Rounds, figure: Figure) -> f64 {
    stats::median(&target.outcomes.iter().map(figure.of).collect::<Vec<f64>>())
}

/// A target's figure as a multiple of the first target's; `None` where that is 0.
#[must_use]
pub fn ratio(targets: &[Rounds], target: usize, figure: Figure) -> Option<f64> {
    let first = median(&targets[0], figure);
    (first > 0.0).then(|| median(&targets[target], figure) / first)
}

/// A line for each target.
#[must_use]
pub fn text(targets: &[Rounds]) -> String {
    let mut heading = vec!["TARGET".to_owned()];
    heading.extend(FIGURES.iter().map(|figure| figure.name.to_uppercase().replace('_', " ")));
    let mut rows = vec![heading];
    for (index, target) in targets.iter().enumerate() {
        let mut row = vec![target.name.clone()];
        for figure in FIGURES {
            let value = median(target, figure);
            let value = if figure.name.starts_with('p') {
                format!("{value:.0} µs")
            } else {
                format!("{value:.1}")
            };
            let ratio = ratio(targets, index, figure).filter(|_| index > 0);
            row.push(ratio.map_or(value.clone(), |ratio| format!("{value} ({ratio:.2}×)")));
        }
        rows.push(row);
    }
    let rounds = targets.first().map_or(0, |target| target.outcomes.len());
    format!("{}\n  medians of rounds: {rounds}", table(&rows))
}

/// Medians, ratios and every round, for scripts.
#[must_use]
pub fn json(targets: &[Rounds]) -> Value {
    let one = |(index, target): (usize, &Rounds)| {
        let medians: Map<String, Value> = FIGURES
            .iter()
            .map(|figure| (figure.name.to_owned(), median(target, *figure).into()))
            .collect();
        let ratios: Map<String, Value> = FIGURES
            .iter()
            .map(|figure| (figure.name.to_owned(), ratio(targets, index, *figure).into()))
            .collect();
        let rounds: Vec<Value> = target.outcomes.iter().map(report::outcome_json).collect();
        json!({ "name": target.name, "median": medians, "ratio": ratios, "rounds": rounds })
    };
    json!({ "targets": targets.iter().enumerate().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::{Drive, Limit, LoadStage};
    use crate::recorder::Phase;
    use crate::recording::Recording;
    use crate::timeline::Timeline;

    fn rounds(name: &str, millis: &[u64]) -> Rounds {
        let outcome = |milli: &u64| {
            let mut recording =
                Recording { elapsed: Duration::from_secs(1), ..Recording::default() };
            recording.recorder.of(Phase::Before).answer(Duration::from_millis(*milli), 1, "1");
            let (drive, limit) = (Drive::callers(1), Limit::Requests(1));
            let stage = LoadStage { name: "s".to_owned(), drive, limit, warm_up: false };
            Outcome { stages: vec![(stage, recording)], timeline: Timeline::default() }
        };
        Rounds { name: name.to_owned(), outcomes: millis.iter().map(outcome).collect() }
    }

    #[test]
    fn medians_over_rounds_and_their_ratio_to_the_first_target() {
        let targets = [rounds("a", &[10, 90, 11]), rounds("b", &[20, 22, 24, 500])];
        let p99 = FIGURES[3];
        assert!((median(&targets[0], p99) / 11_000.0 - 1.0).abs() < 0.001);
        assert!((median(&targets[1], p99) / 23_000.0 - 1.0).abs() < 0.001);
        let json = json(&targets);
        let ratio = json["targets"][1]["ratio"]["p99"].as_f64().unwrap();
        assert!((ratio - 23.0 / 11.0).abs() < 0.01, "{ratio}");
        assert_eq!(json["targets"][0]["rounds"].as_array().unwrap().len(), 3);
        // Nothing is a multiple of no errors.
        assert!(json["targets"][1]["ratio"]["error_share"].is_null());
        assert!(text(&targets).contains("(2.09×)"), "{}", text(&targets));
    }
}
