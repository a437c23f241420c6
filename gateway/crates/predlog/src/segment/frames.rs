//! The whole records of a file, and the gaps between them.

use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};

use bytes::Bytes;
use crc32fast::hash as crc32;

use super::frame::{END, End, HEAD, HEADER, Header, NoHead};
use super::{Damage, Head, Reason};

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;

/// Bytes that disks and file systems lose at once.
const BLOCK: u64 = 4096;
/// What is passed over at most where nothing can be read.
const LONGEST_STEP: u64 = 1 << 20;

/// What Linux says of bytes that it cannot read: `EIO`, `EBADMSG` and `EUCLEAN`, the last two for
/// checksums of file systems (`errno(3)`).
const UNREADABLE: [i32; 3] = [5, 74, 117];

/// Whether an error is about the bytes at a place, and not about the file.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| UNREADABLE.contains(&code))
}

/// Gaps that are told apart; the last one then grows over the ones that follow.
const GAPS: usize = 1024;

/// A record that is what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where it begins.
    pub(super) at: u64,
    pub(super) kind: u8,
    pub(super) payload: Bytes,
}

/// Reads the records of a file as long as it was when this was made.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: BufReader<R>,
    length: u64,
    at: u64,
    head: Option<Head>,
    key: Option<u64>,
    /// Where the last whole record ends.
    end: Option<u64>,
    has_ended: bool,
    gaps: Vec<Damage>,
}

impl<R: Read + Seek> Frames<R> {
    pub(super) fn new(mut input: R) -> io::Result<Self> {
        let length = input.seek(SeekFrom::End(0))?;
        input.rewind()?;
        let mut frames = Self {
            input: BufReader::with_capacity(BUFFER, input),
            length,
            at: 0,
            head: None,
            key: None,
            end: None,
            has_ended: false,
            gaps: Vec::new(),
        };
        frames.read_head()?;
        Ok(frames)
    }

    pub(super) fn head(&self) -> Option<Head> {
        self.head
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn key(&self) -> Option<u64> {
        self.key
    }

    /// Where the last whole record that was read ends, or the head; `None`: there is neither.
    pub(super) fn end(&self) -> Option<u64> {
        self.end
    }

    /// Whether the record was read with which a file is closed.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(super) fn gaps(&self) -> &[Damage] {
        &self.gaps
    }

    /// Notes that bytes cannot be read; what touches the gap before joins it.
    pub(super) fn gap(&mut self, offset: u64, length: u64, reason: Reason) {
        let is_full = self.gaps.len() == GAPS;
        match self.gaps.last_mut() {
            Some(last) if is_full || last.offset + last.length == offset => {
                last.length = offset + length - last.offset;
            }
            _ => self.gaps.push(Damage { offset, length, reason }),
        }
    }

    /// Takes back that the file ends inside a record, or its head: where it is being written that is
    /// no damage.
    pub(super) fn forgive_end(&mut self) {
        let length = self.length;
        self.gaps.pop_if(|gap| match gap.reason {
            Reason::Torn => gap.offset + gap.length == length,
            Reason::Head => length < HEAD as u64,
            _ => false,
        });
    }

