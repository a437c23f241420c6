//! What tests find in the folder of a log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use predlog::segment::{self, Reader, Record};

pub(crate) use predlog::Row;

use super::{PredictionLog, Settings};
use crate::config::{self, parse};

/// The section with these lines.
pub(crate) fn terms(path: &Path, lines: &str) -> config::PredictionLog {
    let text = format!("version = 1\n[prediction_log]\npath = '{}'\n{lines}", path.display());
    parse(&text, Path::new("")).unwrap().prediction_log.unwrap()
}

/// A log with these lines in its section.
pub(crate) fn start(path: &Path, lines: &str) -> Arc<PredictionLog> {
    PredictionLog::start(&terms(path, lines)).unwrap()
}

/// Ends a log and reads its rows, in the order of segments.
pub(crate) fn ended(log: &PredictionLog) -> Vec<Row> {
    assert!(log.stop(Duration::from_secs(10)));
    rows(log.path())
}

/// All rows of all closed segments, each of which reads alone.
pub(crate) fn rows(path: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for (_, path) in segment::list(&path.join("segments")).unwrap() {
        let mut reader = Reader::open(&path).unwrap();
        let mut known = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            match record {
                Record::Schema(id, _) => known.push(id.0),
                Record::Row(row) => {
                    assert!(row.schema == 0 || known.contains(&row.schema), "{row:?}");
                    rows.push(row);
                }
                Record::Feedback(_) => {}
            }
        }
    }
    rows
}

/// Every byte of every segment.
pub(crate) fn bytes(path: &Path) -> Vec<u8> {
    let segments = segment::list(&path.join("segments")).unwrap();
    segments.iter().flat_map(|(_, path)| std::fs::read(path).unwrap()).collect()
}

impl PredictionLog {
    /// As a reload does.
    pub(crate) fn reload(&self, lines: &str) {
        self.apply(Settings::new(&terms(self.path(), lines)).unwrap());
    }
}
