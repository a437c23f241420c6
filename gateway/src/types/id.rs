//! Names of models and versions, checked once.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Kind, Rejection};

/// Longest accepted model name, in bytes.
const MAX_NAME: usize = 128;

/// The name of a model: also a folder, a metric label and a part of URLs, so letters, digits,
/// `_`, `-`, `.` and `+` only, without a leading dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelName(Arc<str>);

impl ModelName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The rejection for a model that is not there. Its phrase is one that callers' code knows
    /// from other servers.
    #[must_use]
    pub fn unknown(name: &str) -> Rejection {
        let name: String = name.chars().take(MAX_NAME).collect();
        Rejection::new(Kind::NotFound, format!("Request for unknown model: '{name}' is not found"))
    }
}

impl FromStr for ModelName {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        let valid = !text.is_empty()
            && text.len() <= MAX_NAME
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.+".contains(&b));
        if valid {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(MAX_NAME).collect();
        Err(Rejection::invalid(format!(
            "'{shown}' is not a model name: use 1 to {MAX_NAME} letters, digits, '_', '-', '.' or \
             '+', not starting with a dot"
        )))
    }
}

impl TryFrom<String> for ModelName {
    type Error = Rejection;

    fn try_from(text: String) -> Result<Self, Rejection> {
        text.parse()
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a model version: the name of its folder, without leading zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = Rejection;

    fn from_str(text: &str) -> Result<Self, Rejection> {
        let canonical = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
        canonical.filter(|&number| number > 0).map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            Rejection::new(
                Kind::NotFound,
                format!("version '{shown}' is not found: versions are numbers from 1"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_repository_are_refused() {
        for name in ["", ".", "..", "a/b", "../a", "a\\b", ".hidden", "a\0b", "a b", "ü"] {
            assert!(name.parse::<ModelName>().is_err(), "{name:?}");
        }
        assert!("x".repeat(129).parse::<ModelName>().is_err());
        assert!("resnet-18_v1.5+cu".parse::<ModelName>().is_ok());
    }

    #[test]
    fn versions_have_one_spelling() {
        assert_eq!("12".parse(), Ok(Version(12)));
        for text in ["", "0", "01", "+1", "1.0", "latest", "99999999999999999999999"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }
}
