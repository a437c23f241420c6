//! A pull reader of JSON text: the caller asks for what it expects next and gets it, without a
//! tree between. What is accepted, and the words for what is not, are those of `serde_json`,
//! which the tests compare it with.

mod fault;
mod number;
mod skip;
mod text;

use std::borrow::Cow;
use std::fmt;

pub use fault::Fault;
use fault::words;
pub use number::Number;
pub(super) use text::plain_length;

/// Lists and objects open at the same time, so that no text can exhaust the stack.
pub(super) const MAX_DEPTH: usize = 127;

/// Reads one JSON text from its beginning to its end.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

/// A value of which only its being there, or its being a flag or a count, matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Bool(bool),
    Unsigned(u64),
    Other,
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The next byte that is no white space, not consumed.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Consumes the byte that was peeked at.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.at += 1;
    }

    /// A fault at the byte that comes next.
    #[cold]
    pub(super) fn fault_here(&self, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(message.into(), (self.at + 1).min(self.text.len()))
    }

    /// A fault in what was just consumed.
    #[cold]
    pub(super) fn fault_behind(&self, message: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(message.into(), self.at.min(self.text.len()))
    }

    /// Whether `null` stands here; it is consumed.
    ///
    /// # Errors
    /// When something begins like it.
    pub fn null(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            Some(b'n') => self.literal(b"null").map(|()| true),
            _ => Ok(false),
        }
    }

    /// Reads the `true` or `false` whose first letter was peeked at.
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.peek() {
            Some(b't') => self.literal(b"true").map(|()| true),
            _ => self.literal(b"false").map(|()| false),
        }
    }

    /// Consumes a word whose first letter was peeked at.
    pub(super) fn literal(&mut self, word: &'static [u8]) -> Result<(), Fault> {
        self.advance();
        for expected in &word[1..] {
            let Some(byte) = self.text.get(self.at) else {
                return Err(self.fault_behind(words::EOF_VALUE));
            };
            self.advance();
            if byte != expected {
                return Err(self.fault_behind(words::IDENT));
            }
        }
        Ok(())
    }

    /// Text, borrowed unless it holds escapes.
    ///
    /// # Errors
    /// When something else stands here, or the text is broken.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            _ => Err(self.wrong_type("a string")),
        }
    }

    /// A whole number from 0 on.
    ///
    /// # Errors
    /// When something else stands here.
    pub fn unsigned(&mut self) -> Result<u64, Fault> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.wrong_type("u64"));
        }
        match self.number()? {
            Number::Unsigned(value) => Ok(value),
            Number::Negative(value) => {
                let text = format!("invalid value: integer `{value}`, expected u64");
                Err(self.fault_behind(text))
            }
            number => Err(self.fault_behind(format!("invalid type: {number}, expected u64"))),
        }
    }

    /// Reads an object with known fields; `read` gets the index of each that is there, and
    /// consumes its value. Other fields are skipped.
    ///
    /// Returns a set of bits: which fields were there.
    ///
    /// # Errors
    /// When no object stands here, a known field comes twice, or a value is refused.
    pub fn object(
        &mut self,
        fields: &[&str],
        mut read: impl FnMut(&mut Self, usize) -> Result<(), Fault>,
    ) -> Result<u32, Fault> {
        self.enter(b'{', "an object")?;
        let mut seen = 0_u32;
        let mut first = true;
        while let Some(key) = self.next_key(first)? {
            first = false;
            let field = fields.iter().position(|name| *name == key);
            if let Some(index) = field {
                if seen & (1 << index) != 0 {
                    self.peek();
                    return Err(self.fault_behind(format!("duplicate field `{key}`")));
                }
                seen |= 1 << index;
            }
            self.colon()?;
            let result = match field {
                Some(index) => read(self, index),
                None => self.skip(),
            };
            result.map_err(|fault| fault.within_field(key))?;
        }
        self.leave();
        Ok(seen)
    }

    /// Reads an object with any fields; `read` gets each name and consumes its value.
    ///
    /// # Errors
    /// When no object stands here, or a value is refused.
    pub fn map(
        &mut self,
        mut read: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter(b'{', "a map")?;
        let mut first = true;
        while let Some(key) = self.next_key(first)? {
            first = false;
            self.colon()?;
            read(self, &key).map_err(|fault| fault.within_field(key))?;
        }
        self.leave();
        Ok(())
    }

    /// Reads a list; `read` consumes each item.
    ///
    /// # Errors
    /// When no list stands here, or an item is refused.
    pub fn list(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.enter(b'[', "a sequence")?;
        let mut index = 0;
        while self.has_item(index == 0)? {
            read(self).map_err(|fault| fault.within_item(index))?;
            index += 1;
        }
        self.leave();
        Ok(())
    }

    /// Reads any value and checks all of it, unlike [`Reader::skip`].
    ///
    /// # Errors
    /// When it is no JSON, a number is beyond all bounds, or it is nested too deeply.
    pub fn scalar(&mut self) -> Result<Scalar, Fault> {
        match self.peek() {
            None => return Err(self.fault_here(words::EOF_VALUE)),
            Some(b'n') => self.literal(b"null")?,
            Some(b't' | b'f') => return self.boolean().map(Scalar::Bool),
            Some(b'"') => drop(self.quoted()?),
            Some(b'-' | b'0'..=b'9') => {
                if let Number::Unsigned(value) = self.number()? {
                    return Ok(Scalar::Unsigned(value));
                }
            }
            Some(b'[') => self.list(|reader| reader.scalar().map(drop))?,
            Some(b'{') => self.map(|reader, _| reader.scalar().map(drop))?,
            Some(_) => return Err(self.fault_here(words::VALUE)),
        }
        Ok(Scalar::Other)
    }

    /// Checks that nothing but white space is left.
    ///
    /// # Errors
    /// When there is.
    pub fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault_here(words::TRAILING)),
        }
    }

    /// The fault of an object that lacks a field, just read.
    #[must_use]
    pub fn missing(&self, field: &str) -> Fault {
        self.fault_behind(format!("missing field `{field}`"))
    }

    /// Refuses one more item where there are `count` of at most `most`.
    ///
    /// # Errors
    /// When there are as many as may be.
    pub fn bound(&self, count: usize, most: usize) -> Result<(), Fault> {
        match count < most {
            true => Ok(()),
            false => Err(self.fault_here(format!("more than {most} entries"))),
        }
    }

    fn enter(&mut self, open: u8, expected: &str) -> Result<(), Fault> {
        if self.peek() != Some(open) {
            return Err(self.wrong_type(expected));
        }
        if self.depth == MAX_DEPTH {
            return Err(self.too_deep());
        }
        self.depth += 1;
        self.advance();
        Ok(())
    }

    /// Consumes the end that was peeked at.
    fn leave(&mut self) {
        self.depth -= 1;
        self.advance();
    }

    /// Moves to the next item of a list; its end is not consumed.
    #[inline]
    pub(super) fn has_item(&mut self, first: bool) -> Result<bool, Fault> {
        match self.peek() {
            Some(b']') => Ok(false),
            None => Err(self.fault_here(words::EOF_LIST)),
            Some(_) if first => Ok(true),
            Some(b',') => {
                self.advance();
                match self.peek() {
                    Some(b']') => Err(self.fault_here(words::TRAILING_COMMA)),
                    Some(_) => Ok(true),
                    None => Err(self.fault_here(words::EOF_VALUE)),
                }
            }
            Some(_) => Err(self.fault_here(words::LIST_COMMA)),
        }
    }

    /// Reads the next name of an object; its end is not consumed.
    fn next_key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, Fault> {
        let wrong = match self.peek() {
            Some(b'}') => return Ok(None),
            None => words::EOF_OBJECT,
            Some(b'"') if first => return self.key().map(Some),
            Some(_) if first => words::KEY,
            Some(b',') => {
                self.advance();
                match self.peek() {
                    Some(b'"') => return self.key().map(Some),
                    Some(b'}') => words::TRAILING_COMMA,
                    Some(_) => words::KEY,
                    None => words::EOF_VALUE,
                }
            }
            Some(_) => words::OBJECT_COMMA,
        };
        Err(self.fault_here(wrong).within_unknown())
    }

    fn key(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.quoted().map_err(Fault::within_unknown)
    }

    fn colon(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b':') => {
                self.advance();
                Ok(())
            }
            Some(_) => Err(self.fault_here(words::COLON)),
            None => Err(self.fault_here(words::EOF_OBJECT)),
        }
    }

    #[cold]
    pub(super) fn too_deep(&self) -> Fault {
        self.fault_here(words::DEPTH)
    }

    /// The fault of a value that is not what is expected.
    #[cold]
    pub(super) fn wrong_type(&mut self, expected: &str) -> Fault {
        let found = match self.found() {
            Ok(found) => found,
            Err(fault) => return fault,
        };
        self.fault_behind(format!("invalid type: {found}, expected {expected}"))
    }

    /// What stands here, in words.
    fn found(&mut self) -> Result<Cow<'static, str>, Fault> {
        Ok(match self.peek() {
            None => return Err(self.fault_here(words::EOF_VALUE)),
            Some(b'n') => self.literal(b"null").map(|()| "null".into())?,
            Some(b't' | b'f') => format!("boolean `{}`", self.boolean()?).into(),
            Some(b'-' | b'0'..=b'9') => self.number()?.to_string().into(),
            Some(b'"') => format!("string {:?}", self.quoted()?).into(),
            Some(b'[') => "sequence".into(),
            Some(b'{') => "map".into(),
            Some(_) => return Err(self.fault_here(words::VALUE)),
        })
    }
}

/// As errors name a number.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => write!(f, "integer `{value}`"),
            Self::Negative(value) => write!(f, "integer `{value}`"),
            Self::Float(value) => {
                write!(f, "floating point `{}`", zmij::Buffer::new().format_finite(*value))
            }
        }
    }
}
