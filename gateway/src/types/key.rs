//! The key by which a caller marks the repeats of one call.

use crate::error::Rejection;

/// An idempotency key: the caller's own text, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Checks a key as it came: 1 to `longest` printable ASCII characters.
    ///
    /// # Errors
    /// `InvalidInput`; the key itself is not repeated.
    pub fn read(given: &[u8], longest: usize) -> Result<Self, Rejection> {
        let is_printable = given.iter().all(|byte| matches!(byte, b' '..=b'~'));
        match std::str::from_utf8(given) {
            Ok(text) if is_printable && (1..=longest).contains(&text.len()) => {
                Ok(Self(text.into()))
            }
            _ => Err(Rejection::invalid(format!(
                "the idempotency key must have 1 to {longest} printable ASCII characters"
            ))),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn malformed_keys_are_refused_without_an_echo() {
        for key in ["", "a\nb", "ü", "\u{7f}", &"x".repeat(256)] {
            let text = IdempotencyKey::read(key.as_bytes(), 255).unwrap_err().to_string();
            assert!(text.contains("1 to 255 printable ASCII"), "{text}");
        }
        let longest = "x".repeat(255);
        assert_eq!(IdempotencyKey::read(longest.as_bytes(), 255).unwrap().as_str(), longest);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(key) = IdempotencyKey::read(&bytes, 30) {
                prop_assert_eq!(key.as_str().as_bytes(), &bytes[..]);
                prop_assert!(!bytes.is_empty() && bytes.len() <= 30 && bytes.is_ascii());
            }
        }
    }
}
