//! What is wrong with a log, and what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use crate::convert::Partition;
use crate::feedback;
use crate::folder::noted;
use crate::read::{ReadError, files, footer, guarded, held, instance, segment_of, summed};
use crate::segment::{self, Damage, Reader, Record};

/// What was found out about a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    pub segments: Vec<SegmentCheck>,
    pub files: Vec<FileCheck>,
    pub feedback: Vec<FeedbackCheck>,
    /// Numbers of segments, up to the last one that the log used, of which neither the segment is
    /// here nor a file of it: they had no rows, were delivered or removed, or are lost.
    pub missing: Vec<RangeInclusive<u64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentCheck {
    pub number: u64,
    pub path: PathBuf,
    /// Calls that can be read.
    pub rows: u64,
    /// Feedback that can be read.
    pub feedback: u64,
    /// Whether it was put aside for its damage: its calls are in files.
    pub is_aside: bool,
    /// What cannot be read.
    pub gaps: Vec<Damage>,
    /// Why the rest could not be read, where the file system or the format kept us from it.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCheck {
    pub partition: Partition,
    pub path: PathBuf,
    /// Lines.
    pub rows: u64,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// A file of feedback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedbackCheck {
    pub path: PathBuf,
    /// Lines.
    pub rows: u64,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl Verification {
    /// Whether all that is here can be read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.segments.iter().all(|segment| segment.gaps.is_empty() && segment.problem.is_none())
            && self.files.iter().all(|file| file.problem.is_none())
            && self.feedback.iter().all(|file| file.problem.is_none())
    }
}

/// Reads all of a log: every record of every segment, every page of every file.
///
/// # Errors
///
/// What listing its folders gives.
pub fn verify(log: &Path) -> Result<Verification, ReadError> {
    // Before the segments: what a live gateway begins from now on is no gap.
    let noted = noted(&log.join("instance")).map_err(ReadError::io(log))?;
    let last = noted.map_or(0, |(_, last)| last);
    let held = held(log).map_err(ReadError::io(log))?;
    let aside = match segment::list_aside(&log.join("segments")) {
        Err(error) if error.kind() == ErrorKind::NotFound => vec![],
        listed => listed.map_err(ReadError::io(log))?,
    };
    let files = files(log).map_err(ReadError::io(log))?;
    let feedback = feedback::files(log).map_err(ReadError::io(log))?;
    let own = instance(log).map_err(ReadError::io(log))?.unwrap_or(0);
    let mut numbers: BTreeSet<u64> = held.iter().chain(&aside).map(|(number, _)| *number).collect();
    let paths = files.iter().map(|(_, path)| path).chain(feedback.iter().map(|(_, path)| path));
    numbers.extend(paths.filter_map(|path| segment_of(path, own)));
    let mut verification = Verification {
        segments: held
            .into_iter()
            .map(|(number, path)| (number, path, false))
            .chain(aside.into_iter().map(|(number, path)| (number, path, true)))
            .filter_map(|(number, path, is_aside)| check_segment(number, path, is_aside))
            .collect(),
        files: files.into_iter().filter_map(|(partition, path)| file(partition, path)).collect(),
        feedback: feedback.into_iter().filter_map(|(_, path)| feedback_file(path)).collect(),
        missing: vec![],
    };
    // A number is noted before its segment begins, which it may have done since.
    if !numbers.contains(&last) && is_here(log, own, last).map_err(ReadError::io(log))? {
        numbers.insert(last);
    }
    verification.missing = missing(&numbers, last);
    Ok(verification)
}

/// Whether a segment is here, or a file of it.
fn is_here(log: &Path, own: u32, number: u64) -> io::Result<bool> {
    let is_of = |path: &PathBuf| segment_of(path, own) == Some(number);
    Ok(held(log)?.iter().any(|(other, _)| *other == number)
        || files(log)?.iter().any(|(_, path)| is_of(path))
        || feedback::files(log)?.iter().any(|(_, path)| is_of(path)))
}

/// The numbers from 1 on that are not there, up to `last` or the highest that is.
fn missing(numbers: &BTreeSet<u64>, last: u64) -> Vec<RangeInclusive<u64>> {
    let mut missing = vec![];
    let mut next = 1;
    for number in numbers {
        if next < *number {
            missing.push(next..=number - 1);
        }
        next = number.saturating_add(1);
    }
    if next <= last {
        missing.push(next..=last);
    }
    missing
}

/// `None`: it was converted and removed meanwhile.
fn check_segment(number: u64, path: PathBuf, is_aside: bool) -> Option<SegmentCheck> {
    let mut check =
        SegmentCheck { number, path, rows: 0, feedback: 0, is_aside, gaps: vec![], problem: None };
    let read = |check: &mut SegmentCheck| -> io::Result<()> {
        let mut reader = Reader::open(&check.path)?;
        while let Some(record) = reader.next()? {
            match record {
                Record::Row(_) => check.rows += 1,
                Record::Feedback(_) => check.feedback += 1,
                Record::Schema(..) => {}
            }
        }
        check.gaps = reader.gaps().to_vec();
        if reader.unknown() > 0 {
            check.problem = Some(format!("{} records are of a later version", reader.unknown()));
        }
        Ok(())
    };
    match read(&mut check) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => check.problem = Some(error.to_string()),
    }
    Some(check)
}

