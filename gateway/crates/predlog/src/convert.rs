//! Segments become Parquet files, by model, version, hour and schema.
//!
//! Names of files follow from the segment alone, and a file has its name only once it is whole
//! and on disk: a segment that is converted again, after a crash for one, gives the same files.
//! Memory is bounded: few files are written at a time, and where a segment has rows for more, it
//! is read again for the others.

mod feedback;
mod file;
mod partition;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::ArrowError;
use parquet::errors::ParquetError;

pub(crate) use file::{COVERED, CRC, SCHEMA};
pub use partition::Partition;
pub(crate) use partition::{date_folder, day, parse_date};

use crate::columns::{Batch, Columns, Fitted};
use crate::segment::{Damage, Reader, Record, sync_folder};
use crate::{Row, Schema};
use feedback::FeedbackFiles;
use file::{Facts, File, Saved};

/// How segments are converted.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose segments they are; see [`Folder::instance`](crate::Folder::instance).
    pub instance: u32,
    /// Bytes that a row group may take in memory.
    pub row_group_bytes: usize,
    /// Scalars of a tensor up to which each has a column of its own.
    pub columns_limit: usize,
    /// Of zstd.
    pub level: i32,
    /// Files that are written at a time.
    pub open_files: usize,
    /// Bytes that the row groups of all of them may take together.
    pub memory: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instance: 0,
            row_group_bytes: 16 << 20,
            columns_limit: 256,
            level: 1,
            open_files: 16,
            memory: 64 << 20,
        }
    }
}

/// What became of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    pub files: Vec<Written>,
    /// Files of feedback.
    pub feedback_files: Vec<PathBuf>,
    /// Calls. Those of several items have several lines.
    pub rows: u64,
    /// Feedback, told again or not.
    pub feedback: u64,
    /// What of the segment could not be read.
    pub gaps: Vec<Damage>,
    /// Records of kinds that only a later version knows: they are in no file.
    pub unknown: u64,
}

/// A file that is safe on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub partition: Partition,
    pub path: PathBuf,
    /// Lines: one for each item.
    pub rows: u64,
    pub bytes: u64,
}

/// Why a segment could not be converted. It may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Parquet { path: PathBuf, source: ParquetError },
    #[error("columns do not fit together: {0}")]
    Columns(#[from] ArrowError),
}

impl ConvertError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Records of a segment, to be read more than once.
pub(crate) trait Records {
    fn next(&mut self) -> io::Result<Option<Record>>;
    /// After the end: what could not be read, and how many records mean nothing here.
    fn left(&self) -> (Vec<Damage>, u64);
}

impl Records for Reader {
    fn next(&mut self) -> io::Result<Option<Record>> {
        Self::next(self)
    }

    fn left(&self) -> (Vec<Damage>, u64) {
        (self.gaps().to_vec(), self.unknown())
    }
}

/// Writes what a segment holds to the folders `files` and `feedback` of a log, and removes there
/// what an earlier conversion of it left. What is returned is safe on disk.
///
/// # Errors
///
/// What the file system gives; damage of the segment is no error.
pub fn convert(segment: &Path, log: &Path, options: &Options) -> Result<Converted, ConvertError> {
    let number = segment.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
    let number: u64 = number.ok_or_else(|| {
        let error = io::Error::new(ErrorKind::InvalidInput, "the name of a segment is a number");
        ConvertError::io(segment)(error)
    })?;
    let (files, feedback) = (log.join("files"), log.join("feedback"));
    let tag = Reader::open(segment).map_err(ConvertError::io(segment))?.tag();
    let stem = format!("{}{tag:08x}-", stem(options.instance, number));
    let conversion = Conversion { stem, files, feedback, options };
    conversion.run(segment, || Reader::open(segment))
}

/// What all files of a segment are called first.
pub(crate) fn stem(instance: u32, number: u64) -> String {
    format!("{instance:08x}-{number:08}-")
}

struct Conversion<'a> {
    /// What all its files are called first.
    stem: String,
    files: PathBuf,
    feedback: PathBuf,
    options: &'a Options,
}

