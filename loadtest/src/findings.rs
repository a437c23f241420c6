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
        if holds {
            self.held += 1;
            say(format_args!("  ok    {claim}"));
        } else {
            self.failed += 1;
            say(format_args!("  FAIL  {claim}"));
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
        findings.expect(true, "one is one");
        assert!(findings.is_good());
        assert_eq!(findings.to_string(), "all 1 expectations hold");
        findings.expect(false, "one is two");
        findings.expect(true, "two is two");
        assert!(!findings.is_good());
        assert_eq!(findings.to_string(), "1 of 3 expectations FAILED");
    }
}
