//! The bytes of heads, records and marks.

use crc32fast::hash as crc32;

use super::{Head, Kind};

/// Bytes of a payload that are not written, and not read, as one record any more.
pub const LONGEST: usize = 256 << 20;

/// Bytes of a file's head.
pub(super) const HEAD: usize = 40;
/// Bytes of a record's head.
pub(super) const HEADER: usize = 13;
/// Bytes of a mark.
pub(super) const MARK: usize = HEADER + 16;

const MAGIC: &[u8; 8] = b"PENSTOCK";
const VERSION: u32 = 1;

/// Kinds that only this module's neighbours write and read.
const MARKED: u8 = 0x80;
const ENDED: u8 = 0x81;

/// Writes one record behind what `out` holds; `write` adds its payload. Says whether it fits: one
/// longer than [`LONGEST`] leaves `out` as it was.
pub fn frame(kind: Kind, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    frame_as(kind as u8, out, write)
}

pub(super) fn frame_as(kind: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
    let at = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let (before, payload) = out.split_at_mut(at + HEADER);
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= LONGEST);
    let Some(length) = length else {
        out.truncate(at);
        return false;
    };
    let header = &mut before[at..];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&crc32(payload).to_le_bytes());
    header[8] = kind;
    let check = crc32(&header[..9]);
    header[9..].copy_from_slice(&check.to_le_bytes());
    true
}

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of the payload.
    pub(super) length: usize,
    pub(super) sum: u32,
    pub(super) kind: u8,
}

impl Header {
    /// `None` where the bytes are not what was written.
    pub(super) fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        if crc32(&bytes[..9]) != number(&bytes[9..]) {
            return None;
        }
        Some(Self { length: length(bytes), sum: number(&bytes[4..8]), kind: bytes[8] })
    }

    pub(super) fn is_mark(&self) -> bool {
        self.length == MARK - HEADER && (self.kind == MARKED || self.kind == ENDED)
    }
}

/// Bytes of the first record, its head included, as its head says, unchecked; `None` where there
/// are fewer.
pub(super) fn first(framed: &[u8]) -> Option<usize> {
    let whole = HEADER + length(framed.first_chunk()?);
    (framed.len() >= whole).then_some(whole)
}

fn length(header: &[u8; HEADER]) -> usize {
    number(&header[..4]) as usize
}

/// A place at which a record is known to begin, and the last one of a closed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) marker: u64,
    /// Where it stands in the file.
    pub(super) at: u64,
    /// Whether the file ends with it.
    pub(super) is_end: bool,
}

impl Mark {
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MARK);
        frame_as(if self.is_end { ENDED } else { MARKED }, &mut out, |out| {
            out.extend_from_slice(&self.marker.to_le_bytes());
            out.extend_from_slice(&self.at.to_le_bytes());
        });
        out
    }

    /// `None` where the bytes are no mark, or not what was written.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let header = Header::read(bytes.first_chunk()?)?;
        let payload = bytes.get(HEADER..)?;
        if crc32(payload) == header.sum { Self::of(header, payload) } else { None }
    }

    /// What a record says; `None` where it is no mark.
    pub(super) fn of(header: Header, payload: &[u8]) -> Option<Self> {
        if !header.is_mark() {
            return None;
        }
        Some(Self {
            marker: long(payload.first_chunk()?),
            at: long(payload.last_chunk()?),
            is_end: header.kind == ENDED,
        })
    }
}

/// Why the head of a file cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoHead {
    Damaged,
    /// A later Penstock wrote it.
    Later(u32),
}

impl Head {
    pub(super) fn new(created_us: i64, instance: u64, marker: u64) -> Self {
        Self { created_us, instance, marker }
    }

    pub(super) fn bytes(self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.created_us.to_le_bytes());
        out[20..28].copy_from_slice(&self.instance.to_le_bytes());
        out[28..36].copy_from_slice(&self.marker.to_le_bytes());
        let sum = crc32(&out[..36]);
        out[36..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn read(bytes: &[u8; HEAD]) -> Result<Self, NoHead> {
        let parts =
            (bytes[12..].first_chunk(), bytes[20..].first_chunk(), bytes[28..].first_chunk());
        let (Some(created), Some(instance), Some(marker)) = parts else {
            return Err(NoHead::Damaged);
        };
        if &bytes[..8] != MAGIC || crc32(&bytes[..36]) != number(&bytes[36..]) {
            return Err(NoHead::Damaged);
        }
        match number(&bytes[8..12]) {
            VERSION => Ok(Self::new(i64::from_le_bytes(*created), long(instance), long(marker))),
            later => Err(NoHead::Later(later)),
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}
