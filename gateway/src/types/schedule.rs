//! When a call should run: how urgent it is and how long its caller waits.

use std::time::Duration;

use tokio::time::Instant;

/// How urgent a call is, from 1, the most urgent, to 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    pub const LEAST: u8 = 9;

    /// The level that a caller or a manifest names. 0 names none; what is beyond 9 counts as 9.
    #[must_use]
    pub fn of(level: u64) -> Option<Self> {
        let level = u8::try_from(level).unwrap_or(u8::MAX).min(Self::LEAST);
        (level > 0).then_some(Self(level))
    }

    #[must_use]
    pub fn level(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(5)
    }
}

/// The moment after which nobody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// So long after `start`; none where that is beyond what the clock can name.
    #[must_use]
    pub fn after(start: Instant, time: Duration) -> Option<Self> {
        start.checked_add(time).map(Self)
    }

    /// The earlier of two, either of which may be missing.
    #[must_use]
    pub fn earlier(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    #[must_use]
    pub fn has_passed(self, now: Instant) -> bool {
        now >= self.0
    }
}

/// What a call asks of the batcher.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The model's own where the call names none.
    pub priority: Option<Priority>,
    pub deadline: Option<Deadline>,
    /// Runs behind all live calls of its device.
    pub shadow: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_beyond_the_scale_are_the_least_urgent() {
        assert_eq!(Priority::of(0), None);
        assert_eq!(Priority::of(1).map(Priority::level), Some(1));
        assert_eq!(Priority::of(u64::MAX).map(Priority::level), Some(9));
        assert!(Priority::of(1) < Some(Priority::default()));
    }

    #[test]
    fn the_earlier_deadline_counts() {
        let now = Instant::now();
        let (near, far) = (Some(Deadline(now)), Deadline::after(now, Duration::from_secs(1)));
        assert_eq!(Deadline::earlier(far, near), near);
        assert_eq!(Deadline::earlier(None, far), far);
        assert!(near.is_some_and(|deadline| deadline.has_passed(now)));
        assert_eq!(Deadline::after(now, Duration::MAX), None);
    }
}
