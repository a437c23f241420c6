//! What is told about a shadow; its field names are part of the admin API.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{LaneCounts, Proportion};

/// How a shadow compares with what callers get. Numbers that are no finite number are `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub verdict: Verdict,
    /// Plain sentences, what matters most first.
    pub findings: Vec<String>,
    /// Since counting began.
    pub seconds: f64,
    /// Pairs compared, those with an error of the shadow included.
    pub calls: u64,
    /// Items of those that the shadow answered.
    pub rows: u64,
    /// Calls that the shadow failed, by kind of error, or by what is wrong with the answer:
    /// `missing_output`, `wrong_shape`, `wrong_datatype`. The first reason of each call counts.
    pub errors: BTreeMap<&'static str, u64>,
    /// Share of failed calls.
    pub failed: Option<Proportion>,
    pub latency: Option<Latency>,
    pub outputs: Vec<OutputReport>,
    /// Times that an output was not compared because too many have a name.
    pub outputs_left_out: u64,
    /// Predictions that disagree most, the worst first.
    pub worst: Vec<WorstPair>,
    /// What became of the calls that the shadow was meant to see; none outside a gateway.
    pub lane: Option<LaneCounts>,
}

/// All findings in one word; `docs/operations.md` has the thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Too few calls to say anything.
    TooFew,
    /// It fails calls that live answers.
    Failing,
    /// It answers otherwise.
    Differs,
    /// It answers alike, but takes longer.
    Slower,
    Alike,
}

/// Times of answered calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    pub pairs: u64,
    /// The shadow's time as a multiple of the live time of the same call.
    pub ratio: Option<Quantiles>,
    pub live_seconds: Option<Quantiles>,
    pub shadow_seconds: Option<Quantiles>,
}

/// Within 3.2 % of the truth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    pub median: f64,
    pub p90: f64,
}

/// One output, by its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputReport {
    pub name: String,
    pub kind: OutputKind,
    pub datatype: &'static str,
    /// Where it is another one than live.
    pub shadow_datatype: Option<&'static str>,
    /// Whether both sides declare labels, and not the same ones.
    pub labels_differ: bool,
    pub rows: u64,
    /// Labels that agree, for classes; rows that are equal, for what is no float.
    pub agreement: Option<Proportion>,
    /// Elements that are equal, for what is no float.
    pub equal_elements: Option<Proportion>,
    /// Vectors that differ by no more than the output's declared tolerance.
    pub within_tolerance: Option<Proportion>,
    pub top_k: Option<TopK>,
    pub flips: Option<Flips>,
    pub difference: Option<Difference>,
    pub cosine: Option<Cosine>,
    pub nan: OddRows,
    pub infinite: OddRows,
}

/// How an output is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputKind {
    /// Each vector along the last dimension scores classes.
    Classes,
    /// All floats of a row are one vector.
    Vector,
    /// One float for each row.
    Scalar,
    /// Integers, BOOL and BYTES, which are equal or not.
    Exact,
}

/// Overlap of the largest elements: those in both sets of those in any, on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TopK {
    pub k: usize,
    pub overlap: f64,
}

/// Labels that turned into others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flips {
    pub total: u64,
    /// Different ones known; [`Flips::most`] lists the first of them.
    pub different: usize,
    pub most: Vec<Flip>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Flip {
    pub live: String,
    pub shadow: String,
    pub count: u64,
    /// The count is too high by at most this: 0 while there are no more than 4096 different ones.
    pub error: u64,
}

/// Differences of finite elements, shadow minus live.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    pub mean: f64,
    pub max: f64,
    /// Positive where the shadow is larger on average.
    pub mean_signed: f64,
    /// Mean difference of a vector as a part of its largest live magnitude, on average.
    pub mean_relative: Option<f64>,
}

/// Cosines of the angle between live and shadow; quantiles of `1 - cosine` within 3.2 %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cosine {
    pub vectors: u64,
    pub mean: f64,
    pub min: f64,
    pub p1: f64,
    pub p10: f64,
    pub median: f64,
}

/// Rows with at least one element that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OddRows {
    pub live: u64,
    pub shadow: u64,
}

/// One prediction that disagrees.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorstPair {
    pub prediction: String,
    pub output: String,
    pub row: usize,
    /// 2: not finite where live is; from 1: another label or value; below 1: the largest
    /// difference as a part of the largest live magnitude.
    pub score: f64,
    /// Live → shadow.
    pub summary: String,
}

impl Report {
    /// Adds what became of the calls that the shadow was meant to see.
    #[must_use]
    pub fn with_lane(mut self, lane: LaneCounts) -> Self {
        self.findings.extend(super::findings::of_lane(&lane));
        self.lane = Some(lane);
        self
    }
}
