//! What both protocols refuse in the parameters of a call.

use crate::error::{Kind, Rejection};

/// Names come from callers: an error must not echo a megabyte.
#[must_use]
pub fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Refuses parameters that only servers may set.
///
/// # Errors
/// `InvalidInput`, naming the first one.
pub fn refuse_reserved<'a>(mut names: impl Iterator<Item = &'a String>) -> Result<(), Rejection> {
    match names.find(|name| name.starts_with("triton_")) {
        Some(name) => Err(Rejection::invalid(format!(
            "parameter '{}' is reserved: names with 'triton_' are not for callers",
            shorten(name)
        ))),
        None => Ok(()),
    }
}

/// The refusal of a tensor in shared memory; `what` is `input` or `output`.
#[must_use]
pub fn no_shared_memory(what: &str, name: &str) -> Rejection {
    let text = format!("{what} '{}': shared memory is not implemented", shorten(name));
    Rejection::new(Kind::Unsupported, text)
}
