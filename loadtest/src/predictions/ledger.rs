//! Which predictions a log has, and how often.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, RecordBatch};
use predlog::{Query, scan, verify};
use tokio::time::Instant;

/// The id of a prediction.
pub(super) type Prediction = u128;

/// An id as answers and logs write it.
pub(super) fn parse(text: &str) -> Option<Prediction> {
    u128::from_str_radix(&text.replace('-', ""), 16).ok().filter(|_| text.len() == 36)
}

/// Rows of a prediction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rows {
    /// That say it was answered.
    answered: u32,
    /// That are no later word on an earlier row.
    first: u32,
}

/// All rows of a log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rows: HashMap<Prediction, Rows>,
    pub(super) total: u64,
}

/// Answers held against a log.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// When the answers came that are not there.
    pub(super) missing: Vec<Instant>,
    /// Answers that are there more than once.
    pub(super) doubled: u64,
}

impl Ledger {
    /// Reads files and segments of a log, also while a gateway works on them. Calls that arrived
    /// before are left out.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn read(log: &Path, from_us: Option<i64>) -> anyhow::Result<Self> {
        let columns = ["prediction_id", "item", "status", "amends"].map(str::to_owned).to_vec();
        let query = Query { from_us, columns, ..Query::default() };
        let mut ledger = Self::default();
        for batch in scan(log, query)? {
            ledger.add(&batch?).context("a batch of the log")?;
        }
        Ok(ledger)
    }

    fn add(&mut self, batch: &RecordBatch) -> Option<()> {
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
        let (ids, statuses) = (text("prediction_id")?, text("status")?);
        let items = batch.column_by_name("item")?.as_primitive_opt::<Int32Type>()?;
        let amends = batch.column_by_name("amends").and_then(|column| column.as_boolean_opt());
        for line in (0..batch.num_rows()).filter(|line| items.value(*line) == 0) {
            let rows = self.rows.entry(parse(ids.value(line))?).or_default();
            let later = amends.is_some_and(|amends| amends.is_valid(line) && amends.value(line));
            rows.answered += u32::from(!later && statuses.value(line) == "answered");
            rows.first += u32::from(!later);
            self.total += u64::from(!later);
        }
        Some(())
    }

    /// Looks for answers.
    pub(super) fn audit(&self, answered: &[(Prediction, Instant)]) -> Audit {
        let mut audit = Audit::default();
        for (id, at) in answered {
            match self.rows.get(id).map_or(0, |rows| rows.answered) {
                0 => audit.missing.push(*at),
                1 => {}
                _ => audit.doubled += 1,
            }
        }
        audit
    }

    /// Predictions with more than one row that is no later word, answered or not.
    pub(super) fn doubled(&self) -> usize {
        self.rows.values().filter(|rows| rows.first > 1).count()
    }
}

/// What is damaged in a log, in words.
///
/// # Errors
/// When its folders cannot be read.
pub(super) fn damage(log: &Path) -> anyhow::Result<Vec<String>> {
    let found = verify(log)?;
    let segments = found
        .segments
        .iter()
        .filter(|segment| segment.problem.is_some() || !segment.gaps.is_empty());
    let files = found.files.iter().filter(|file| file.problem.is_some());
    let mut damage: Vec<String> = segments
        .map(|segment| {
            format!("{}: {:?} {:?}", segment.path.display(), segment.gaps, segment.problem)
        })
        .collect();
    damage.extend(files.map(|file| format!("{}: {:?}", file.path.display(), file.problem)));
    Ok(damage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use predlog::segment::{Kind, Writer, frame};
    use predlog::{RowRef, Status};

    #[test]
    fn answers_are_missing_found_or_doubled() {
        let log = tempfile::tempdir().unwrap();
        let segments = log.path().join("segments");
        std::fs::create_dir(&segments).unwrap();
        let mut writer = Writer::create(&segments, 1, 0, 7).unwrap();
        let mut put = |id: u8, status: Status, amends: bool| {
            let mut bytes = Vec::new();
            let row = RowRef {
                prediction: [id; 16],
                status: status as i32,
                amends,
                items: 1,
                ..RowRef::default()
            };
            assert!(frame(Kind::Row, &mut bytes, |out| row.encode(out)));
            writer.append(&mut bytes).unwrap();
        };
        put(1, Status::Answered, false);
        put(2, Status::Answered, false);
        put(2, Status::Answered, false);
        put(3, Status::Refused, false);
        put(4, Status::Answered, false);
        put(4, Status::Cancelled, true);
        writer.close().unwrap();
        let ledger = Ledger::read(log.path(), None).unwrap();
        let now = Instant::now();
        let id = |byte: u8| (u128::from_be_bytes([byte; 16]), now);
        let audit = ledger.audit(&[id(1), id(2), id(3), id(4), id(5)]);
        assert_eq!((audit.missing.len(), audit.doubled), (2, 1));
        assert_eq!((ledger.total, ledger.doubled()), (5, 1));
        assert_eq!(damage(log.path()).unwrap(), [""; 0]);
    }
}
