//! Passing over values that nobody asked for, or that are read later.

use super::fault::words;
use super::{Fault, Reader};

impl<'a> Reader<'a> {
    /// Passes over a value, however deeply it is nested. Its form is checked, but neither the
    /// size of its numbers nor the meaning of its texts.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn skip(&mut self) -> Result<(), Fault> {
        // One byte for each list and object that is open.
        let mut open = Vec::new();
        loop {
            let mut fresh = false;
            match self.peek() {
                None => return Err(self.fault_here(words::EOF_VALUE)),
                Some(b'n') => self.literal(b"null")?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'-' | b'0'..=b'9') => {
                    self.scan_number(words::NUMBER)?;
                }
                Some(b'"') => self.skip_quoted()?,
                Some(frame @ (b'[' | b'{')) => {
                    self.advance();
                    open.push(frame);
                    fresh = true;
                }
                Some(_) => return Err(self.fault_here(words::VALUE)),
            }
            if !self.next_value(&mut open, fresh)? {
                return Ok(());
            }
        }
    }

    /// Passes over a value and gives its text.
    ///
    /// # Errors
    /// When it is no JSON or no UTF-8.
    pub fn raw(&mut self) -> Result<&'a str, Fault> {
        self.peek();
        let start = self.at;
        self.skip()?;
        std::str::from_utf8(&self.text[start..self.at])
            .map_err(|error| Fault::new(words::UNICODE.into(), start + error.valid_up_to() + 1))
    }

    /// Goes back to a place where the reader was before.
    pub fn rewind(&mut self, mark: Mark) {
        self.at = mark.0;
    }

    /// This place.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.at)
    }

    /// Closes what ends here and moves to the next value; false at the end of the outermost one.
    fn next_value(&mut self, open: &mut Vec<u8>, mut fresh: bool) -> Result<bool, Fault> {
        while let Some(&frame) = open.last() {
            let is_list = frame == b'[';
            let message = match self.peek() {
                Some(b']') if is_list => "",
                Some(b'}') if !is_list => "",
                Some(b',') if !fresh => {
                    self.advance();
                    return self.next_member(is_list);
                }
                Some(_) if fresh => return self.next_member(is_list),
                Some(_) if is_list => words::LIST_COMMA,
                Some(_) => words::OBJECT_COMMA,
                None if is_list => words::EOF_LIST,
                None => words::EOF_OBJECT,
            };
            if !message.is_empty() {
                return Err(self.fault_here(message));
            }
            self.advance();
            open.pop();
            fresh = false;
        }
        Ok(false)
    }

    /// Passes over the name of an object's member.
    fn next_member(&mut self, is_list: bool) -> Result<bool, Fault> {
        if is_list {
            return Ok(true);
        }
        match self.peek() {
            Some(b'"') => self.skip_quoted()?,
            Some(_) => return Err(self.fault_here(words::KEY)),
            None => return Err(self.fault_here(words::EOF_OBJECT)),
        }
        self.colon().map(|()| true)
    }
}

/// A place in a text.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);
