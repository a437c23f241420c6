//! What has to hold of a program's figures, and how it is told at the end.

use serde_json::Value;

use crate::report::say;

/// What does not hold.
#[derive(Debug, Default)]
pub struct Verdict {
    broken: Vec<String>,
}

impl Verdict {
    /// Notes something that has to hold, in words for the case that it does not.
    pub fn holds(&mut self, good: bool, words: impl FnOnce() -> String) {
        if !good {
            self.broken.push(words());
        }
    }

    /// Notes what is wrong, if anything is.
    pub fn excludes(&mut self, wrong: impl IntoIterator<Item = String>) {
        self.broken.extend(wrong);
    }

    #[cfg(test)]
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Prints the figures with what is broken, as JSON or as text; says whether all is well.
    #[must_use]
    pub fn conclude(self, json: bool, mut figures: Value, text: &str) -> bool {
        let good = self.broken.is_empty();
        if json {
            figures["broken"] = self.broken.into();
            say(figures);
        } else {
            say(text);
            self.broken.iter().for_each(|what| say(format_args!("  FAIL  {what}")));
            say(if good { "\nok" } else { "\nFAILED" });
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn anything_broken_spoils_the_whole() {
        let mut verdict = Verdict::default();
        verdict.holds(true, || "one is one".to_owned());
        verdict.excludes(None);
        assert!(verdict.conclude(true, json!({}), ""));
        let mut verdict = Verdict::default();
        verdict.excludes(Some("one is two".to_owned()));
        assert!(!verdict.conclude(false, json!({}), "figures"));
    }
}