impl Conversion<'_> {
    fn run<R: Records>(
        &self,
        segment: &Path,
        mut open: impl FnMut() -> io::Result<R>,
    ) -> Result<Converted, ConvertError> {
        let mut converted = Converted::default();
        let mut done = HashSet::new();
        let mut feedback = FeedbackFiles::new(self);
        loop {
            let mut records = open().map_err(ConvertError::io(segment))?;
            let mut pass = Pass::new(self, &done);
            let is_first = done.is_empty();
            let mut rows = 0;
            while let Some(record) = records.next().map_err(ConvertError::io(segment))? {
                match record {
                    Record::Schema(id, schema) => pass.schema(id.0, schema),
                    Record::Row(row) => {
                        rows += 1;
                        pass.row(&row)?;
                    }
                    Record::Feedback(told) if is_first => feedback.push(told)?,
                    Record::Feedback(_) => {}
                }
            }
            converted.rows = rows;
            (converted.gaps, converted.unknown) = records.left();
            let is_last = !pass.has_more;
            done.extend(pass.finish(&mut converted.files)?);
            if is_last {
                break;
            }
        }
        (converted.feedback_files, converted.feedback) = feedback.finish()?;
        self.settle(&self.files, converted.files.iter().map(|file| file.path.as_path()))?;
        self.settle(&self.feedback, converted.feedback_files.iter().map(PathBuf::as_path))?;
        Ok(converted)
    }

    /// Removes what an earlier conversion left under other names, and makes folders safe.
    fn settle<'f>(
        &self,
        root: &Path,
        files: impl Iterator<Item = &'f Path>,
    ) -> Result<(), ConvertError> {
        let kept: HashSet<&Path> = files.collect();
        let folders: BTreeSet<&Path> = kept.iter().filter_map(|path| path.parent()).collect();
        let mut changed = BTreeSet::new();
        for folder in folders {
            for entry in fs::read_dir(folder).map_err(ConvertError::io(folder))? {
                let path = entry.map_err(ConvertError::io(folder))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let is_ours = name.trim_start_matches('.').starts_with(&self.stem);
                if is_ours && !kept.contains(path.as_path()) {
                    fs::remove_file(&path).map_err(ConvertError::io(&path))?;
                }
            }
            changed.extend(folder.ancestors().take_while(|path| path.starts_with(root)));
        }
        changed.into_iter().try_for_each(|path| sync_folder(path).map_err(ConvertError::io(path)))
    }
}

/// Which files a row belongs to.
type Key = (Partition, u64);

/// One reading of a segment, for as many partitions as may be open.
struct Pass<'a> {
    conversion: &'a Conversion<'a>,
    done: &'a HashSet<Key>,
    schemas: HashMap<u64, (Arc<Columns>, Arc<Schema>)>,
    open: HashMap<Key, Files>,
    written: Vec<Written>,
    memory: usize,
    has_more: bool,
}

/// The files of a partition and schema: as many as there are sets of columns.
struct Files {
    facts: Facts,
    batch: Batch,
    file: Option<File>,
    parts: u32,
    /// Bytes that its row group takes, and as many as the pass has counted.
    memory: usize,
    counted: usize,
}

impl<'a> Pass<'a> {
    fn new(conversion: &'a Conversion<'a>, done: &'a HashSet<Key>) -> Self {
        Self {
            conversion,
            done,
            schemas: HashMap::new(),
            open: HashMap::new(),
            written: vec![],
            memory: 0,
            has_more: false,
        }
    }

    fn schema(&mut self, id: u64, schema: Schema) {
        let limit = self.conversion.options.columns_limit;
        self.schemas
            .entry(id)
            .or_insert_with(|| (Arc::new(Columns::new(&schema, limit)), Arc::new(schema)));
    }

