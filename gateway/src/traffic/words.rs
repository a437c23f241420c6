//! Who asks for a change of the routes, and what comes of it.

use std::fmt;

use crate::config::Problem;
use crate::error::Rejection;

/// Longest author and reason that are kept, in bytes.
const LONGEST_AUTHOR: usize = 128;
const LONGEST_REASON: usize = 1024;

/// Who asks for a change, and why.
#[derive(Debug, Clone, Default)]
pub struct By {
    pub author: String,
    /// Where it comes from: an address, or what in the gateway asks.
    pub from: String,
    pub reason: String,
    /// The revision that the change was made for; refused when another one is current.
    pub expect_revision: Option<u64>,
    /// Nobody asked and it is tried again and again: the same refusal is written down once.
    pub unasked: bool,
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The current revision; the one before when nothing changed.
    pub revision: u64,
    pub changed: bool,
    pub diff: Vec<String>,
    /// The revision whose routes came back.
    pub restored: Option<u64>,
    /// Versions that had to be loaded, or would have to.
    pub needs_load: Vec<String>,
}

/// Why nothing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub rejection: Rejection,
    /// What is wrong with which arm, where that is why.
    pub problems: Vec<Problem>,
    /// Another revision is current than was expected.
    pub stale: bool,
    /// The current revision.
    pub revision: u64,
}

impl By {
    /// Where changes come from that nobody asks for: the file was found to be another.
    pub const WATCH: &str = "watch";

    pub(super) fn bounded(mut self) -> Self {
        for (text, longest) in [
            (&mut self.author, LONGEST_AUTHOR),
            (&mut self.from, LONGEST_AUTHOR),
            (&mut self.reason, LONGEST_REASON),
        ] {
            text.truncate(text.floor_char_boundary(longest));
        }
        self
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rejection.fmt(f)
    }
}

impl std::error::Error for Refused {}
