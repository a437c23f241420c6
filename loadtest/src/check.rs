//! Judges answers: against the labels of their rows, and against what the version that is named
//! in the answer gives for each of these rows when it is asked for it alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::answer::{Answer, Output};
use crate::client::Client;
use crate::dataset::Dataset;
use crate::payload::{self, Schedule, Shape, Wire};
use crate::target::{Metadata, Target};

mod arms;

pub use arms::Arms;

/// How far an element may be from what is expected, as a part of the largest of its output: a
/// number near zero has no meaningful relative error of its own.
pub const TOLERANCE: f64 = 1e-5;

/// Expected outputs by version and row.
#[derive(Debug, Default)]
pub struct Expected {
    versions: BTreeMap<String, Vec<Row>>,
}

/// Elements of each output for one row.
type Row = BTreeMap<String, Vec<f64>>;

/// A file of expected outputs: each output with one list of elements for each row of the data.
#[derive(Debug, Deserialize)]
struct ExpectedFile {
    version: String,
    outputs: BTreeMap<String, Vec<Vec<f64>>>,
}

/// What an answer is worth.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Who answered.
    pub version: String,
    /// The arm that it names.
    pub arm: Option<String>,
    /// Rows whose largest output is their label, of those that have one.
    pub correct: u64,
    pub labelled: u64,
    /// The answer was compared with what is expected.
    pub checked: bool,
    /// How it differs.
    pub mismatch: Option<String>,
}

/// Judges the answers of one run.
#[derive(Debug)]
pub struct Judge {
    data: Arc<Dataset>,
    /// Rows of each request.
    rows: usize,
    /// The version that was asked for; empty for whichever serves.
    version: String,
    /// The output whose largest element names the class.
    classes: Option<String>,
    expected: Option<Arc<Expected>>,
    arms: Option<Arc<Arms>>,
}

// === impl Expected ===

impl Expected {
    /// Asks each version directly for every row alone, one after the other.
    ///
    /// # Errors
    /// When one of them does not answer with numbers.
    pub async fn ask(
        target: &Target,
        model: &str,
        versions: &[String],
        data: &Dataset,
    ) -> anyhow::Result<Self> {
        let mut expected = Self::default();
        for version in versions {
            let shape = Shape {
                model: model.to_owned(),
                version: version.clone(),
                rows: 1,
                schedule: Schedule::default(),
            };
            let mut client = Client::http(&target.http, model, version).await?;
            let mut rows = Vec::with_capacity(data.len());
            for payload in payload::build(data, &shape, Wire::HttpBinary)? {
                let what = || format!("row {} of version {version}", payload.first_row);
                let answer = client.ask(&payload).await.with_context(what)?;
                ensure!(
                    answer.version == *version,
                    "version {version} was asked, version {} answered",
                    answer.version
                );
                rows.push(elements(&answer).with_context(what)?);
            }
            expected.versions.insert(version.clone(), rows);
        }
        Ok(expected)
    }

    /// Reads expected outputs, a file for each version.
    ///
    /// # Errors
    /// When a file cannot be read or does not cover every row.
    pub fn read<P: AsRef<Path>>(files: &[P], data: &Dataset) -> anyhow::Result<Self> {
        let mut expected = Self::default();
        for path in files {
            let path = path.as_ref();
            let place = || path.display().to_string();
            let text = std::fs::read(path).with_context(place)?;
            let file: ExpectedFile = serde_json::from_slice(&text).with_context(place)?;
            expected.add(file, data.len()).with_context(place)?;
        }
        Ok(expected)
    }

    fn add(&mut self, file: ExpectedFile, count: usize) -> anyhow::Result<()> {
        let mut rows = vec![Row::new(); count];
        for (output, values) in file.outputs {
            let covered = values.len();
            ensure!(covered == count, "output '{output}' has {covered} rows, the data has {count}");
            for (row, elements) in rows.iter_mut().zip(values) {
                row.insert(output.clone(), elements);
            }
        }
        self.versions.insert(file.version, rows);
        Ok(())
    }

    /// The versions it knows.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        self.versions.keys().cloned().collect()
    }

    /// The class that a version gives each row: where its output of that name is largest.
    #[must_use]
    pub fn classes(&self, version: &str, output: &str) -> Option<Vec<usize>> {
        let rows = self.versions.get(version)?;
        rows.iter().map(|row| largest(row.get(output)?)).collect()
    }

    /// How an answer to these rows differs from what its version gives for each alone.
    fn compare(&self, answer: &Answer, rows: &[usize]) -> Option<String> {
        let version = &answer.version;
        let Some(expected) = self.versions.get(version) else {
            return Some(format!("version '{version}' answered, which is not expected to serve"));
        };
        let names = answer.outputs.len();
        let wanted = rows.first().map_or(0, |row| expected[*row].len());
        if names != wanted {
            return Some(format!("version {version} answered {names} outputs, not {wanted}"));
        }
        answer.outputs.iter().find_map(|output| {
            let name = &output.name;
            let got = output.numbers().unwrap_or_default();
            let alone: Option<Vec<&Vec<f64>>> =
                rows.iter().map(|row| expected[*row].get(name)).collect();
            let Some(alone) = alone else {
                return Some(format!("version {version} has no output '{name}'"));
            };
            if got.len() != alone.iter().map(|elements| elements.len()).sum::<usize>() {
                return Some(format!("version {version}, output '{name}': {} elements", got.len()));
            }
            let mut rest = &got[..];
            rows.iter().zip(alone).find_map(|(row, alone)| {
                let (mine, others) = rest.split_at(alone.len());
                rest = others;
                let at = difference(mine, alone)?;
                Some(format!(
                    "version {version}, row {row}, output '{name}'[{at}]: got {}, alone {}",
                    mine[at], alone[at]
                ))
            })
        })
    }
}

