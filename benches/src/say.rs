//! What the driver prints: results on standard output, progress on standard error. A reader that
//! has gone away is no failure.

use std::fmt::Display;
use std::io::{Write as _, stderr, stdout};

/// A line of results.
pub fn say(line: impl Display) {
    let mut out = stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// A line of progress.
pub fn progress(line: impl Display) {
    drop(writeln!(stderr().lock(), "ratios: {line}"));
}
