//! The whole records of a file, and the gaps between them.

use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};

use bytes::Bytes;
use crc32fast::hash as crc32;

use super::frame::{HEAD, HEADER, Header, LONGEST, MARK, Mark, NoHead};
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

/// Why there is no whole record at a place, and where the next one begins if that is known: by the
/// length in a head that is whole, which holds where bytes were spoilt in their place.
struct Fault {
    reason: Reason,
    next: Option<u64>,
}

/// Reads the records of a file as long as it was when this was made.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: BufReader<R>,
    length: u64,
    at: u64,
    head: Option<Head>,
    marker: Option<u64>,
    /// How far records stand behind where they were written.
    displaced: u64,
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
            marker: None,
            displaced: 0,
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

    pub(super) fn marker(&self) -> Option<u64> {
        self.marker
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

    /// Takes back that the file ends inside a record: where it is being written that is no damage.
    pub(super) fn forgive_end(&mut self) {
        let is_end =
            |gap: &mut Damage| gap.reason == Reason::Torn && gap.offset + gap.length == self.length;
        self.gaps.pop_if(is_end);
    }

    /// The next whole record; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        while self.at < self.length {
            let read = match self.whole() {
                Err(error) if is_unreadable(&error) => {
                    Err(Fault { reason: Reason::Disk, next: None })
                }
                read => read?,
            };
            match read {
                Ok((header, payload)) => {
                    let at = self.at;
                    self.at += (HEADER + header.length) as u64;
                    self.end = Some(self.at);
                    if !header.is_mark() {
                        self.has_ended = false;
                        return Ok(Some(Frame { at, kind: header.kind, payload }));
                    }
                    self.pass(at, &header, &payload);
                }
                Err(Fault { reason, next }) => {
                    let from = self.at;
                    let next = match next {
                        Some(next) => next,
                        None => self.search(from + 1)?.unwrap_or(self.length).min(self.length),
                    };
                    self.gap(from, next - from, reason);
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
                self.marker = Some(head.marker);
                self.end = Some(HEAD as u64);
            }
            Err(NoHead::Later(version)) => {
                let text = format!("the segment has format {version}, of a later version");
                return Err(io::Error::new(ErrorKind::Unsupported, text));
            }
            Err(NoHead::Damaged) => {
                self.gap(0, self.length.min(HEAD as u64), Reason::Head);
                // Two more places at which nobody but the writer puts anything.
                for at in [HEAD as u64, self.length.saturating_sub(MARK as u64)] {
                    if self.marker.is_none() {
                        self.marker =
                            self.mark(at)?.filter(|mark| mark.at == at).map(|mark| mark.marker);
                    }
                }
            }
        }
        self.go(self.length.min(HEAD as u64))
    }

    /// Reads the record at the present place.
    fn whole(&mut self) -> io::Result<Result<(Header, Bytes), Fault>> {
        let mut bytes = [0; HEADER];
        if !self.fill(&mut bytes)? {
            return Ok(Err(Fault { reason: Reason::Torn, next: None }));
        }
        let Some(header) = Header::read(&bytes) else {
            return Ok(Err(Fault { reason: Reason::RecordHead, next: None }));
        };
        let next = self.at + (HEADER + header.length) as u64;
        if next > self.length {
            return Ok(Err(Fault { reason: Reason::Torn, next: None }));
        }
        if header.length > LONGEST {
            return Ok(Err(Fault { reason: Reason::TooLong, next: Some(next) }));
        }
        let mut payload = Vec::with_capacity(header.length);
        match self.input.by_ref().take(header.length as u64).read_to_end(&mut payload) {
            Err(error) if is_unreadable(&error) => {
                return Ok(Err(Fault { reason: Reason::Disk, next: Some(next) }));
            }
            read => read?,
        };
        Ok(match () {
            () if payload.len() < header.length => Err(Fault { reason: Reason::Torn, next: None }),
            () if crc32(&payload) != header.sum => {
                Err(Fault { reason: Reason::Payload, next: Some(next) })
            }
            () => Ok((header, payload.into())),
        })
    }

    /// Takes note of a mark where a record was to be.
    fn pass(&mut self, at: u64, header: &Header, payload: &[u8]) {
        let Some(mark) = Mark::of(*header, payload) else { return };
        let marker = *self.marker.get_or_insert(mark.marker);
        let displaced = mark.at.wrapping_sub(at);
        if displaced != self.displaced || mark.marker != marker {
            self.displaced = displaced;
            self.gap(at, 0, Reason::Displaced);
        }
        self.has_ended = mark.is_end;
    }

    /// Where the next mark of this file begins.
    fn search(&mut self, from: u64) -> io::Result<Option<u64>> {
        let Some(marker) = self.marker else { return Ok(None) };
        let sought = marker.to_le_bytes();
        let mut from = from + HEADER as u64;
        let mut bytes = Vec::with_capacity(BUFFER);
        let mut step = BLOCK;
        while from < self.length {
            self.go(from)?;
            bytes.clear();
            let read = self.input.by_ref().take(BUFFER as u64).read_to_end(&mut bytes);
            match read {
                Ok(_) if bytes.len() < sought.len() => return Ok(None),
                // A disk that fails at many places takes its time for each.
                Err(error) if is_unreadable(&error) && bytes.len() < sought.len() => {
                    from = (from + bytes.len() as u64 + step) / BLOCK * BLOCK;
                    step = (step * 2).min(LONGEST_STEP);
                    continue;
                }
                Err(error) if !is_unreadable(&error) => return Err(error),
                _ => step = BLOCK,
            }
            let Some(found) = bytes.windows(sought.len()).position(|part| part == sought) else {
                from += (bytes.len() - sought.len() + 1) as u64;
                continue;
            };
            let at = from + found as u64 - HEADER as u64;
            if self.mark(at)?.is_some_and(|mark| mark.marker == marker) {
                return Ok(Some(at));
            }
            from += found as u64 + 1;
        }
        Ok(None)
    }

    /// The mark that begins at a place.
    fn mark(&mut self, at: u64) -> io::Result<Option<Mark>> {
        self.go(at)?;
        let mut bytes = [0; MARK];
        match self.fill(&mut bytes) {
            Err(error) if is_unreadable(&error) => Ok(None),
            filled => Ok(if filled? { Mark::read(&bytes) } else { None }),
        }
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
