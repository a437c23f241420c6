//! A version that is subtly wrong, found by its agreement: every number of the report is worked
//! out from the two versions' own answers, too.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

use crate::check::Expected;
use crate::report::{row, table};
use crate::stage::{DIGITS, Stage};

/// The version that answers, and the one that is wrong.
const LIVE: &str = "2";
const WRONG: &str = "3";
/// The output with a score for each digit.
const SCORES: &str = "logits";

/// How often a label turned into another.
type Flips = BTreeMap<(String, String), u64>;

/// What two versions have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    agree: u64,
    rows: u64,
    flips: Flips,
}

#[derive(Debug)]
pub(super) struct Wrong {
    reported: Comparison,
    expected: Comparison,
    verdict: String,
}

/// Sends every row once with the wrong version as a shadow, and reads what is told about it.
///
/// # Errors
/// When a call fails or the report never covers all of them.
pub(super) async fn find(stage: &Stage) -> anyhow::Result<Wrong> {
    let answers = stage.answers_of(&[LIVE, WRONG]).await?;
    let expected = Comparison::of(&answers).context("both versions classify")?;
    let report = super::calm_report(stage, (DIGITS, WRONG), expected.rows).await?;
    let reported = Comparison::reported(&report).context("the report's outputs")?;
    Ok(Wrong { reported, expected, verdict: super::kind::told(&report) })
}

impl Comparison {
    /// From what each version answers to every row alone.
    fn of(answers: &Expected) -> Option<Self> {
        let (live, wrong) = (answers.classes(LIVE, SCORES)?, answers.classes(WRONG, SCORES)?);
        let mut flips = Flips::new();
        for (live, wrong) in live.iter().zip(&wrong).filter(|(live, wrong)| live != wrong) {
            *flips.entry((live.to_string(), wrong.to_string())).or_default() += 1;
        }
        let rows = live.len() as u64;
        Some(Self { agree: rows - flips.values().sum::<u64>(), rows, flips })
    }

    /// From the gateway's report.
    fn reported(report: &Value) -> Option<Self> {
        let outputs = report["outputs"].as_array()?;
        let scores = outputs.iter().find(|output| output["name"] == SCORES)?;
        let flip = |flip: &Value| {
            let label = |side: &str| Some(flip[side].as_str()?.to_owned());
            Some(((label("live")?, label("shadow")?), flip["count"].as_u64()?))
        };
        let flips = scores["flips"]["most"].as_array()?.iter().map(flip);
        let agreement = &scores["agreement"];
        let (agree, rows) = (agreement["count"].as_u64()?, agreement["of"].as_u64()?);
        Some(Self { agree, rows, flips: flips.collect::<Option<_>>()? })
    }
}

impl Wrong {
    pub(super) fn broken(&self) -> Vec<String> {
        let Self { reported, expected, .. } = self;
        let mut broken = Vec::new();
        if (reported.agree, reported.rows) != (expected.agree, expected.rows) {
            let (agree, rows) = (expected.agree, expected.rows);
            broken.push(format!(
                "{} of {} rows agree, not {agree} of {rows}",
                reported.agree, reported.rows
            ));
        }
        // The report lists the most frequent ones.
        let listed =
            reported.flips.iter().all(|(flip, count)| expected.flips.get(flip) == Some(count));
        let least = reported.flips.values().min();
        let left_out =
            expected.flips.iter().filter(|(flip, _)| !reported.flips.contains_key(*flip));
        let complete = left_out.map(|(_, count)| count).max() <= least;
        if !listed || !complete {
            broken.push(format!(
                "the report has flips {:?}, not {:?}",
                reported.flips, expected.flips
            ));
        }
        broken
    }

    fn share(&self) -> f64 {
        crate::report::share(self.reported.agree, self.reported.rows).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        let mut flips: Vec<_> = self.reported.flips.iter().collect();
        flips.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let flips: Vec<String> = flips
            .iter()
            .take(4)
            .map(|((live, shadow), count)| format!("{live} → {shadow}: {count}"))
            .collect();
        let Comparison { agree, rows, .. } = self.reported;
        let agreement = format!("{:.4}, {agree} of {rows} rows", self.share());
        table(&[
            row(&[&format!("version {WRONG} beside {LIVE}"), &self.verdict]),
            row(&["agreement", &agreement]),
            row(&["flips", &flips.join("   ")]),
        ])
    }

    pub(super) fn json(&self) -> Value {
        let flips = self.reported.flips.iter().map(
            |((live, shadow), count)| json!({ "live": live, "shadow": shadow, "count": count }),
        );
        json!({
            "agreement": self.share(),
            "agree": self.reported.agree,
            "rows": self.reported.rows,
            "flips": flips.collect::<Vec<_>>(),
            "verdict": self.verdict,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(agree: u64, flips: &[(&str, &str, u64)]) -> Comparison {
        let flips = flips.iter().map(|(a, b, count)| (((*a).to_owned(), (*b).to_owned()), *count));
        Comparison { agree, rows: 450, flips: flips.collect() }
    }

    fn broken(reported: Comparison) -> usize {
        let expected = comparison(415, &[("8", "3", 20), ("9", "4", 14), ("1", "7", 1)]);
        Wrong { reported, expected, verdict: String::new() }.broken().len()
    }

    #[test]
    fn every_number_is_held_against_the_versions_own_answers() {
        assert_eq!(broken(comparison(415, &[("8", "3", 20), ("9", "4", 14), ("1", "7", 1)])), 0);
        // Only the rarest may be left out.
        assert_eq!(broken(comparison(415, &[("8", "3", 20), ("9", "4", 14)])), 0);
        assert_eq!(broken(comparison(415, &[("9", "4", 14), ("1", "7", 1)])), 1);
        assert_eq!(broken(comparison(415, &[("8", "3", 19), ("9", "4", 14)])), 1);
        assert_eq!(broken(comparison(416, &[("8", "3", 20), ("9", "4", 14), ("2", "1", 1)])), 2);
        assert_eq!(broken(comparison(415, &[])), 1);
    }

    #[test]
    fn a_report_is_read_by_the_names_of_its_fields() {
        let report = json!({ "outputs": [{ "name": "logits",
            "agreement": { "count": 415, "of": 450 },
            "flips": { "total": 35, "most": [{ "live": "8", "shadow": "3", "count": 20 }] } }] });
        let expected = comparison(415, &[("8", "3", 20)]);
        assert_eq!(Comparison::reported(&report), Some(expected));
        assert_eq!(Comparison::reported(&json!({ "outputs": [] })), None);
    }
}
