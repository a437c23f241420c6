//! The Huffman code of HPACK (RFC 7541, appendix B). It is canonical: the length of each symbol's
//! code is all there is to know.

/// How many bits the code of each byte has, and last that of the end.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const LONGEST: usize = 30;
const END: usize = 256;

/// For each length the first code of that length, how many there are, and where their symbols
/// begin in the list of all symbols by length.
const TABLE: ([(u32, u32, usize); LONGEST + 1], [u16; 257]) = table();

#[expect(clippy::cast_possible_truncation, reason = "symbols are at most 256")]
const fn table() -> ([(u32, u32, usize); LONGEST + 1], [u16; 257]) {
    let mut lengths = [(0, 0, 0); LONGEST + 1];
    let mut symbols = [0; 257];
    let (mut length, mut code, mut at) = (1, 0_u32, 0);
    while length <= LONGEST {
        code <<= 1;
        lengths[length] = (code, 0, at);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[at] = symbol as u16;
                at += 1;
                lengths[length].1 += 1;
                code += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    (lengths, symbols)
}

/// Adds the decoded text; `None` when it is none.
pub(super) fn decode(bytes: &[u8], text: &mut Vec<u8>) -> Option<()> {
    let (lengths, symbols) = &TABLE;
    let (mut code, mut length) = (0_u32, 0);
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let &(first, count, at) = lengths.get(length)?;
            let Some(offset) = code.checked_sub(first).filter(|offset| *offset < count) else {
                continue;
            };
            let symbol = symbols[at + usize::try_from(offset).ok()?];
            if usize::from(symbol) == END {
                return None;
            }
            text.push(u8::try_from(symbol).ok()?);
            (code, length) = (0, 0);
        }
    }
    // What is left pads the last byte: fewer than eight bits, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(())
}
