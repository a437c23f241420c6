//! What both protocols refuse in the parameters of a call.

use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

use super::Api;
use super::timeouts::Arrival;
use crate::error::{Kind, Rejection};
use crate::types::{Deadline, IdempotencyKey, Priority, Schedule};

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

/// The parameters of the schedule policy extension as they were sent: `None` stands for one that
/// is not there, `Some(None)` for one that is no whole number from 0 on. 0 asks for nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedulePolicy {
    pub priority: Option<Option<u64>>,
    /// In microseconds.
    pub timeout: Option<Option<u64>>,
}

impl SchedulePolicy {
    /// What they ask for, together with what the headers of the call did.
    ///
    /// # Errors
    /// `InvalidInput`, naming the parameter.
    pub fn schedule(self, arrival: Arrival) -> Result<Schedule, Rejection> {
        let number = |name: &str, given: Option<Option<u64>>| match given {
            None => Ok(0),
            Some(Some(number)) => Ok(number),
            Some(None) => {
                let text = format!("parameter '{name}' must be a whole number from 0 on");
                Err(Rejection::invalid(text))
            }
        };
        let timeout = Duration::from_micros(number("timeout", self.timeout)?);
        let is_given = timeout > Duration::ZERO;
        Ok(Schedule {
            priority: Priority::of(number("priority", self.priority)?),
            deadline: Deadline::earlier(
                arrival.deadline,
                is_given.then(|| Deadline::after(arrival.at, timeout)).flatten(),
            ),
            shadow: false,
        })
    }
}

/// The header or metadata that marks the repeats of one call.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The idempotency key among the headers of a call; `None` where keys have no effect.
///
/// # Errors
/// `InvalidInput` for one that is malformed, or more than one.
pub fn idempotency_key(
    api: &Api,
    headers: &HeaderMap,
) -> Result<Option<IdempotencyKey>, Rejection> {
    let Some(first) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    if headers.get_all(IDEMPOTENCY_KEY).iter().nth(1).is_some() {
        return Err(Rejection::invalid("the idempotency key is given twice"));
    }
    checked_key(api, first.as_bytes())
}

/// An idempotency key as it was sent; `None` where keys have no effect.
///
/// # Errors
/// `InvalidInput` for one that is malformed.
pub fn checked_key(api: &Api, given: &[u8]) -> Result<Option<IdempotencyKey>, Rejection> {
    let keys = api.pipeline.keys.as_ref();
    keys.map(|keys| IdempotencyKey::read(given, keys.max_key_length())).transpose()
}

/// The refusal of a tensor in shared memory; `what` is `input` or `output`.
#[must_use]
pub fn no_shared_memory(what: &str, name: &str) -> Rejection {
    let text = format!("{what} '{}': shared memory is not implemented", shorten(name));
    Rejection::new(Kind::Unsupported, text)
}
