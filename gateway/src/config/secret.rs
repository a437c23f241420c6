//! What stands in the configuration for a secret: never the secret itself, and never shown by
//! accident.

use std::fmt;
use std::str::FromStr;

use toml::Value;

use super::value::FromToml;

/// The SHA-256 of a credential, written `sha256:` and 64 hexadecimal digits.
///
/// API keys are random tokens of 256 bits, which nobody can guess from a digest; a slow hash with
/// a salt, as passwords need, would protect them no better and cost milliseconds for each call.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

const PREFIX: &str = "sha256:";

impl Digest {
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The text that stands in files.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Logs show settings by their `Debug`.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

impl FromStr for Digest {
    type Err = &'static str;

    /// The error does not repeat the text: somebody may have written a key where its hash belongs.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "must be \"sha256:\" and 64 hexadecimal digits, see `penstock key`";
        let digits = text.strip_prefix(PREFIX).ok_or(WRONG)?.as_bytes();
        let digit =
            |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = digits.as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(WRONG);
        }
        let mut bytes = [0; 32];
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high).ok_or(WRONG)? << 4 | digit(*low).ok_or(WRONG)?;
        }
        Ok(Self(bytes))
    }
}

impl FromToml for Digest {
    fn from_toml(value: &Value) -> Result<Self, String> {
        Ok(String::from_toml(value)?.parse::<Self>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_writes_and_nothing_else() {
        let digest = Digest::new(std::array::from_fn(|i| u8::try_from(i * 8).unwrap()));
        let text = digest.to_string();
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.to_uppercase().replace("SHA256", "sha256").parse(), Ok(digest));
        let wrong =
            ["", "sha256:", &text[1..], &text[..70], &format!("{text}0"), &text.replace('0', "g")];
        for wrong in wrong {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_hash_is_not_repeated() {
        let error = "my-secret-key".parse::<Digest>().unwrap_err();
        assert!(!error.contains("my-secret-key"));
        assert!(!format!("{:?}", Digest::new([0xab; 32])).contains("ab"));
    }
}
