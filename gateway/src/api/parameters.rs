//! What both protocols refuse in the parameters of a call.

use std::time::Duration;

use super::timeouts::Arrival;
use crate::error::{Kind, Rejection};
use crate::types::{Deadline, Priority, Schedule};

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

/// The refusal of a tensor in shared memory; `what` is `input` or `output`.
#[must_use]
pub fn no_shared_memory(what: &str, name: &str) -> Rejection {
    let text = format!("{what} '{}': shared memory is not implemented", shorten(name));
    Rejection::new(Kind::Unsupported, text)
}
