//! Reading a log: its Parquet files and the segments that are not converted yet, as one.
//!
//! A segment counts instead of its files while it is there, so that each row comes once, also
//! while it is being converted. A live gateway may go on writing, converting and deleting.

mod files;
mod segments;
mod union;

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema as ArrowSchema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::errors::ParquetError;

pub use files::{files, instance};
pub(crate) use files::{footer, guarded, next_batch, segment_of, summed};

use crate::convert::Partition;
use crate::segment::{self, Damage, Reader};
use segments::SegmentScan;
use union::Union;
pub(crate) use union::{conform, printable, texts};

/// Lines of a batch that is read.
const LINES: usize = 4096;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Calls that arrived then or later. Microseconds since 1970, UTC.
    pub from_us: Option<i64>,
    /// Calls that arrived before.
    pub until_us: Option<i64>,
    /// What ran them; `none` for calls that came to no model.
    pub model: Option<String>,
    pub version: Option<String>,
    /// Columns, in this order; those that no row has are left out. Empty: all of them.
    pub columns: Vec<String>,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Parquet { path: PathBuf, source: ParquetError },
    #[error("{}: {gaps} parts of it cannot be read, first {first}", path.display())]
    Damaged { path: PathBuf, gaps: usize, first: Damage },
    #[error(transparent)]
    Columns(#[from] ArrowError),
    #[error("there is more feedback than {0}, which is what is held in memory: ask for less time")]
    TooMany(usize),
}

impl ReadError {
    /// Whether it is about one file or segment, and what is behind that comes all the same.
    pub(crate) fn is_partial(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Parquet { .. } | Self::Damaged { .. })
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn parquet(path: &Path) -> impl FnOnce(ParquetError) -> Self {
        |source| Self::Parquet { path: path.to_owned(), source }
    }
}

impl Query {
    pub(crate) fn takes(&self, model: &str, version: &str) -> bool {
        self.model.as_ref().is_none_or(|wanted| wanted == model)
            && self.version.as_ref().is_none_or(|wanted| wanted == version)
    }

    pub(crate) fn takes_time(&self, arrived_us: i64) -> bool {
        self.from_us.is_none_or(|from| from <= arrived_us)
            && self.until_us.is_none_or(|until| arrived_us < until)
    }

    pub(crate) fn takes_partition(&self, partition: &Partition) -> bool {
        self.takes(&partition.model, &partition.version)
            && self.until_us.is_none_or(|until| partition.start_us() < until)
            && self.from_us.is_none_or(|from| from < partition.end_us())
    }
}

/// Rows of a log as batches, which begin with the columns `model` and `version`. Batches of
/// different schemas have different columns. Those of files come first, the oldest hour before
/// others, and then those of segments. An error is about one file or segment: those behind it come
/// all the same.
#[derive(Debug)]
pub struct Scan {
    log: PathBuf,
    query: Query,
    instance: u32,
    files: VecDeque<(Partition, PathBuf)>,
    segments: VecDeque<(u64, PathBuf)>,
    current: Option<Current>,
}

#[derive(Debug)]
enum Current {
    File { reader: ParquetRecordBatchReader, partition: Partition, path: PathBuf },
    Segment(SegmentScan),
}

/// Begins to read a log.
///
/// # Errors
///
/// What listing its folders gives.
pub fn scan(log: &Path, query: Query) -> Result<Scan, ReadError> {
    let instance = instance(log).map_err(ReadError::io(log))?.unwrap_or(0);
    // Before the files: one that is converted in between is read as a segment.
    let segments = held(log).map_err(ReadError::io(log))?;
    let numbers: HashSet<u64> = segments.iter().map(|(number, _)| *number).collect();
    let mut files = files(log).map_err(ReadError::io(log))?;
    files.retain(|(partition, path)| {
        let segment = segment_of(path, instance);
        query.takes_partition(partition) && segment.is_none_or(|number| !numbers.contains(&number))
    });
    let (files, segments) = (files.into(), segments.into());
    Ok(Scan { log: log.to_owned(), query, instance, files, segments, current: None })
}

/// All segments, also the one that is being written.
pub(crate) fn held(log: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let folder = log.join("segments");
    let listed = segment::list_open(&folder).and_then(|mut held| {
        held.extend(segment::list(&folder)?);
        // One that was closed between the two is in both.
        held.sort_unstable();
        held.dedup_by_key(|(number, _)| *number);
        Ok(held)
    });
    match listed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(vec![]),
        listed => listed,
    }
}