/// `None`: its time was over meanwhile.
fn file(partition: Partition, path: PathBuf) -> Option<FileCheck> {
    let (rows, problem) = whole(&path)?;
    Some(FileCheck { partition, path, rows, problem })
}

/// `None`: its time was over meanwhile.
fn feedback_file(path: PathBuf) -> Option<FeedbackCheck> {
    let (rows, problem) = whole(&path)?;
    Some(FeedbackCheck { path, rows, problem })
}

/// The lines of a file, and what is wrong with it; `None`: it is gone.
fn whole(path: &Path) -> Option<(u64, Option<String>)> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some((0, Some(error.to_string()))),
        Ok(file) => Some(match read(&file) {
            Ok(rows) => (rows, None),
            Err(problem) => (0, Some(problem)),
        }),
    }
}

/// Reads a whole file; gives its lines or what is wrong.
fn read(file: &File) -> Result<u64, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let metadata = footer(file).map_err(|error| format!("its footer cannot be read: {error}"))?;
    summed(file, metadata.metadata())?;
    let expected = metadata.metadata().file_metadata().num_rows().unsigned_abs();
    let file = file.try_clone().map_err(|error| text(&error))?;
    let pages = || {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        let mut rows = 0;
        for batch in builder.build()? {
            rows += batch?.num_rows() as u64;
        }
        Ok(rows)
    };
    let rows = guarded(pages).map_err(|error| text(&error))?;
    if rows == expected {
        Ok(rows)
    } else {
        Err(format!("it has {rows} lines and says it has {expected}"))
    }
}

/// What a partition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    pub partition: Partition,
    pub files: u64,
    /// Lines.
    pub rows: u64,
    pub bytes: u64,
    /// When the first and the last of its calls arrived. Microseconds since 1970, UTC.
    pub first_us: i64,
    pub last_us: i64,
    /// Files that cannot be read, of which nothing else here knows; [`verify`] names them.
    pub unreadable: u64,
}

/// What the files of a log hold, the oldest hour first, by their metadata alone. Segments that
/// are not converted yet are not in it; see [`waiting`].
///
/// # Errors
///
/// What reading gives.
pub fn stats(log: &Path) -> Result<Vec<Stats>, ReadError> {
    let mut stats: BTreeMap<(i64, String, String), Stats> = BTreeMap::new();
    for (partition, path) in files(log).map_err(ReadError::io(log))? {
        let opened = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened,
        };
        let read = opened.ok().and_then(|file| Some((file.metadata().ok()?, footer(&file).ok()?)));
        let key = (partition.hour, partition.model.clone(), partition.version.clone());
        let of = stats.entry(key).or_insert_with(|| Stats {
            partition,
            files: 0,
            rows: 0,
            bytes: 0,
            first_us: i64::MAX,
            last_us: i64::MIN,
            unreadable: 0,
        });
        let Some((about, metadata)) = read else {
            of.unreadable += 1;
            continue;
        };
        of.files += 1;
        of.bytes += about.len();
        of.rows += metadata.metadata().file_metadata().num_rows().unsigned_abs();
        for (first, last) in times(metadata.metadata()) {
            of.first_us = of.first_us.min(first);
            of.last_us = of.last_us.max(last);
        }
    }
    let mut stats: Vec<Stats> = stats.into_values().collect();
    // Of some nothing is known but the hour.
    for of in stats.iter_mut().filter(|of| of.first_us > of.last_us) {
        (of.first_us, of.last_us) = (of.partition.start_us(), of.partition.end_us() - 1);
    }
    Ok(stats)
}

/// The first and last arrival of each row group.
fn times(metadata: &ParquetMetaData) -> impl Iterator<Item = (i64, i64)> {
    metadata.row_groups().iter().filter_map(|group| {
        let mut columns = group.columns().iter();
        let arrived = columns.find(|column| column.column_path().string() == "arrived")?;
        match arrived.statistics()? {
            Statistics::Int64(times) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    })
}

/// How many files of feedback a log has, their lines and their bytes, by their metadata alone.
///
/// # Errors
///
/// What reading gives.
pub fn feedback_stats(log: &Path) -> Result<(u64, u64, u64), ReadError> {
    let mut all = (0, 0, 0);
    for (_, path) in feedback::files(log).map_err(ReadError::io(log))? {
        let opened = File::open(&path).ok();
        let read = opened.and_then(|file| Some((file.metadata().ok()?, footer(&file).ok()?)));
        // What cannot be read is named by `verify`.
        let Some((about, metadata)) = read else { continue };
        all.0 += 1;
        all.1 += metadata.metadata().file_metadata().num_rows().unsigned_abs();
        all.2 += about.len();
    }
    Ok(all)
}

/// Segments that are not converted yet, the one that is being written too: how many, and their
/// bytes.
///
/// # Errors
///
/// What reading the folder gives.
pub fn waiting(log: &Path) -> Result<(u64, u64), ReadError> {
    let mut waiting = (0, 0);
    for (_, path) in held(log).map_err(ReadError::io(log))? {
        match path.metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            metadata => {
                waiting.0 += 1;
                waiting.1 += metadata.map_err(ReadError::io(&path))?.len();
            }
        }
    }
    Ok(waiting)
}

#[cfg(test)]
mod tests;
