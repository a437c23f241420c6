//! Expectations of a program that shows something: each is printed with whether it holds.

use std::fmt::Display;

use crate::report::say;

/// How many expectations held so far.
#[derive(Debug, Default)]
pub struct Findings {
    held: usize,
    failed: usize,
}

impl Findings {
    /// Notes an expectation, given with the figures that show it.
    pub fn expect(&mut self, holds: bool, claim: impl Display) {
        say(format_args!("  {}  {claim}", self.count(holds)));
    }

    fn count(&mut self, holds: bool) -> &'static str {
        if holds {
            self.held += 1;
            "ok  "
        } else {
            self.failed += 1;
            "FAIL"
        }
    }

    /// Whether none failed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.failed {
            0 => write!(f, "all {} expectations hold", self.held),
            failed => write!(f, "{failed} of {} expectations FAILED", self.held + failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_spoils_the_whole() {
        let mut findings = Findings::default();
        assert_eq!(findings.count(true), "ok  ");
        assert!(findings.is_good());
        assert_eq!(findings.to_string(), "all 1 expectations hold");
        assert_eq!(findings.count(false), "FAIL");
        assert_eq!(findings.count(true), "ok  ");
        assert!(!findings.is_good());
        assert_eq!(findings.to_string(), "1 of 3 expectations FAILED");
    }
}
