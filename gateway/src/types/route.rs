//! Words of routes: the names of arms, shares of callers, and what a prediction is called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::fmt::Hyphenated;
use uuid::{ContextV7, Timestamp, Uuid};

/// Callers of a route are divided into so many buckets: shares are whole numbers of them.
pub const BUCKETS: u16 = 10_000;

/// The header or metadata by which testers name an arm.
pub const ARM_HEADER: &str = "penstock-arm";

/// Longest name of an arm, in bytes.
const MAX_NAME: usize = 64;

/// A share of the callers of a route, in buckets of 0.01 %.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u16);

/// The name of an arm or a shadow within its route: a word of metrics, answers and URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArmName(Arc<str>);

/// What one prediction is called, in answers, logs and feedback: a UUID of version 7, so that its
/// time is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PredictionId(Uuid);

/// The text of a [`PredictionId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PredictionText([u8; Hyphenated::LENGTH]);

impl Share {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(BUCKETS);

    /// So many buckets; `None` beyond all of them.
    #[must_use]
    pub fn of_buckets(buckets: u16) -> Option<Self> {
        (buckets <= BUCKETS).then_some(Self(buckets))
    }

    #[must_use]
    pub const fn buckets(self) -> u16 {
        self.0
    }

    /// As a part of 1.
    #[must_use]
    pub fn part(self) -> f64 {
        f64::from(self.0) / f64::from(BUCKETS)
    }
}

impl FromStr for Share {
    type Err = String;

    /// Reads `5%`, `0.01%`, `100%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("is \"{text}\", must be a share such as \"5%\" or \"0.01%\"");
        let number = text.strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || !digits(whole) || !digits(part) {
            return Err(wrong());
        }
        if number.ends_with('.') {
            return Err(wrong());
        }
        if part.trim_end_matches('0').len() > 2 {
            return Err(format!("is \"{text}\": shares are whole multiples of 0.01%"));
        }
        let part = &part[..part.len().min(2)];
        let hundredths = format!("{part:0<2}").parse::<u16>().map_err(|_| wrong())?;
        let whole = whole.parse::<u16>().map_err(|_| wrong())?;
        Self::of_buckets(whole.saturating_mul(100).saturating_add(hundredths)).ok_or_else(wrong)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match (part, part % 10) {
            (0, _) => write!(f, "{whole}%"),
            (_, 0) => write!(f, "{whole}.{}%", part / 10),
            _ => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

impl ArmName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ArmName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let valid = !text.is_empty()
            && text.len() <= MAX_NAME
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
            // Numbers are versions, and `direct` is what needs no arm.
            && !text.bytes().all(|b| b.is_ascii_digit())
            && text != "direct";
        if valid {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(MAX_NAME).collect();
        Err(format!(
            "'{shown}' is not a name for an arm: use 1 to {MAX_NAME} small letters, digits, '_' or \
             '-', not a number alone and not 'direct'"
        ))
    }
}

impl TryFrom<String> for ArmName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ArmName> for String {
    fn from(name: ArmName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for ArmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PredictionId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        thread_local! {
            /// Ids of a thread follow each other within a millisecond, too. That of the process
            /// is behind a lock that all I/O threads would meet at with each call.
            static COUNTER: ContextV7 = const { ContextV7::new() };
        }
        Self(COUNTER.with(|counter| Uuid::new_v7(Timestamp::now(counter))))
    }

    /// It as text, without an allocation.
    #[must_use]
    pub fn text(&self) -> PredictionText {
        let mut text = [0; Hyphenated::LENGTH];
        self.0.as_hyphenated().encode_lower(&mut text);
        PredictionText(text)
    }

    /// One that was given before.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl PredictionText {
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It is hexadecimal digits and hyphens.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for PredictionId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for PredictionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_multiples_of_a_hundredth_of_a_percent() {
        for (text, buckets) in
            [("0%", 0), ("0.01%", 1), ("0.1%", 10), ("5%", 500), ("12.50%", 1250), ("100%", 10_000)]
        {
            assert_eq!(text.parse::<Share>().map(Share::buckets), Ok(buckets), "{text}");
        }
        for text in ["", "5", "%", ".5%", "5.%", "-1%", "+1%", "1e1%", "0.001%", "100.01%", "1000%"]
        {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_reads_as_it_is_written() {
        for buckets in 0..=BUCKETS {
            let share = Share::of_buckets(buckets).unwrap();
            assert_eq!(share.to_string().parse(), Ok(share));
        }
        assert_eq!(Share::of_buckets(1250).unwrap().to_string(), "12.5%");
        assert_eq!(Share::of_buckets(BUCKETS + 1), None);
    }

    #[test]
    fn names_of_arms_cannot_be_taken_for_versions() {
        for name in ["", "1", "direct", "A", "a b", "ü", "a/b"] {
            assert!(name.parse::<ArmName>().is_err(), "{name}");
        }
        assert!("x".repeat(65).parse::<ArmName>().is_err());
        assert!("canary-2".parse::<ArmName>().is_ok());
    }

    #[test]
    fn predictions_are_called_differently_and_in_order_of_time() {
        // More than fit a clock's tick, on threads that know nothing of each other.
        let make = || (0..20_000).map(|_| PredictionId::new()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        let ids: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(ids.iter().all(|ids| ids.is_sorted_by(|one, next| one < next)));
        let different: std::collections::HashSet<_> = ids.iter().flatten().collect();
        assert_eq!(different.len(), 80_000);
    }

    #[test]
    fn the_text_of_a_prediction_is_a_uuid_of_version_7() {
        let id = PredictionId::new();
        let text = id.text();
        assert_eq!(text.as_str(), id.to_string());
        let read = Uuid::parse_str(text.as_str()).unwrap();
        assert_eq!((read.as_bytes(), read.get_version_num()), (id.as_bytes(), 7));
    }
}