    /// The next whole record; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        while self.at < self.length {
            let at = self.at;
            match self.whole()? {
                Ok((header, payload)) => {
                    self.at += (HEADER + header.length) as u64;
                    self.end = Some(self.at);
                    let end = End::of(header, &payload);
                    self.has_ended = end.is_some();
                    match end {
                        None => return Ok(Some(Frame { at, kind: header.kind, payload })),
                        Some(end) if end.at != at => self.gap(at, 0, Reason::Displaced),
                        Some(_) => {}
                    }
                }
                Err(reason) => {
                    let next = self.search(at + 1)?;
                    self.gap(at, next - at, reason);
                    self.go(next)?;
                }
            }
        }
        Ok(None)
    }

    fn read_head(&mut self) -> io::Result<()> {
        let mut bytes = [0; HEAD];
        let head = match self.fill(&mut bytes) {
            Ok(true) => Head::read(&bytes),
            Ok(false) => Err(NoHead::Damaged),
            Err(error) if is_unreadable(&error) => Err(NoHead::Damaged),
            Err(error) => return Err(error),
        };
        match head {
            Ok(head) => {
                self.head = Some(head);
                self.key = Some(head.key);
                self.end = Some(HEAD as u64);
            }
            Err(NoHead::Later(version)) => {
                let text = format!("the segment has format {version}, of a later version");
                return Err(io::Error::new(ErrorKind::Unsupported, text));
            }
            Err(NoHead::Damaged) => {
                self.gap(0, self.length.min(HEAD as u64), Reason::Head);
                self.key = self.key_of_end()?;
                if self.key.is_none() {
                    self.key = self.key_of_first(Head::key_in(&bytes))?;
                }
            }
        }
        self.go(self.length.min(HEAD as u64))
    }

    /// The key, as the last bytes of a closed file have it once more.
    fn key_of_end(&mut self) -> io::Result<Option<u64>> {
        let Some(at) = self.length.checked_sub(END as u64) else { return Ok(None) };
        self.go(at)?;
        let mut bytes = [0; END];
        match self.fill(&mut bytes) {
            Err(error) if is_unreadable(&error) => Ok(None),
            filled => {
                let end = if filled? { End::read(&bytes) } else { None };
                Ok(end.filter(|end| end.at == at).map(|end| end.key))
            }
        }
    }

    /// A key that may be the file's, if the record behind the head is sealed with it.
    fn key_of_first(&mut self, key: u64) -> io::Result<Option<u64>> {
        self.go(self.length.min(HEAD as u64))?;
        self.key = Some(key);
        Ok(self.whole()?.is_ok().then_some(key))
    }

    /// Reads the record at the present place, or says why there is none.
    fn whole(&mut self) -> io::Result<Result<(Header, Bytes), Reason>> {
        match self.record() {
            Err(error) if is_unreadable(&error) => Ok(Err(Reason::Disk)),
            read => read,
        }
    }

    fn record(&mut self) -> io::Result<Result<(Header, Bytes), Reason>> {
        let mut bytes = [0; HEADER];
        if !self.fill(&mut bytes)? {
            return Ok(Err(Reason::Torn));
        }
        let Some(header) = self.key.and_then(|key| Header::read(&bytes, key)) else {
            return Ok(Err(Reason::RecordHead));
        };
        if self.at + (HEADER + header.length) as u64 > self.length {
            return Ok(Err(Reason::Torn));
        }
        let mut payload = Vec::with_capacity(header.length);
        self.input.by_ref().take(header.length as u64).read_to_end(&mut payload)?;
        Ok(match () {
            () if payload.len() < header.length => Err(Reason::Torn),
            () if crc32(&payload) != header.sum => Err(Reason::Payload),
            () => Ok((header, payload.into())),
        })
    }

    /// Where the next whole record begins, or the end of the file. The seal of its head tells it
    /// from all that callers sent, so it is looked for at every byte.
    fn search(&mut self, mut from: u64) -> io::Result<u64> {
        let Some(key) = self.key else { return Ok(self.length) };
        let mut bytes = Vec::with_capacity(BUFFER);
        let mut step = BLOCK;
        while from < self.length {
            self.go(from)?;
            bytes.clear();
            let read = self.input.by_ref().take(BUFFER as u64).read_to_end(&mut bytes);
            match read {
                Ok(_) if bytes.len() < HEADER => break,
                // A disk that fails at many places takes its time for each.
                Err(error) if is_unreadable(&error) && bytes.len() < HEADER => {
                    from = (from + bytes.len() as u64 + step) / BLOCK * BLOCK;
                    step = (step * 2).min(LONGEST_STEP);
                    continue;
                }
                Err(error) if !is_unreadable(&error) => return Err(error),
                _ => step = BLOCK,
            }
            let mut headers = bytes.array_windows().enumerate();
            let sealed = headers.find(|(_, bytes)| Header::read(bytes, key).is_some());
            let Some((found, _)) = sealed else {
                from += (bytes.len() - HEADER + 1) as u64;
                continue;
            };
            from += found as u64;
            self.go(from)?;
            if self.whole()?.is_ok() {
                return Ok(from);
            }
            from += 1;
        }
        Ok(self.length)
    }

    /// Fills `bytes`, or says that the file has not as many.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.input.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn go(&mut self, to: u64) -> io::Result<()> {
        self.at = to;
        // Keeps what was read ahead.
        let by = to.wrapping_sub(self.input.stream_position()?);
        self.input.seek_relative(by.cast_signed())
    }
}
