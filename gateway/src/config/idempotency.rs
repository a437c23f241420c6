//! `[idempotency]`: calls that carry a key run once.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::Size;

/// Longest key that may be allowed, in bytes.
const LONGEST_KEY: usize = 1024;

/// Calls that carry a key run once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Idempotency {
    pub enabled: bool,
    /// How long repeats get the first answer, from the moment it was there.
    pub window: Duration,
    /// Memory of all kept answers, bookkeeping included.
    pub max_bytes: usize,
    /// Largest answer that is kept, in bytes.
    pub max_answer: usize,
    /// Keys known at a time: kept answers and calls under way.
    pub max_keys: usize,
    /// In bytes.
    pub max_key_length: usize,
}

impl Idempotency {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            enabled: section.or("enabled", true),
            window: section.or("window", Duration::from_secs(600)),
            max_bytes: section.or("max_bytes", Size::mib(64)).0,
            max_answer: section.or("max_answer", Size::mib(1)).0,
            max_keys: section.or("max_keys", 100_000),
            max_key_length: section.or("max_key_length", 255),
        };
        if settings.window.is_zero() {
            section.problem("window", "must be longer than zero: use enabled = false");
        }
        if settings.max_answer > settings.max_bytes {
            section.problem("max_answer", "is above max_bytes");
        }
        if settings.max_keys == 0 {
            section.problem("max_keys", "must be at least 1: use enabled = false");
        }
        if !(1..=LONGEST_KEY).contains(&settings.max_key_length) {
            section.problem("max_key_length", format!("must be from 1 to {LONGEST_KEY}"));
        }
        section.finish();
        settings
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    #[test]
    fn bounds_that_contradict_each_other_are_named() {
        let text = "version = 1\n[idempotency]\nwindow = '0s'\nmax_bytes = '1KiB'\n\
                    max_keys = 0\nmax_key_length = 2000\n";
        let found = parse(text, Path::new("")).unwrap_err();
        let paths: Vec<_> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "idempotency.window",
                "idempotency.max_answer",
                "idempotency.max_keys",
                "idempotency.max_key_length",
            ]
        );
    }
}
