//! The calls of one Parquet file and of one segment.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::line::Heads;
use super::values::{Cells, Gathered};
use super::{Missing, Recorded, Why, missing};
use crate::columns::{Columns, Fitted, Layout};
use crate::convert::{Options, Partition, SCHEMA};
use crate::read::{Query, ReadError, footer, guarded, next_batch};
use crate::segment::{Damage, Reader, Record};
use crate::{Row, Schema, State, Status};

/// About what a batch may take in memory, in bytes.
const BATCH: u64 = 8 << 20;
/// Lines of a batch.
const LINES: u64 = 4096;

/// When the first call of a file arrived, as far as the file says so.
pub(super) fn first_arrival(path: &Path) -> Result<Option<i64>, ReadError> {
    let file = File::open(path).map_err(ReadError::io(path))?;
    let metadata = footer(&file).map_err(ReadError::parquet(path))?;
    let first = metadata.metadata().row_groups().iter().filter_map(|group| {
        let column = group.columns().iter().find(|of| of.column_path().string() == "arrived")?;
        match column.statistics()? {
            Statistics::Int64(of) => of.min_opt().copied(),
            _ => None,
        }
    });
    Ok(first.min())
}

/// Reads the calls of a file, which has the lines of each one behind the other.
pub(super) struct FileCalls {
    path: PathBuf,
    partition: Partition,
    reader: ParquetRecordBatchReader,
    schema: Option<Arc<Schema>>,
    columns: Arc<Columns>,
    batch: Option<Lines>,
    call: Option<Call>,
}

/// A batch, and the line that is read next.
struct Lines {
    heads: Heads,
    cells: Vec<Cells>,
    next: usize,
    count: usize,
}

/// A call of which lines have been read.
struct Call {
    row: Row,
    prediction: String,
    left_out: String,
    tensors: Vec<Gathered>,
    lines: u32,
    /// The number of the item that its next line has.
    next_item: u32,
}

impl FileCalls {
    pub(super) fn open(
        path: &Path,
        partition: Partition,
        query: &Query,
    ) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(ReadError::io(path))?;
        let open = || -> Result<_, ParquetError> {
            let metadata = footer(&file)?;
            let schema = schema(metadata.metadata());
            let lines = lines(metadata.metadata());
            Ok((query.reader(file, lines)?, schema))
        };
        let (reader, schema) = guarded(open).map_err(ReadError::parquet(path))?;
        let limit = Options::default().columns_limit;
        let columns = match &schema {
            Some(schema) => Columns::new(schema, limit),
            None => Columns::new(&Schema::default(), 0),
        };
        let (path, columns) = (path.to_owned(), Arc::new(columns));
        let schema = schema.map(Arc::new);
        Ok(Self { path, partition, reader, schema, columns, batch: None, call: None })
    }

    /// The next call; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Recorded>, ReadError> {
        loop {
            let Some(lines) = self.batch.as_mut().filter(|lines| lines.next < lines.count) else {
                match next_batch(&mut self.reader, &self.path)? {
                    Some(batch) => self.batch = Some(Lines::new(&self.columns, &batch)?),
                    None => return Ok(self.call.take().map(|call| self.finish(call))),
                }
                continue;
            };
            let line = lines.next;
            if let Some(call) = self.call.take_if(|call| !call.goes_on(&lines.heads, line)) {
                return Ok(Some(self.finish(call)));
            }
            lines.next += 1;
            let call =
                self.call.get_or_insert_with(|| Call::new(&lines.heads, line, &self.columns));
            let tensors = self.columns.tensors.iter().zip(&lines.cells);
            for (gathered, (tensor, cells)) in call.tensors.iter_mut().zip(tensors) {
                gathered.add(tensor, cells, line)?;
            }
            call.lines += 1;
            call.next_item = lines.heads.item(line).saturating_add(1);
        }
    }

    fn finish(&self, call: Call) -> Recorded {
        let Call { mut row, left_out, mut tensors, lines, .. } = call;
        let missing = missing(&self.columns, &left_out);
        let ran = has_run(&row);
        let live = row.shadow.is_empty();
        for (tensor, gathered) in self.columns.tensors.iter().zip(&mut tensors) {
            let is_known = tensor.spec.scalars() == Some(0)
                && tensor.spec.datatype.parse::<engine::DataType>().is_ok();
            if tensor.layout == Layout::Nothing && is_known && ran && live {
                gathered.count_empty(u64::from(lines));
            }
            let (is_input, name) = (tensor.is_input(), &tensor.spec.name);
            let found = missing.iter().find(|of| of.is_input == is_input && of.tensor == *name);
            let state = match found.map(|of| of.why) {
                None => State::Whole,
                Some(Why::Redacted) => State::Redacted,
                Some(Why::LeftOut | Why::Unfit) => State::LeftOut,
            };
            let side = if is_input { &mut row.inputs } else { &mut row.outputs };
            side.extend(gathered.take(tensor, state));
        }
        let named = |text: &str| if text == "none" { String::new() } else { text.to_owned() };
        (row.model, row.version) = (named(&self.partition.model), named(&self.partition.version));
        let lost_items = if ran { row.items.max(1).saturating_sub(lines) } else { 0 };
        Recorded { row, schema: self.schema.clone(), missing, lost_items }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Lines {
    fn new(columns: &Columns, batch: &RecordBatch) -> Result<Self, ReadError> {
        let cells = columns.tensors.iter().map(|tensor| Cells::new(tensor, batch));
        Ok(Self {
            heads: Heads::new(batch),
            cells: cells.collect::<Result<_, _>>()?,
            next: 0,
            count: batch.num_rows(),
        })
    }
}

impl Call {
    fn new(heads: &Heads, line: usize, columns: &Columns) -> Self {
        Self {
            row: heads.row(line),
            prediction: heads.key(line).0.to_owned(),
            left_out: heads.left_out(line).to_owned(),
            tensors: columns.tensors.iter().map(|_| Gathered::default()).collect(),
            lines: 0,
            next_item: 0,
        }
    }

    /// Whether a line is its next one.
    fn goes_on(&self, heads: &Heads, line: usize) -> bool {
        let (prediction, shadow, amends) = heads.key(line);
        self.prediction == prediction
            && (shadow, amends) == (self.row.shadow.as_str(), self.row.amends)
            && heads.item(line) >= self.next_item
            && self.next_item > 0
    }
}

/// Whether the call came so far that each of its items has a line.
fn has_run(row: &Row) -> bool {
    matches!(row.status(), Status::Answered | Status::Replayed | Status::Failed)
}

fn schema(metadata: &ParquetMetaData) -> Option<Schema> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == SCHEMA)?.value.as_ref()?;
    Schema::from_json(text)
}