    fn row(&mut self, row: &Row) -> Result<(), ConvertError> {
        let key = (Partition::of(row), row.schema);
        let options = self.conversion.options;
        if !self.open.contains_key(&key) {
            if self.done.contains(&key) {
                return Ok(());
            }
            if self.open.len() >= options.open_files.max(1) {
                self.has_more = true;
                return Ok(());
            }
            self.begin(key.clone());
        }
        let Some(files) = self.open.get_mut(&key) else { return Ok(()) };
        let fitted = Fitted::new(files.batch.columns(), row);
        if let Some(written) = files.make_room_for(&fitted, row, self.conversion)? {
            self.written.push(written);
        }
        let mut line = 0;
        while line < fitted.lines {
            let end = fitted.lines.min(line + files.batch.room(&fitted, row));
            files.batch.push(row, &fitted, line..end);
            line = end;
            if files.batch.is_full() {
                files.flush(self.conversion)?;
            }
        }
        self.memory -= files.counted;
        files.counted = files.memory;
        self.memory += files.counted;
        self.bound(options.memory)
    }

    fn begin(&mut self, key: Key) {
        let id = key.1;
        let (columns, schema) = self.schemas.get(&id).cloned().unwrap_or_else(|| {
            // Its record is damaged, or the call never came to a version.
            let schema = Schema::default();
            (Arc::new(Columns::new(&schema, 0)), Arc::new(schema))
        });
        let facts = Facts { partition: key.0.clone(), schema_id: id, schema };
        let files = Files {
            facts,
            batch: Batch::new(columns),
            file: None,
            parts: 0,
            memory: 0,
            counted: 0,
        };
        self.open.insert(key, files);
    }

    /// Ends row groups, the largest first, until all take no more than this together.
    fn bound(&mut self, limit: usize) -> Result<(), ConvertError> {
        while self.memory > limit {
            let Some(largest) = self.open.values_mut().max_by_key(|files| files.counted) else {
                break;
            };
            if let Some(file) = &mut largest.file {
                file.end_row_group()?;
            }
            self.memory -= std::mem::take(&mut largest.counted);
            largest.memory = 0;
        }
        Ok(())
    }

    fn finish(mut self, files: &mut Vec<Written>) -> Result<Vec<Key>, ConvertError> {
        // By name, so that what is returned follows from the segment too.
        let open: BTreeMap<Key, Files> = self.open.drain().collect();
        let mut keys = Vec::with_capacity(open.len());
        for (key, mut open) in open {
            self.written.extend(open.end(self.conversion)?);
            keys.push(key);
        }
        files.append(&mut self.written);
        Ok(keys)
    }
}

impl Files {
    /// Sees to it that the batch has all columns that a row needs. Where lines are in a file
    /// already, another file begins.
    fn make_room_for(
        &mut self,
        fitted: &Fitted<'_>,
        row: &Row,
        conversion: &Conversion<'_>,
    ) -> Result<Option<Written>, ConvertError> {
        if fitted.is_served_by(self.batch.extras(), row) {
            return Ok(None);
        }
        let written = if self.file.is_some() { self.end(conversion)? } else { None };
        let mut extras = self.batch.extras().clone();
        fitted.extras(row, &mut extras);
        self.batch.add(extras);
        Ok(written)
    }

    fn flush(&mut self, conversion: &Conversion<'_>) -> Result<(), ConvertError> {
        let batch = self.batch.take()?;
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                self.parts += 1;
                let stem = &conversion.stem;
                let part = if self.parts == 1 { String::new() } else { format!("-{}", self.parts) };
                let name = format!("{stem}{:016x}{part}.parquet", self.facts.schema_id);
                let folder = conversion.files.join(self.facts.partition.folder());
                let file = File::create(
                    &folder.join(name),
                    &batch.schema(),
                    self.facts.entries(),
                    conversion.options,
                )?;
                none.insert(file)
            }
        };
        file.write(&batch)?;
        // Asking all columns takes longer than adding a row.
        self.memory = file.memory();
        Ok(())
    }

    fn end(&mut self, conversion: &Conversion<'_>) -> Result<Option<Written>, ConvertError> {
        if !self.batch.is_empty() {
            self.flush(conversion)?;
        }
        self.memory = 0;
        let Some(file) = self.file.take() else { return Ok(None) };
        let Saved { path, rows, bytes } = file.finish()?;
        Ok(Some(Written { partition: self.facts.partition.clone(), path, rows, bytes }))
    }
}

#[cfg(test)]
mod tests;
