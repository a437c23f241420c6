//! One revision as a file: JSON with a checksum, so that a torn or changed file is seen as such.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Revision;
use crate::config::Digest;

/// How files are written now. A gateway that meets a later format leaves the file alone.
const FORMAT: u32 = 1;
/// Largest file that is read, in bytes: far beyond what 10,000 routes take.
const LARGEST: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: u32,
    /// Of the text of `revision`.
    checksum: String,
    #[serde(borrow)]
    revision: &'a RawValue,
}

/// The file's name, such that names sort as numbers do.
pub(super) fn name(number: u64) -> String {
    format!("{number:08}.json")
}

/// The number in a file's name; `None` for what is no revision.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (number > 0 && self::name(number) == name).then_some(number)
}

/// The text of a file.
pub(super) fn write(revision: &Revision) -> io::Result<Vec<u8>> {
    let text = RawValue::from_string(serde_json::to_string(revision)?)?;
    let envelope = Envelope { format: FORMAT, checksum: checksum(&text), revision: &text };
    let mut bytes = serde_json::to_vec(&envelope)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Why the file of a revision gives none.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is torn, foreign or gone, and stays so.
    Spoilt(String),
    /// It cannot be read now.
    Unread(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Spoilt(error.to_string()),
            _ => Self::Unread(error),
        }
    }
}

/// Reads the file of a revision.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn read(path: &Path, number: u64) -> Result<Revision, Unusable> {
    let size = path.metadata()?.len();
    if size > LARGEST {
        return Err(Unusable::Spoilt(format!("has {size} bytes, at most {LARGEST} are read")));
    }
    parse(&std::fs::read(path)?, number).map_err(Unusable::Spoilt)
}

fn parse(bytes: &[u8], number: u64) -> Result<Revision, String> {
    let foreign = |error| format!("is torn or no revision: {error}");
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(foreign)?;
    if envelope.format != FORMAT {
        return Err(format!("is of format {}, this gateway reads {FORMAT}", envelope.format));
    }
    if envelope.checksum != checksum(envelope.revision) {
        return Err("does not match its checksum".to_owned());
    }
    let revision: Revision =
        serde_json::from_str(envelope.revision.get()).map_err(|error| error.to_string())?;
    if revision.number != number {
        return Err(format!("holds revision {}", revision.number));
    }
    if !revision.plans.is_sorted_by(|one, next| one.route.name < next.route.name) {
        return Err("names a route twice or out of order".to_owned());
    }
    for plan in &revision.plans {
        plan.table().map_err(|reason| format!("route '{}': {reason}", plan.route.name))?;
    }
    Ok(revision)
}

fn checksum(text: &RawValue) -> String {
    Digest::new(Sha256::digest(text.get()).into()).to_string()
}
