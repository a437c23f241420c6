//! A body in chunks, read as it comes.

use crate::failure::Failure;

/// Sizes and trailers longer than this are malformed.
const LONGEST_LINE: usize = 16 << 10;

/// A chunked body so far.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    body: Vec<u8>,
    /// How much of the input is read.
    at: usize,
    /// What is left of the chunk under way.
    left: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Size,
    Data,
    /// The line end behind a chunk.
    End,
    Trailers,
}

impl Chunked {
    /// The body without its chunks.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Goes on reading an input that has grown; says where it ends once it has.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<Option<usize>, Failure> {
        loop {
            let rest = &input[self.at..];
            if let State::Data = self.state {
                let taken = rest.len().min(self.left);
                self.body.extend_from_slice(&rest[..taken]);
                self.at += taken;
                self.left -= taken;
                if self.left > 0 {
                    return Ok(None);
                }
                self.state = State::End;
                continue;
            }
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                if rest.len() > LONGEST_LINE {
                    return Err(Failure::malformed("a line between its chunks is too long"));
                }
                return Ok(None);
            };
            let line = rest[..end].trim_ascii();
            self.at += end + 1;
            self.state = match self.state {
                State::Size => {
                    self.left = size(line)?;
                    if self.left == 0 { State::Trailers } else { State::Data }
                }
                State::Trailers if line.is_empty() => return Ok(Some(self.at)),
                State::Trailers => State::Trailers,
                State::End if line.is_empty() => State::Size,
                State::Data | State::End => {
                    return Err(Failure::malformed("a chunk is longer than it says"));
                }
            };
        }
    }
}

/// The hexadecimal size in front of a chunk; extensions are left aside.
fn size(line: &[u8]) -> Result<usize, Failure> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    let size = text.and_then(|text| usize::from_str_radix(text, 16).ok());
    size.ok_or_else(|| Failure::malformed("the size of a chunk is no number"))
}
