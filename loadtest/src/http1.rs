//! HTTP/1.1 as a client speaks it on one connection, one call after the other: bytes in, answers
//! out. It holds no socket.

use std::mem::MaybeUninit;

use crate::answer::JSON_LENGTH;
use crate::failure::Failure;
use crate::wire::{Response, Sink};

mod chunked;

use chunked::Chunked;

/// Headers beyond this number make an answer malformed.
const MOST_HEADERS: usize = 96;
/// So do headers of more bytes than this.
const LONGEST_HEAD: usize = 256 << 10;

/// One connection; a call is known by its ticket.
#[derive(Debug)]
pub struct Http1<T> {
    call: Option<T>,
    /// What came of the answer so far.
    input: Vec<u8>,
    head: Option<Head>,
    chunks: Chunked,
}

/// The beginning of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    length: usize,
    status: u16,
    json_length: Option<usize>,
    body: Body,
    closes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    /// Whatever comes until the server closes.
    UntilClose,
}

impl<T> Default for Http1<T> {
    fn default() -> Self {
        Self { call: None, input: Vec::new(), head: None, chunks: Chunked::default() }
    }
}

impl<T> Http1<T> {
    /// No call is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.call.is_none()
    }

    /// The call under way.
    #[must_use]
    pub fn call(&self) -> Option<&T> {
        self.call.as_ref()
    }

    /// A request is going out.
    pub fn begin(&mut self, ticket: T) {
        debug_assert!(self.call.is_none(), "one call at a time");
        self.call = Some(ticket);
    }

    /// Takes bytes that came.
    ///
    /// # Errors
    /// When the connection is of no more use; a call may still be under way.
    pub fn receive(&mut self, bytes: &[u8], done: &mut Sink<'_, T>) -> Result<(), Failure> {
        if self.input.is_empty() {
            let used = self.parse(bytes, done)?;
            self.input.extend_from_slice(&bytes[used..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let used = self.parse(&input, done)?;
            input.drain(..used);
            self.input = input;
        }
        Ok(())
    }

    /// The server closed the connection: the end of an answer that has no other end.
    pub fn end(&mut self, done: &mut Sink<'_, T>) {
        let whole = self.head.is_some_and(|head| head.body == Body::UntilClose);
        if let Some(head) = self.head.take().filter(|_| whole)
            && let Some(ticket) = self.call.take()
        {
            done(ticket, Ok(response(head, &self.input[head.length..])));
        }
    }

    /// Gives up the call under way and everything that came of it.
    pub fn abandon(&mut self) -> Option<T> {
        self.input.clear();
        self.head = None;
        self.chunks = Chunked::default();
        self.call.take()
    }

    /// Reads what there is; says how much of it was used up.
    fn parse(&mut self, data: &[u8], done: &mut Sink<'_, T>) -> Result<usize, Failure> {
        let mut used = 0;
        while used < data.len() {
            let rest = &data[used..];
            let head = match self.head {
                Some(head) => head,
                None => match Head::parse(rest)? {
                    None => break,
                    // 1xx: the answer itself is still to come.
                    Some(head) if head.status < 200 => {
                        used += head.length;
                        continue;
                    }
                    Some(head) => *self.head.insert(head),
                },
            };
            if self.call.is_none() {
                return Err(Failure::broken("the server sent what nobody had asked for"));
            }
            let behind = &rest[head.length..];
            let end = match head.body {
                Body::UntilClose => break,
                Body::Length(length) if behind.len() < length => break,
                Body::Length(length) => length,
                Body::Chunked => match self.chunks.read(behind)? {
                    None => break,
                    Some(end) => end,
                },
            };
            self.head = None;
            used += head.length + end;
            let chunks = std::mem::take(&mut self.chunks);
            let body = if head.body == Body::Chunked { chunks.body() } else { &behind[..end] };
            if let Some(ticket) = self.call.take() {
                done(ticket, Ok(response(head, body)));
            }
            if head.closes {
                return Err(Failure::broken("the server closes the connection"));
            }
        }
        Ok(used)
    }
}

fn response(head: Head, body: &[u8]) -> Response<'_> {
    Response::Http { status: head.status, json_length: head.json_length, body }
}

impl Head {
    /// Reads the status line and headers, once they are there as a whole.
    fn parse(data: &[u8]) -> Result<Option<Self>, Failure> {
        let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
        let mut answer = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut answer, data, &mut headers);
        let length = match parsed.map_err(Failure::malformed)? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if data.len() > LONGEST_HEAD => {
                return Err(Failure::malformed("its headers are too long"));
            }
            httparse::Status::Partial => return Ok(None),
        };
        let status = answer.code.unwrap_or_default();
        let bodiless = status < 200 || status == 204 || status == 304;
        // An old server closes unless it says otherwise.
        let mut closes = answer.version == Some(0);
        let (mut json_length, mut content_length, mut chunked) = (None, None, false);
        for header in answer.headers.iter() {
            let (name, value) = (header.name, header.value);
            if name.eq_ignore_ascii_case("content-length") {
                content_length = Some(number(value, "content-length")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = has(value, "chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                closes = (closes || has(value, "close")) && !has(value, "keep-alive");
            } else if name.eq_ignore_ascii_case(JSON_LENGTH.as_str()) {
                json_length = Some(number(value, JSON_LENGTH.as_str())?);
            }
        }
        let body = match content_length {
            _ if bodiless => Body::Length(0),
            _ if chunked => Body::Chunked,
            Some(length) => Body::Length(length),
            None => Body::UntilClose,
        };
        Ok(Some(Self { length, status, json_length, body, closes }))
    }
}

fn number(value: &[u8], header: &str) -> Result<usize, Failure> {
    let text = std::str::from_utf8(value).ok();
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Failure::malformed(format!("its {header} is no number")))
}

/// Whether a list of words has one.
fn has(value: &[u8], word: &str) -> bool {
    value
        .split(|byte| *byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests;