/// Every output as numbers.
fn elements(answer: &Answer) -> anyhow::Result<Row> {
    let numbers = |output: &Output| {
        let text = || format!("output '{}' ({}) is no numbers", output.name, output.datatype);
        Ok((output.name.clone(), output.numbers().with_context(text)?))
    };
    answer.outputs.iter().map(numbers).collect()
}

/// Where two outputs differ by more than the tolerance.
fn difference(got: &[f64], expected: &[f64]) -> Option<usize> {
    let finite = expected.iter().filter(|element| element.is_finite());
    let largest = finite.map(|element| element.abs()).fold(0.0, f64::max);
    got.iter().zip(expected).position(|(got, expected)| {
        let both_nan = got.is_nan() && expected.is_nan();
        let same = both_nan || got.total_cmp(expected).is_eq();
        // False when either is no number.
        let close = (got - expected).abs() <= TOLERANCE * largest;
        !same && !close
    })
}

// === impl Judge ===

impl Judge {
    /// Judges answers to requests of so many rows, for one version or, when that is empty, for
    /// whichever serves.
    #[must_use]
    pub fn new(metadata: &Metadata, data: &Arc<Dataset>, rows: usize, version: &str) -> Self {
        let classes = data.labels.as_ref().and_then(|labels| class_output(metadata, labels));
        let (data, version) = (data.clone(), version.to_owned());
        Self { data, rows, version, classes, expected: None, arms: None }
    }

    /// Also compares every answer with what is expected.
    #[must_use]
    pub fn expecting(mut self, expected: Arc<Expected>) -> Self {
        self.expected = Some(expected);
        self
    }

    /// Also wants every answer to name an arm of a route, with its version, and for its key.
    #[must_use]
    pub fn from_arms(mut self, arms: Arc<Arms>) -> Self {
        self.arms = Some(arms);
        self
    }

    /// Judges the answer to the request that begins with this row and has that key.
    #[must_use]
    pub fn judge(&self, answer: Answer, first_row: usize, key: Option<u64>) -> Verdict {
        let rows: Vec<usize> =
            (first_row..first_row + self.rows).map(|row| row % self.data.len()).collect();
        let (correct, labelled) = self.score(&answer, &rows);
        let mut mismatch = None;
        if !self.version.is_empty() && answer.version != self.version {
            mismatch = Some(format!("version {} answered for {}", answer.version, self.version));
        }
        if let Some(arms) = &self.arms {
            mismatch = mismatch.or_else(|| arms.mismatch(&answer, key));
        }
        if let Some(expected) = &self.expected {
            mismatch = mismatch.or_else(|| expected.compare(&answer, &rows));
        }
        let checked = self.expected.is_some() || mismatch.is_some();
        let Answer { version, origin, .. } = answer;
        Verdict { version, arm: origin.arm, correct, labelled, checked, mismatch }
    }

    /// Rows whose largest element is at their label, and rows with a label.
    fn score(&self, answer: &Answer, rows: &[usize]) -> (u64, u64) {
        let (Some(name), Some(labels)) = (&self.classes, &self.data.labels) else { return (0, 0) };
        let output = answer.outputs.iter().find(|output| output.name == *name);
        let numbers = output.and_then(Output::numbers).unwrap_or_default();
        let width = (numbers.len() / rows.len()).max(1);
        let hits = rows
            .iter()
            .zip(numbers.chunks_exact(width))
            .filter(|(row, scores)| largest(scores) == Some(labels[**row]))
            .count();
        (hits as u64, rows.len() as u64)
    }
}

/// The first floating-point output with an element for every label.
fn class_output(metadata: &Metadata, labels: &[usize]) -> Option<String> {
    let highest = i64::try_from(*labels.iter().max()?).ok()?;
    let classes = metadata.outputs.iter().find(|output| {
        output.datatype.contains("FP")
            && output.shape.len() == 2
            && output.shape.last().is_some_and(|classes| *classes > highest)
    });
    classes.map(|output| output.name.clone())
}

/// Where the largest element is.
#[must_use]
pub fn largest(scores: &[f64]) -> Option<usize> {
    scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests;
