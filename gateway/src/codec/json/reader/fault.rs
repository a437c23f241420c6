//! What is wrong with a JSON text, and where.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The words for broken JSON, which callers know from `serde_json`.
pub(in crate::codec::json) mod words {
    pub(in crate::codec::json) const COLON: &str = "expected `:`";
    pub(in crate::codec::json) const CONTROL: &str =
        "control character (\\u0000-\\u001F) found while parsing a string";
    pub(in crate::codec::json) const DEPTH: &str = "recursion limit exceeded";
    pub(in crate::codec::json) const EOF_LIST: &str = "EOF while parsing a list";
    pub(in crate::codec::json) const EOF_OBJECT: &str = "EOF while parsing an object";
    pub(in crate::codec::json) const EOF_STRING: &str = "EOF while parsing a string";
    pub(in crate::codec::json) const EOF_VALUE: &str = "EOF while parsing a value";
    pub(in crate::codec::json) const ESCAPE: &str = "invalid escape";
    pub(in crate::codec::json) const HEX_END: &str = "unexpected end of hex escape";
    pub(in crate::codec::json) const IDENT: &str = "expected ident";
    pub(in crate::codec::json) const KEY: &str = "key must be a string";
    pub(in crate::codec::json) const LIST_COMMA: &str = "expected `,` or `]`";
    pub(in crate::codec::json) const NUMBER: &str = "invalid number";
    pub(in crate::codec::json) const OBJECT_COMMA: &str = "expected `,` or `}`";
    pub(in crate::codec::json) const RANGE: &str = "number out of range";
    pub(in crate::codec::json) const SURROGATE: &str = "lone leading surrogate in hex escape";
    pub(in crate::codec::json) const TRAILING: &str = "trailing characters";
    pub(in crate::codec::json) const TRAILING_COMMA: &str = "trailing comma";
    pub(in crate::codec::json) const UNICODE: &str = "invalid unicode code point";
    pub(in crate::codec::json) const VALUE: &str = "expected value";
}

/// Why a text is refused. Boxed, so that the results of good texts stay small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    message: Cow<'static, str>,
    /// Bytes up to the fault, what is wrong included.
    at: usize,
    /// From the inside out.
    path: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Item(usize),
    /// In the name of a field, or before it.
    Unknown,
}

impl Fault {
    pub(super) fn new(message: Cow<'static, str>, at: usize) -> Self {
        Self(Box::new(Inner { message, at, path: Vec::new() }))
    }

    pub(super) fn within_field(mut self, name: Cow<'_, str>) -> Self {
        self.0.path.push(Step::Field(name.into_owned()));
        self
    }

    pub(super) fn within_item(mut self, index: usize) -> Self {
        self.0.path.push(Step::Item(index));
        self
    }

    pub(super) fn within_unknown(mut self) -> Self {
        self.0.path.push(Step::Unknown);
        self
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Which value is wrong, as `inputs[0].name`; empty for the text as a whole.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.path.iter().rev() {
            let dot = if path.is_empty() { "" } else { "." };
            let written = match step {
                Step::Field(name) => write!(path, "{dot}{name}"),
                Step::Item(index) => write!(path, "[{index}]"),
                Step::Unknown => write!(path, "{dot}?"),
            };
            written.expect("memory takes every text");
        }
        path
    }

    /// Line and column in the text that was read, both from 1.
    #[must_use]
    pub fn position(&self, text: &[u8]) -> (usize, usize) {
        let before = &text[..self.0.at.min(text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        (line, before.len() - start)
    }

    /// The text from the wrong byte on.
    #[must_use]
    pub fn rest<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.get(self.0.at.saturating_sub(1)..).unwrap_or(&[])
    }
}
