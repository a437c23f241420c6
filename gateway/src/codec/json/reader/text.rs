//! Quoted text: escapes, surrogates and UTF-8.

use std::borrow::Cow;

use super::fault::words;
use super::{Fault, Reader};

impl<'a> Reader<'a> {
    /// Reads the text whose quote was peeked at.
    pub(in crate::codec::json) fn quoted(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.advance();
        let start = self.at;
        let end = start + plain_length(&self.text[start..]);
        if self.text.get(end) != Some(&b'"') {
            return self.escaped().map(Cow::Owned);
        }
        self.at = end + 1;
        let bytes = &self.text[start..end];
        std::str::from_utf8(bytes)
            .map(Cow::Borrowed)
            .map_err(|error| self.no_text(bytes.len() - error.valid_up_to()))
    }

    fn escaped(&mut self) -> Result<String, Fault> {
        let mut out = Vec::new();
        loop {
            let start = self.at;
            self.at += plain_length(&self.text[start..]);
            out.extend_from_slice(&self.text[start..self.at]);
            let Some(byte) = self.text.get(self.at) else {
                return Err(self.fault_behind(words::EOF_STRING));
            };
            self.advance();
            match byte {
                b'"' => break,
                b'\\' => self.escape(&mut out)?,
                _ => return Err(self.fault_behind(words::CONTROL)),
            }
        }
        String::from_utf8(out).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            self.no_text(error.as_bytes().len() - good)
        })
    }

    /// Passes over the text whose quote was peeked at; what its escapes mean is not checked.
    pub(super) fn skip_quoted(&mut self) -> Result<(), Fault> {
        self.advance();
        loop {
            self.at += plain_length(&self.text[self.at..]);
            match self.text.get(self.at) {
                None => return Err(self.fault_behind(words::EOF_STRING)),
                Some(b'"') => {
                    self.advance();
                    return Ok(());
                }
                Some(b'\\') => {
                    self.advance();
                    if self.next_of_text()? == b'u' {
                        self.hex()?;
                    } else if simple_escape(self.text[self.at - 1]).is_none() {
                        return Err(self.fault_behind(words::ESCAPE));
                    }
                }
                Some(_) => return Err(self.fault_behind(words::CONTROL)),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let byte = self.next_of_text()?;
        if byte == b'u' {
            let character = self.unicode()?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(());
        }
        out.push(simple_escape(byte).ok_or_else(|| self.fault_behind(words::ESCAPE))?);
        Ok(())
    }

    /// Reads what follows `\u`: one escape, or the two of a surrogate pair.
    fn unicode(&mut self) -> Result<char, Fault> {
        let first = self.hex()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        if first >= 0xdc00 {
            return Err(self.fault_behind(words::SURROGATE));
        }
        for expected in *b"\\u" {
            if self.next_of_text()? != expected {
                return Err(self.fault_behind(words::HEX_END));
            }
        }
        let second = self.hex()?;
        match second {
            0xdc00..=0xdfff => {
                char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
                    .ok_or_else(|| self.fault_behind(words::SURROGATE))
            }
            _ => Err(self.fault_behind(words::SURROGATE)),
        }
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let Some(digits) = self.text.get(self.at..self.at + 4) else {
            self.at = self.text.len();
            return Err(self.fault_behind(words::EOF_STRING));
        };
        self.at += 4;
        digits
            .iter()
            .try_fold(0, |value, byte| Some(value << 4 | char::from(*byte).to_digit(16)?))
            .ok_or_else(|| self.fault_behind(words::ESCAPE))
    }

    fn next_of_text(&mut self) -> Result<u8, Fault> {
        let byte = self.text.get(self.at).ok_or_else(|| self.fault_behind(words::EOF_STRING))?;
        self.at += 1;
        Ok(*byte)
    }

    /// The fault of a text, just read, whose last `wrong` bytes are no UTF-8.
    #[cold]
    fn no_text(&self, wrong: usize) -> Fault {
        Fault::new(words::UNICODE.into(), self.at.saturating_sub(wrong))
    }
}

fn simple_escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// Bytes before the first quote, backslash or control character; eight at a time, since text
/// tensors are long.
pub(in crate::codec::json) fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // The highest bit of each byte that is below `limit` (up to 128) is set. Bytes behind such a
    // one may be wrong, so only the first counts.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let (words, tail) = text.as_chunks::<8>();
    for (index, bytes) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*bytes);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = (below(word, 0x20) | quote | backslash) & (ONES << 7);
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    words.len() * 8 + tail.iter().position(is_special).unwrap_or(tail.len())
}
