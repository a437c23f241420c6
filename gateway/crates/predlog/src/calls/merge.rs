//! Files and segments as one row of calls.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Recorded;
use super::file::{FileCalls, SegmentCalls, first_arrival};
use crate::convert::Partition;
use crate::read::{Query, ReadError, files, held, instance, segment_of};
use crate::segment::Reader;

/// Calls that are read ahead, and the bytes that they may take.
const AHEAD: usize = 16_384;
const AHEAD_BYTES: usize = 64 << 20;
/// About what a call takes beside its tensors.
const CALL: usize = 1024;

/// What there was to say of a log beside its calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that came once more, and were left out.
    pub repeats: u64,
    /// Calls that come behind later ones, because they took longer than is read ahead.
    pub late: u64,
    /// Files whose time was over before they were read.
    pub gone: u64,
    /// Parts of segments that cannot be read.
    pub gaps: u64,
}

/// Begins to read the calls of a log that a query takes; its columns mean nothing here. A live
/// gateway may go on writing, converting and deleting.
///
/// # Errors
///
/// What listing its folders gives.
pub fn calls(log: &Path, query: Query) -> Result<Calls, ReadError> {
    let instance = instance(log).map_err(ReadError::io(log))?.unwrap_or(0);
    // Before the files: one that is converted in between is read as a segment.
    let segments = held(log).map_err(ReadError::io(log))?;
    let numbers: HashSet<u64> = segments.iter().map(|(number, _)| *number).collect();
    let query = Query { columns: vec![], ..query };
    let mut calls = Calls {
        log: log.to_owned(),
        query,
        instance,
        sources: BinaryHeap::new(),
        ahead: BinaryHeap::new(),
        bytes: 0,
        made: 0,
        last: None,
        counts: Counts::default(),
    };
    for (number, path) in segments {
        calls.add(i64::MIN, State::Segment { number, path, is_known: false });
    }
    calls.add_files(|segment| segment.is_none_or(|number| !numbers.contains(&number)))?;
    Ok(calls)
}

/// Calls in the order of their arrival, each once. An error names a file that cannot be read; what
/// follows is what the others have.
pub struct Calls {
    log: PathBuf,
    query: Query,
    instance: u32,
    sources: BinaryHeap<Reverse<Source>>,
    ahead: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    /// Sources and calls so far, so that each is told from all others.
    made: u64,
    last: Option<Key>,
    counts: Counts,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("log", &self.log).finish_non_exhaustive()
    }
}

/// A file or segment, by how far it has been read.
struct Source {
    /// Nothing that is left of it arrived much before.
    mark: i64,
    number: u64,
    state: State,
}

enum State {
    File { partition: Partition, path: PathBuf, is_known: bool },
    Segment { number: u64, path: PathBuf, is_known: bool },
    OpenFile(Box<FileCalls>),
    OpenSegment(Box<SegmentCalls>),
}

/// What tells calls apart, in order.
type Key = (i64, Vec<u8>, String, bool);

/// A call that was read ahead.
struct Waiting {
    key: Key,
    number: u64,
    bytes: usize,
    call: Box<Recorded>,
}

impl Calls {
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn add(&mut self, mark: i64, state: State) {
        self.made += 1;
        self.sources.push(Reverse(Source { mark, number: self.made, state }));
    }

