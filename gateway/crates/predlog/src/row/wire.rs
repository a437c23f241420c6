//! The wire form of protocol buffers, written from borrowed values
//! (<https://protobuf.dev/programming-guides/encoding/>).

use prost::encoding::{WireType, encode_key, encode_varint};

/// Room for the length of a message, in bytes: four groups of seven bits.
const LENGTH: usize = 4;

/// Writes fields behind what a buffer holds. Values that are their type's default are left out.
pub(super) struct Wire<'a>(pub(super) &'a mut Vec<u8>);

impl Wire<'_> {
    pub(super) fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.optional_number(tag, Some(value));
        }
    }

    pub(super) fn optional_number(&mut self, tag: u32, value: Option<u64>) {
        if let Some(value) = value {
            encode_key(tag, WireType::Varint, self.0);
            encode_varint(value, self.0);
        }
    }

    pub(super) fn fixed(&mut self, tag: u32, value: u64) {
        if value != 0 {
            encode_key(tag, WireType::SixtyFourBit, self.0);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn double(&mut self, tag: u32, value: f64) {
        self.fixed(tag, value.to_bits());
    }

    pub(super) fn optional_double(&mut self, tag: u32, value: Option<f64>) {
        if let Some(value) = value {
            encode_key(tag, WireType::SixtyFourBit, self.0);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn text(&mut self, tag: u32, value: &str) {
        self.bytes(tag, value.as_bytes());
    }

    pub(super) fn bytes(&mut self, tag: u32, value: &[u8]) {
        if !value.is_empty() {
            encode_key(tag, WireType::LengthDelimited, self.0);
            encode_varint(value.len() as u64, self.0);
            self.0.extend_from_slice(value);
        }
    }

    /// A packed list.
    pub(super) fn numbers(&mut self, tag: u32, values: &[usize]) {
        if !values.is_empty() {
            self.message(tag, |wire| {
                values.iter().for_each(|value| encode_varint(*value as u64, wire.0));
            });
        }
    }

    /// Something whose length is known once it is written: room for the longest is left before
    /// it, and filled with a number that is longer than it had to be, which readers allow.
    pub(super) fn message(&mut self, tag: u32, write: impl FnOnce(&mut Wire<'_>)) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        let at = self.0.len();
        self.0.extend_from_slice(&[0; LENGTH]);
        write(&mut Wire(self.0));
        let length = self.0.len() - at - LENGTH;
        debug_assert!(length < 1 << (7 * LENGTH), "messages stay below 256 MiB");
        for (index, byte) in self.0[at..at + LENGTH].iter_mut().enumerate() {
            let more = if index + 1 < LENGTH { 0x80 } else { 0 };
            *byte = (length >> (7 * index)).to_le_bytes()[0] & 0x7f | more;
        }
    }
}
