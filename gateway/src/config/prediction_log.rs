//! `[prediction_log]`: what is kept of every call, how surely, and what of it never reaches a disk.

mod disk;
mod feedback;
mod redact;
mod sampling;
mod store;
mod terms;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reader::Section;
use super::value::Size;

pub use disk::Disk;
pub use feedback::Memory;
pub use redact::{Field, How, Redact};
pub use sampling::{Confidence, LogSampling};
pub use store::{LogStore, Scheme};
pub use terms::{HashKey, SECRET_HEADERS, Slice, SliceSource};

/// Beneath the folder of the state, where the file names no other.
const FOLDER: &str = "predictions";
const MAX_ROWS: usize = 16 << 20;
const MAX_SLICES: usize = 64;
const MIN_SEGMENT: usize = 64 << 10;
const MAX_TENSOR: usize = 64 << 20;
const MIN_QUEUE: usize = 64 << 10;
/// What `guarantee` and a route's `log` may say.
pub(super) const GUARANTEES: &[(&str, Guarantee)] = &[
    ("lossy", Guarantee::Lossy),
    ("sampled", Guarantee::Sampled),
    ("durable", Guarantee::Durable),
    ("off", Guarantee::Off),
];

/// What is kept of calls. Its keys but the folder, the queue and the segments follow a reload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PredictionLog {
    pub path: PathBuf,
    /// Of calls whose route says nothing else.
    pub guarantee: Guarantee,
    pub fsync: Fsync,
    pub fsync_interval: Duration,
    /// Longest that an answer waits for its row to be written, where its deadline is not sooner.
    pub commit_timeout: Duration,
    /// Rows that wait to be written.
    pub queue_rows: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// A segment that has grown beyond this is closed.
    pub segment_size: usize,
    /// So is one that has been open for longer.
    pub segment_age: Duration,
    /// Larger tensors are left out, in bytes.
    pub tensor_limit: usize,
    /// Headers and parameters by which rows are told apart.
    pub slices: Vec<Slice>,
    pub redact: Vec<Redact>,
    /// Where the key of hashes is.
    pub hash_key: Option<HashKey>,
    pub sampling: LogSampling,
    /// How predictions are remembered for feedback; `None`: they are not.
    pub feedback: Option<Memory>,
    #[serde(flatten)]
    pub disk: Disk,
    /// Where files are delivered to.
    pub store: Option<LogStore>,
}

/// How surely a call is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// It is not.
    Off,
    /// Unless the queue is full.
    Lossy,
    /// A part of the calls, chosen by what they are, unless the queue is full.
    Sampled,
    /// Before it is answered.
    Durable,
}

/// When what is written is also brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fsync {
    /// When the system does.
    Never,
    /// Every `fsync_interval`.
    Interval,
    /// After each write, before the rows count as written.
    Always,
}

impl Guarantee {
    pub const ALL: [Self; 4] = [Self::Off, Self::Lossy, Self::Sampled, Self::Durable];

    /// Its word in files and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Lossy => "lossy",
            Self::Sampled => "sampled",
            Self::Durable => "durable",
        }
    }
}

impl PredictionLog {
    /// Reads the section, where there is one: nothing is recorded otherwise.
    pub(super) fn read(root: &mut Section<'_>, base: &Path, state: Option<&Path>) -> Option<Self> {
        if !root.has("prediction_log") {
            // Asked for all the same, so that a misspelt one finds it.
            root.section("prediction_log").finish();
            return None;
        }
        let mut section = root.section("prediction_log");
        let fsync =
            [("never", Fsync::Never), ("interval", Fsync::Interval), ("always", Fsync::Always)];
        let path = section.take::<String>("path");
        if path.as_ref().is_some_and(String::is_empty) {
            section.problem("path", "is empty");
        }
        let log = Self {
            path: match path {
                Some(path) => base.join(path),
                None => state.unwrap_or(base).join(FOLDER),
            },
            guarantee: section.choice("guarantee", GUARANTEES, Guarantee::Lossy),
            fsync: section.choice("fsync", &fsync, Fsync::Interval),
            fsync_interval: section.or("fsync_interval", Duration::from_secs(1)),
            commit_timeout: section.or("commit_timeout", Duration::from_secs(5)),
            queue_rows: section.or("queue_rows", 65_536),
            queue_bytes: section.or("queue_bytes", Size::mib(256)).0,
            segment_size: section.or("segment_size", Size::mib(128)).0,
            segment_age: section.or("segment_age", Duration::from_secs(300)),
            tensor_limit: section.or("tensor_limit", Size(64 << 10)).0,
            slices: section.or("slices", vec![]),
            redact: Redact::read_all(&mut section),
            hash_key: section.take::<HashKey>("hash_key").map(|key| key.beside(base)),
            sampling: LogSampling::read(section.section("sampling")),
            feedback: Memory::read(&mut section),
            disk: Disk::read(&mut section),
            store: LogStore::read(&mut section, base),
        };
        log.check(&section);
        section.finish();
        Some(log)
    }

    /// It with what only a restart changes; everything else as nobody set it.
    pub(super) fn fixed(&self) -> Self {
        Self {
            guarantee: Guarantee::Off,
            slices: vec![],
            redact: vec![],
            hash_key: None,
            sampling: LogSampling::default(),
            tensor_limit: 0,
            commit_timeout: Duration::ZERO,
            ..self.clone()
        }
    }

    fn check(&self, section: &Section<'_>) {
        for (key, time) in [
            ("fsync_interval", self.fsync_interval),
            ("commit_timeout", self.commit_timeout),
            ("segment_age", self.segment_age),
        ] {
            if time.is_zero() {
                section.problem(key, "must be longer than zero");
            }
        }
        if !(1..=MAX_ROWS).contains(&self.queue_rows) {
            section.problem("queue_rows", format!("must be 1 to {MAX_ROWS}"));
        }
        if self.queue_bytes < MIN_QUEUE {
            section.problem("queue_bytes", "must be at least 64KiB");
        }
        if self.segment_size < MIN_SEGMENT {
            section.problem("segment_size", "must be at least 64KiB");
        }
        if self.tensor_limit > MAX_TENSOR {
            section.problem("tensor_limit", "must be at most 64MiB");
        }
        if self.slices.len() > MAX_SLICES {
            section.problem("slices", format!("has more than {MAX_SLICES} entries"));
        }
        for (index, slice) in self.slices.iter().enumerate() {
            // Columns are told apart as DuckDB does it.
            let name = slice.name().to_lowercase();
            if self.slices[..index].iter().any(|other| other.name().to_lowercase() == name) {
                let text = "has the name of another one (capital letters are not told apart)";
                section.problem("slices", format!("item {index} {text}"));
            }
        }
        for (index, rule) in self.redact.iter().enumerate() {
            if let Some((key, text)) = rule.problem(self) {
                section.problem(&format!("redact[{index}].{key}"), text);
            }
        }
    }
}

#[cfg(test)]
mod tests;