/// Lines that are read together: so many as take little memory.
fn lines(metadata: &ParquetMetaData) -> usize {
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let groups = metadata.row_groups();
    let bytes: u64 = groups.iter().map(|group| unsigned(group.total_byte_size())).sum();
    let rows: u64 = groups.iter().map(|group| unsigned(group.num_rows())).sum();
    let lines = BATCH / (bytes / rows.max(1)).max(1);
    usize::try_from(lines.clamp(16, LINES)).unwrap_or(16)
}

/// Reads the calls of a segment, which has each in one record.
pub(super) struct SegmentCalls {
    path: PathBuf,
    reader: Reader,
    schemas: HashMap<u64, (Arc<Columns>, Arc<Schema>)>,
}

impl SegmentCalls {
    pub(super) fn new(path: &Path, reader: Reader) -> Self {
        Self { path: path.to_owned(), reader, schemas: HashMap::new() }
    }

    pub(super) fn next(&mut self, query: &Query) -> io::Result<Option<Recorded>> {
        while let Some(record) = self.reader.next()? {
            match record {
                Record::Schema(id, schema) => {
                    let limit = Options::default().columns_limit;
                    let columns = Arc::new(Columns::new(&schema, limit));
                    self.schemas.entry(id.0).or_insert((columns, Arc::new(schema)));
                }
                Record::Row(row) => {
                    let Partition { model, version, .. } = Partition::of(&row);
                    if query.takes_time(row.arrived_us) && query.takes(&model, &version) {
                        return Ok(Some(self.call(row)));
                    }
                }
                Record::Feedback(_) => {}
            }
        }
        Ok(None)
    }

    fn call(&self, row: Row) -> Recorded {
        let known = self.schemas.get(&row.schema);
        let missing = match known {
            Some((columns, _)) => missing(columns, &Fitted::new(columns, &row).left_out),
            None => {
                let side = |values: &[crate::TensorValue], is_input: bool| -> Vec<Missing> {
                    let unfit = |value: &crate::TensorValue| Missing {
                        is_input,
                        tensor: value.name.clone(),
                        why: Why::Unfit,
                    };
                    values.iter().map(unfit).collect()
                };
                [side(&row.inputs, true), side(&row.outputs, false)].concat()
            }
        };
        let schema = known.map(|(_, schema)| schema.clone());
        Recorded { row, schema, missing, lost_items: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn gaps(&self) -> &[Damage] {
        self.reader.gaps()
    }
}