impl Iterator for Scan {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let next = match &mut self.current {
                Some(Current::File { reader, partition, path }) => next_batch(reader, path)
                    .transpose()
                    .map(|batch| Ok(labelled(&batch?, &partition.model, &partition.version)?)),
                Some(Current::Segment(scan)) => scan.next(&self.query).transpose(),
                None => None,
            };
            match next {
                Some(Ok(batch)) => match self.query.project(batch) {
                    Ok(batch) if batch.num_columns() == 0 || batch.num_rows() == 0 => {}
                    projected => return Some(projected),
                },
                Some(Err(error)) => {
                    self.current = None;
                    return Some(Err(error));
                }
                None => match self.advance() {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}

impl Scan {
    /// The columns that its batches have together, for those who need them before the first one:
    /// files say theirs, segments are read. Where types differ, the column has one that takes
    /// both. What a live gateway begins to write meanwhile may have more columns. Where there is
    /// nothing in the time that was asked for, they are those of all times; where there is nothing
    /// at all, those about calls and those that were asked for.
    ///
    /// # Errors
    ///
    /// As those of reading.
    pub fn schema(&self) -> Result<ArrowSchema, ReadError> {
        let mut union = Union::default();
        // What cannot be read is told by who reads it.
        for (_, path) in &self.files {
            if let Some(footer) = File::open(path).ok().and_then(|file| footer(&file).ok()) {
                union.add(footer.schema());
            }
        }
        let segments = Self {
            log: self.log.clone(),
            query: Query { columns: vec![], ..self.query.clone() },
            instance: self.instance,
            files: VecDeque::new(),
            segments: self.segments.clone(),
            current: None,
        };
        for batch in segments.flatten() {
            union.add(&batch.schema());
        }
        if union.is_empty() {
            let Query { from_us, until_us, .. } = self.query;
            if from_us.is_some() || until_us.is_some() {
                let all_times = Query { from_us: None, until_us: None, ..self.query.clone() };
                return scan(&self.log, all_times)?.schema();
            }
            union.add_none(&self.query.columns);
        }
        Ok(union.finish(&self.query.columns))
    }

    /// Goes on to the next file or segment; false after the last.
    fn advance(&mut self) -> Result<bool, ReadError> {
        self.current = None;
        if let Some((partition, path)) = self.files.pop_front() {
            self.current = match File::open(&path) {
                // Its time was over.
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                file => {
                    let file = file.map_err(ReadError::io(&path))?;
                    let reader =
                        self.query.reader(file, LINES).map_err(ReadError::parquet(&path))?;
                    Some(Current::File { reader, partition, path })
                }
            };
            return Ok(true);
        }
        let Some((number, path)) = self.segments.pop_front() else { return Ok(false) };
        match Reader::open(&path) {
            Ok(reader) => self.current = Some(Current::Segment(SegmentScan::new(path, reader))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Converted and deleted since it was listed.
                let mut files = files(&self.log).map_err(ReadError::io(&self.log))?;
                files.retain(|(partition, path)| {
                    self.query.takes_partition(partition)
                        && segment_of(path, self.instance) == Some(number)
                });
                self.files = files.into();
            }
            Err(error) => return Err(ReadError::io(&path)(error)),
        }
        Ok(true)
    }
}

impl Query {
    /// Reads the wanted columns and lines of a file, so many lines at a time, once its checksum is
    /// what it was: pages have none that says that a value is not what was written.
    pub(crate) fn reader(
        &self,
        file: File,
        lines: usize,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        let metadata = footer(&file)?;
        summed(&file, metadata.metadata()).map_err(ParquetError::General)?;
        let fields = metadata.schema().fields();
        let roots = |wanted: &dyn Fn(&str) -> bool| {
            let indices = (0..fields.len()).filter(|index| wanted(fields[*index].name()));
            ProjectionMask::roots(metadata.parquet_schema(), indices)
        };
        let is_wanted =
            |name: &str| self.columns.is_empty() || self.columns.iter().any(|own| own == name);
        let mask = roots(&is_wanted);
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
                .with_batch_size(lines)
                .with_projection(mask);
        if self.from_us.is_some() || self.until_us.is_some() {
            let query = self.clone();
            let arrived = ArrowPredicateFn::new(
                roots(&|name| name == "arrived"),
                move |batch: RecordBatch| {
                    let times = batch.columns().first().and_then(|times| times.as_primitive_opt());
                    let times: &TimestampMicrosecondArray = times.ok_or_else(|| {
                        let text = "it has no times of arrival: it is no file of a log";
                        ArrowError::InvalidArgumentError(text.to_owned())
                    })?;
                    Ok(BooleanArray::from_unary(times, |time| query.takes_time(time)))
                },
            );
            builder = builder.with_row_filter(RowFilter::new(vec![Box::new(arrived)]));
        }
        guarded(|| builder.build())
    }

    /// The wanted columns, in the order in which they are wanted.
    fn project(&self, batch: RecordBatch) -> Result<RecordBatch, ReadError> {
        if self.columns.is_empty() {
            return Ok(batch);
        }
        let schema = batch.schema();
        let indices: Vec<usize> =
            self.columns.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        Ok(batch.project(&indices)?)
    }
}

/// The batch behind columns that say what ran its calls.
fn labelled(batch: &RecordBatch, model: &str, version: &str) -> Result<RecordBatch, ArrowError> {
    let repeated = |text: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, batch.num_rows())))
    };
    let mut fields = vec![
        Arc::new(Field::new("model", DataType::Utf8, true)),
        Arc::new(Field::new("version", DataType::Utf8, true)),
    ];
    fields.extend(batch.schema().fields().iter().cloned());
    let mut columns = vec![repeated(model), repeated(version)];
    columns.extend(batch.columns().iter().cloned());
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns)
}

#[cfg(test)]
mod tests;
