//! A segment as batches, without Parquet in between.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::RecordBatch;

use super::{Query, ReadError, labelled};
use crate::columns::{Batch, Columns, Fitted};
use crate::convert::{Options, Partition};
use crate::segment::{Reader, Record};
use crate::{Row, Schema};

/// Batches that are gathered at a time.
const OPEN: usize = 32;

/// Model, version and schema.
type Key = (String, String, u64);

pub(super) struct SegmentScan {
    path: PathBuf,
    reader: Reader,
    schemas: HashMap<u64, Arc<Columns>>,
    open: HashMap<Key, Batch>,
    ready: VecDeque<RecordBatch>,
    has_ended: bool,
    /// Whether what cannot be read of it was told.
    is_told: bool,
}

impl std::fmt::Debug for SegmentScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentScan").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SegmentScan {
    pub(super) fn new(path: PathBuf, reader: Reader) -> Self {
        Self {
            path,
            reader,
            schemas: HashMap::new(),
            open: HashMap::new(),
            ready: VecDeque::new(),
            has_ended: false,
            is_told: false,
        }
    }

    pub(super) fn next(&mut self, query: &Query) -> Result<Option<RecordBatch>, ReadError> {
        while self.ready.is_empty() && !self.has_ended {
            match self.reader.next().map_err(ReadError::io(&self.path))? {
                Some(Record::Schema(id, schema)) => {
                    let limit = Options::default().columns_limit;
                    let columns = || Arc::new(Columns::new(&schema, limit));
                    self.schemas.entry(id.0).or_insert_with(columns);
                }
                Some(Record::Row(row)) => self.row(&row, query)?,
                Some(Record::Feedback(_)) => {}
                None => {
                    self.has_ended = true;
                    let mut keys: Vec<Key> = self.open.keys().cloned().collect();
                    keys.sort_unstable();
                    keys.iter().try_for_each(|key| self.hand_over(key))?;
                }
            }
        }
        if self.ready.is_empty() && !self.is_told {
            self.is_told = true;
            // Behind all that could be read of it.
            if let Some(first) = self.reader.damage() {
                let (path, gaps) = (self.path.clone(), self.reader.gaps().len());
                return Err(ReadError::Damaged { path, gaps, first });
            }
        }
        Ok(self.ready.pop_front())
    }

    fn row(&mut self, row: &Row, query: &Query) -> Result<(), ReadError> {
        let Partition { model, version, .. } = Partition::of(row);
        if !query.takes_time(row.arrived_us) || !query.takes(&model, &version) {
            return Ok(());
        }
        let key = (model, version, row.schema);
        if !self.open.contains_key(&key) {
            if self.open.len() >= OPEN {
                let first = self.open.keys().min().cloned();
                first.iter().try_for_each(|key| self.hand_over(key))?;
            }
            let none = || Arc::new(Columns::new(&Schema::default(), 0));
            let columns = self.schemas.get(&row.schema).cloned().unwrap_or_else(none);
            self.open.insert(key.clone(), Batch::new(columns));
        }
        let Some(batch) = self.open.get_mut(&key) else { return Ok(()) };
        let fitted = Fitted::new(batch.columns(), row);
        if !fitted.is_served_by(batch.extras(), row) {
            let mut extras = batch.extras().clone();
            fitted.extras(row, &mut extras);
            batch.add(extras);
        }
        let mut line = 0;
        while line < fitted.lines {
            let end = fitted.lines.min(line + batch.room(&fitted, row));
            batch.push(row, &fitted, line..end);
            line = end;
            if batch.is_full() {
                self.ready.push_back(labelled(&batch.take()?, &key.0, &key.1)?);
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, key: &Key) -> Result<(), ReadError> {
        if let Some(mut batch) = self.open.remove(key).filter(|batch| !batch.is_empty()) {
            self.ready.push_back(labelled(&batch.take()?, &key.0, &key.1)?);
        }
        Ok(())
    }
}
