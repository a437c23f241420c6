//! When a call should run: how urgent it is and how long its caller waits.

use std::time::Duration;

use serde::Serialize;
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

    /// The word for it in metrics.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self.0 {
            ..=3 => "high",
            4..=6 => "normal",
            _ => "low",
        }
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

/// How long calls may take that do not say, and how long at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Patience {
    #[serde(rename = "default_timeout")]
    pub default: Option<Duration>,
    #[serde(rename = "max_timeout")]
    pub max: Option<Duration>,
}

impl Patience {
    /// Its own, and what it leaves open as `outer` says; of two maxima the smaller one holds.
    #[must_use]
    pub fn within(self, outer: Self) -> Self {
        let max = match (self.max, outer.max) {
            (Some(own), Some(outer)) => Some(own.min(outer)),
            (own, outer) => own.or(outer),
        };
        Self { default: self.default.or(outer.default), max }
    }

    /// The deadline of a call that arrived then and asks for this one.
    #[must_use]
    pub fn deadline(self, arrived: Instant, asked: Option<Deadline>) -> Option<Deadline> {
        let after = |time: Option<Duration>| time.and_then(|time| Deadline::after(arrived, time));
        Deadline::earlier(asked.or_else(|| after(self.default)), after(self.max))
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
    fn the_default_is_for_calls_that_do_not_say_and_the_maximum_for_all() {
        let seconds = |count: Option<u64>| count.map(Duration::from_secs);
        let patience = |default, max| Patience { default: seconds(default), max: seconds(max) };
        let arrived = Instant::now();
        let at = |time: Option<u64>| time.map(|time| Deadline(arrived + Duration::from_secs(time)));
        // Model, process, asked for: what holds.
        for (model, process, asked, expected) in [
            ((None, None), (None, None), None, None),
            ((None, None), (None, None), Some(7), Some(7)),
            ((None, None), (Some(60), Some(600)), None, Some(60)),
            ((None, None), (Some(60), Some(600)), Some(7), Some(7)),
            ((None, None), (Some(60), Some(600)), Some(100), Some(100)),
            ((None, None), (Some(60), Some(600)), Some(1000), Some(600)),
            ((Some(90), None), (Some(60), Some(600)), None, Some(90)),
            ((Some(2), Some(5)), (Some(60), Some(600)), None, Some(2)),
            ((Some(2), Some(5)), (Some(60), Some(600)), Some(7), Some(5)),
            ((None, Some(5)), (Some(60), Some(600)), None, Some(5)),
            ((None, Some(900)), (None, Some(600)), Some(1000), Some(600)),
        ] {
            let found = patience(model.0, model.1)
                .within(patience(process.0, process.1))
                .deadline(arrived, at(asked));
            assert_eq!(found, at(expected), "{model:?} {process:?} {asked:?}");
        }
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