    /// Adds files by the segment that they are of.
    fn add_files(&mut self, takes: impl Fn(Option<u64>) -> bool) -> Result<(), ReadError> {
        for (partition, path) in files(&self.log).map_err(ReadError::io(&self.log))? {
            let segment = segment_of(&path, self.instance);
            if self.query.takes_partition(&partition) && takes(segment) {
                self.add(partition.start_us(), State::File { partition, path, is_known: false });
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ahead.len() >= AHEAD || self.bytes >= AHEAD_BYTES
    }

    /// Reads on in the source that is furthest behind.
    fn read(&mut self, source: Source) -> Result<(), ReadError> {
        let Source { mark, number: place, state } = source;
        let (mark, state) = match state {
            State::File { partition, path, is_known: false } => {
                // Few are open at a time: those in which the same time is.
                let Some(first) = self.unless_gone(first_arrival(&path))? else { return Ok(()) };
                let mark = first.unwrap_or(mark);
                (mark, State::File { partition, path, is_known: true })
            }
            State::File { partition, path, is_known: true } => {
                let opened = FileCalls::open(&path, partition, &self.query);
                let Some(file) = self.unless_gone(opened)? else { return Ok(()) };
                (mark, State::OpenFile(Box::new(file)))
            }
            State::Segment { number, path, is_known } => {
                let Some(reader) = self.segment(number, &path)? else { return Ok(()) };
                if is_known {
                    (mark, State::OpenSegment(Box::new(SegmentCalls::new(&path, reader))))
                } else {
                    let mark = reader.head().created_us;
                    (mark, State::Segment { number, path, is_known: true })
                }
            }
            State::OpenFile(mut file) => match file.next() {
                Ok(Some(call)) => (self.put(mark, call), State::OpenFile(file)),
                Ok(None) => return Ok(()),
                Err(ReadError::Columns(error)) => {
                    let text = parquet::errors::ParquetError::General(error.to_string());
                    return Err(ReadError::parquet(file.path())(text));
                }
                Err(error) => return Err(error),
            },
            State::OpenSegment(mut segment) => {
                let next = segment.next(&self.query).map_err(ReadError::io(segment.path()))?;
                let Some(call) = next else {
                    self.counts.gaps += segment.gaps().len() as u64;
                    return Ok(());
                };
                (self.put(mark, call), State::OpenSegment(segment))
            }
        };
        self.sources.push(Reverse(Source { mark, number: place, state }));
        Ok(())
    }

    /// Keeps a call until its turn; returns how far its source has come.
    fn put(&mut self, mark: i64, call: Recorded) -> i64 {
        let row = &call.row;
        let tensors = row.inputs.iter().chain(&row.outputs);
        let bytes = CALL + tensors.map(|tensor| tensor.data.len()).sum::<usize>();
        let arrived = row.arrived_us;
        let key = (arrived, row.prediction.to_vec(), row.shadow.clone(), row.amends);
        self.made += 1;
        self.bytes += bytes;
        let waiting = Waiting { key, number: self.made, bytes, call: Box::new(call) };
        self.ahead.push(Reverse(waiting));
        mark.max(arrived)
    }

    /// What was read of a file, unless its time was over.
    fn unless_gone<T>(&mut self, read: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
        match read {
            Err(ReadError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                self.counts.gone += 1;
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Opens a segment; one that was converted since it was listed has files in its place.
    fn segment(&mut self, number: u64, path: &Path) -> Result<Option<Reader>, ReadError> {
        match Reader::open(path) {
            Ok(reader) => Ok(Some(reader)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.add_files(|segment| segment == Some(number))?;
                Ok(None)
            }
            Err(error) => Err(ReadError::io(path)(error)),
        }
    }
}

impl Iterator for Calls {
    type Item = Result<Recorded, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while !self.is_full()
                && let Some(Reverse(source)) = self.sources.pop()
            {
                if let Err(error) = self.read(source) {
                    return Some(Err(error));
                }
            }
            let Reverse(Waiting { key, bytes, call, .. }) = self.ahead.pop()?;
            self.bytes -= bytes;
            if self.last.as_ref() == Some(&key) && !key.1.is_empty() {
                self.counts.repeats += 1;
                continue;
            }
            self.counts.late += u64::from(self.last.as_ref().is_some_and(|last| key.0 < last.0));
            self.last = Some(key);
            return Some(Ok(*call));
        }
    }
}

impl Ord for Source {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.mark, self.number).cmp(&(other.mark, other.number))
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Source {}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.key, self.number).cmp(&(&other.key, other.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}
