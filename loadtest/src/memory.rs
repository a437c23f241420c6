//! Resident memory around something that must leave nothing behind.

use serde_json::{Value, json};

use crate::report::mebibytes;

/// Memory afterwards, as a part of that before, beside what a quiet process may differ by.
const MOST: f64 = 1.10;
const SLACK: u64 = 32 << 20;

/// Resident bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub before: u64,
    pub after: u64,
}

impl Memory {
    /// That it came back, as words where it did not.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        (self.after > self.allowed())
            .then(|| format!("{} resident afterwards", mebibytes(self.after)))
    }

    fn allowed(&self) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "a size is far below 2^53")]
        #[expect(clippy::cast_possible_truncation, reason = "a size is far below 2^53")]
        #[expect(clippy::cast_sign_loss, reason = "sizes are positive")]
        let grown = (self.before as f64 * MOST) as u64;
        grown + SLACK
    }

    #[must_use]
    pub fn text(&self) -> String {
        format!("{} before, {} after", mebibytes(self.before), mebibytes(self.after))
    }

    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "before": self.before, "after": self.after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_and_some_slack_may_stay() {
        let memory = |after: u64| Memory { before: 1000 << 20, after: after << 20 };
        assert_eq!(memory(1132).broken(), None);
        assert_eq!(memory(1133).broken().as_deref(), Some("1133 MiB resident afterwards"));
    }
}
