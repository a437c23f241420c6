//! The bytes of heads and records.

use crc32fast::hash as crc32;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Head, Kind};

/// Bytes of a payload that are not written as one record any more.
pub const LONGEST: usize = 256 << 20;

/// Bytes of a file's head.
pub(super) const HEAD: usize = 40;
/// Bytes of a record before its payload.
pub const HEADER: usize = CHECKED + 8;
/// Bytes of it that its seal is for.
const CHECKED: usize = 9;
/// Bytes of a file's end.
pub(super) const END: usize = HEADER + 16;

const MAGIC: &[u8; 8] = b"PENSTOCK";
const VERSION: u32 = 1;

/// A kind that only this module's neighbours write and read.
const ENDED: u8 = 0x81;

/// Writes one record behind what `out` holds; `write` adds its payload. Says whether it fits: one
/// longer than [`LONGEST`] leaves `out` as it was. It is sealed when it is
/// [appended](super::Writer::append) to a segment, and is none before.
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
    true
}

/// Seals records with the key of a segment; false where they are not whole, of which some are
/// sealed then.
pub(super) fn seal(records: &mut [u8], key: u64) -> bool {
    let mut rest = records;
    while let Some(header) = rest.first_chunk_mut::<HEADER>() {
        let whole = HEADER + length(header);
        let seal = sealed(header, key);
        header[CHECKED..].copy_from_slice(&seal.to_le_bytes());
        let Some((_, behind)) = rest.split_at_mut_checked(whole) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

fn sealed(header: &[u8; HEADER], key: u64) -> u64 {
    xxh3_64_with_seed(&header[..CHECKED], key)
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
    /// `None` where the bytes are not what was written to the segment with this key.
    pub(super) fn read(bytes: &[u8; HEADER], key: u64) -> Option<Self> {
        let is_sealed = bytes.last_chunk().is_some_and(|seal| long(seal) == sealed(bytes, key));
        is_sealed.then(|| Self { length: length(bytes), sum: number(&bytes[4..8]), kind: bytes[8] })
    }
}

fn length(header: &[u8; HEADER]) -> usize {
    number(&header[..4]) as usize
}

/// The last record of a file that was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Once more, as the file's head may be lost.
    pub(super) key: u64,
    /// Where it stands in the file.
    pub(super) at: u64,
}

impl End {
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(END);
        frame_as(ENDED, &mut out, |out| {
            out.extend_from_slice(&self.key.to_le_bytes());
            out.extend_from_slice(&self.at.to_le_bytes());
        });
        seal(&mut out, self.key);
        out
    }

    /// From the last bytes of a file whose key is not known.
    pub(super) fn read(bytes: &[u8; END]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk()?;
        let key = long(payload.first_chunk()?);
        let header = Header::read(header, key).filter(|header| header.sum == crc32(payload))?;
        Self::of(header, payload)
    }

    /// What a record says; `None` where it is no end.
    pub(super) fn of(header: Header, payload: &[u8]) -> Option<Self> {
        if header.kind != ENDED || payload.len() != END - HEADER {
            return None;
        }
        Some(Self { key: long(payload.first_chunk()?), at: long(payload.last_chunk()?) })
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
    pub(super) fn new(created_us: i64, instance: u64, key: u64) -> Self {
        Self { created_us, instance, key }
    }

    pub(super) fn bytes(self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.created_us.to_le_bytes());
        out[20..28].copy_from_slice(&self.instance.to_le_bytes());
        out[28..36].copy_from_slice(&self.key.to_le_bytes());
        let sum = crc32(&out[..36]);
        out[36..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// What stands where the key does, whatever became of the rest.
    pub(super) fn key_in(bytes: &[u8; HEAD]) -> u64 {
        bytes[28..].first_chunk().map_or(0, long)
    }

    pub(super) fn read(bytes: &[u8; HEAD]) -> Result<Self, NoHead> {
        let parts = (bytes[12..].first_chunk(), bytes[20..].first_chunk());
        let (Some(created), Some(instance)) = parts else {
            return Err(NoHead::Damaged);
        };
        if &bytes[..8] != MAGIC || crc32(&bytes[..36]) != number(&bytes[36..]) {
            return Err(NoHead::Damaged);
        }
        match number(&bytes[8..12]) {
            VERSION => {
                Ok(Self::new(i64::from_le_bytes(*created), long(instance), Self::key_in(bytes)))
            }
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
