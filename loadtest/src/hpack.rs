//! Header compression of HTTP/2 (RFC 7541), as far as a client of one service needs it: answers'
//! headers are read with the dynamic table and all, a request's headers are written once and then
//! sent as bytes.

use std::collections::VecDeque;

mod huffman;

/// The static table, from index 1.
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
/// The table's size that both sides begin with, and the largest that we allow.
pub const TABLE_SIZE: usize = 4096;
/// What an entry counts beyond its bytes.
const ENTRY: usize = 32;

/// Reads header blocks of one connection, in order.
#[derive(Debug)]
pub struct Decoder {
    /// The newest entry first.
    table: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    limit: usize,
    text: Vec<u8>,
}

/// A block that breaks the rules; the connection is lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// A request's headers as blocks of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// For the first request of a connection: enters them into the server's table.
    pub first: Vec<u8>,
    /// For all others: a byte or two for each.
    pub again: Vec<u8>,
    /// What the server's table must hold for that.
    pub table_size: usize,
    /// For a server without such a table.
    pub plain: Vec<u8>,
}

// === impl Decoder ===

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, limit: TABLE_SIZE, text: Vec::new() }
    }
}

impl Decoder {
    /// Reads a whole block and hands each header on.
    ///
    /// # Errors
    /// When it breaks the rules.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        mut header: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Broken> {
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                let (name, value) = self.entry(index)?;
                header(name, value);
            } else if first & 0xe0 == 0x20 {
                let limit = integer(&mut block, 5)?;
                if limit > TABLE_SIZE {
                    return Err(Broken("a table larger than we allow"));
                }
                self.limit = limit;
                self.shrink();
            } else {
                let kept = first & 0x40 != 0;
                self.literal(&mut block, kept, &mut header)?;
            }
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        kept: bool,
        header: &mut impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Broken> {
        let index = integer(block, if kept { 6 } else { 4 })?;
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        if index == 0 {
            string(block, &mut text)?;
        } else {
            text.extend_from_slice(self.entry(index)?.0);
        }
        let split = text.len();
        string(block, &mut text)?;
        let (name, value) = text.split_at(split);
        header(name, value);
        if kept {
            self.insert(name.to_vec(), value.to_vec());
        }
        self.text = text;
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Broken> {
        let index = index.checked_sub(1).ok_or(Broken("a header of index 0"))?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.table.get(index - STATIC.len());
        let (name, value) = entry.ok_or(Broken("a header that is not in the table"))?;
        Ok((name, value))
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.size += name.len() + value.len() + ENTRY;
        self.table.push_front((name, value));
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.size > self.limit {
            let Some((name, value)) = self.table.pop_back() else { break };
            self.size -= name.len() + value.len() + ENTRY;
        }
    }
}

/// A number whose first bits share a byte with something else.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Broken> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(next(block)?) & mask;
    if value < mask {
        return Ok(value);
    }
    // Four bytes more say up to 2^28: far beyond every length and index that is allowed.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(next(block)?);
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Broken("a number that is too large"))
}

fn next(block: &mut &[u8]) -> Result<u8, Broken> {
    let (first, rest) = block.split_first().ok_or(Broken("a header block that ends early"))?;
    *block = rest;
    Ok(*first)
}

fn string(block: &mut &[u8], text: &mut Vec<u8>) -> Result<(), Broken> {
    let coded = block.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(block, 7)?;
    let cut = block.split_at_checked(length);
    let (bytes, rest) = cut.ok_or(Broken("a header block that ends early"))?;
    *block = rest;
    if coded {
        huffman::decode(bytes, text).ok_or(Broken("a string that is no Huffman code"))?;
    } else {
        text.extend_from_slice(bytes);
    }
    Ok(())
}

// === impl Encoded ===

impl Encoded {
    /// Writes the headers of all requests of a connection. Others must not enter the table.
    #[must_use]
    pub fn new(headers: &[(&str, &str)]) -> Self {
        let (mut first, mut plain) = (Vec::new(), Vec::new());
        let (mut entered, mut table_size) = (0, 0);
        // Later requests name by index what the first one entered, the last entered lowest.
        let mut indexes = Vec::with_capacity(headers.len());
        for &(name, value) in headers {
            if let Some(index) = STATIC.iter().position(|entry| *entry == (name, value)) {
                write_integer(&mut first, 0x80, 7, index + 1);
                write_integer(&mut plain, 0x80, 7, index + 1);
                indexes.push(Err(index + 1));
            } else {
                let index = STATIC.iter().position(|entry| entry.0 == name).map_or(0, |at| at + 1);
                for (block, kind, bits) in [(&mut first, 0x40, 6), (&mut plain, 0, 4)] {
                    write_integer(block, kind, bits, index);
                    if index == 0 {
                        write_string(block, name);
                    }
                    write_string(block, value);
                }
                indexes.push(Ok(entered));
                entered += 1;
                table_size += name.len() + value.len() + ENTRY;
            }
        }
        let mut again = Vec::new();
        for index in indexes {
            let index = index.map_or_else(|fixed| fixed, |order| STATIC.len() + entered - order);
            write_integer(&mut again, 0x80, 7, index);
        }
        Self { first, again, table_size, plain }
    }
}

/// Tells the server's decoder that its table holds nothing from here on.
pub fn write_no_table(block: &mut Vec<u8>) {
    write_integer(block, 0x20, 5, 0);
}

/// Writes a header that does not enter the table.
pub fn write_plain(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    write_string(block, name);
    write_string(block, value);
}

#[expect(clippy::cast_possible_truncation, reason = "each byte holds what fits")]
fn write_integer(block: &mut Vec<u8>, kind: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        block.push(kind | value as u8);
        return;
    }
    block.push(kind | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

fn write_string(block: &mut Vec<u8>, text: &str) {
    write_integer(block, 0, 7, text.len());
    block.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
