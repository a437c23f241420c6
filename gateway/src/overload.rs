//! What keeps the process useful while more is asked of it than it can do: bounds on what is in
//! flight, a watch on memory, and how long calls stand in queues.
//!
//! Refusals cost microseconds: they look at a few atomics, before a body is read.

pub mod delay;
pub mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::config;
use crate::error::{Kind, Rejection};
use crate::telemetry::{Shed, WireMetrics, metrics};
use memory::{Memory, Pressure};

/// While memory is short, larger bodies than this are refused.
const LARGE: usize = 1 << 20;
/// Of the length that a head declares, so much is held before it has come.
const AHEAD: usize = 64 << 10;
/// When a refused caller may try again.
const AGAIN: Duration = Duration::from_secs(1);

/// What the whole process has in flight, and how it stands with memory.
#[derive(Debug)]
pub struct Overload {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    max_calls: usize,
    max_bytes: usize,
    memory: Memory,
    metrics: Arc<WireMetrics>,
}

/// The right of a call to be in flight and to hold so many bytes of its request; given back on
/// drop. The default holds nothing and is bounded by nothing.
#[derive(Debug, Default)]
pub struct Permit {
    overload: Option<Arc<Overload>>,
    calls: usize,
    bytes: usize,
}

/// What there is to see.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub calls: usize,
    pub max_calls: usize,
    pub request_bytes: usize,
    pub max_request_bytes: usize,
    pub memory: memory::Status,
}

impl Overload {
    #[must_use]
    pub fn new(
        limits: &config::Limits,
        settings: &config::Overload,
        metrics: Arc<WireMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_calls: limits.max_in_flight,
            max_bytes: limits.max_in_flight_bytes,
            memory: Memory::new(settings),
            metrics,
        })
    }

    /// Lets a call in whose request will have so many bytes, as far as is known. A length is
    /// declared at no cost, so most of it is held only as it comes.
    ///
    /// # Errors
    /// `Overloaded` when too much is in flight or memory is short.
    pub fn enter(self: &Arc<Self>, bytes: usize) -> Result<Permit, Rejection> {
        let before = self.calls.fetch_add(1, Ordering::Relaxed);
        // From here on dropping the permit takes the call back.
        let mut permit = Permit { overload: Some(self.clone()), calls: 1, bytes: 0 };
        if before >= self.max_calls {
            return Err(self.refuse(Shed::Calls, "too many calls are in flight"));
        }
        if self.memory.pressure() == Pressure::Hard {
            return Err(self.refuse(Shed::Memory, "memory is short"));
        }
        permit.cover(bytes.min(AHEAD))?;
        permit.check(self.bytes.load(Ordering::Relaxed) - permit.bytes, bytes)?;
        Ok(permit)
    }

    /// Holds bytes of a call that was let in elsewhere.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Permit {
        Permit { overload: Some(self.clone()), calls: 0, bytes: 0 }
    }

    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            calls: self.calls.load(Ordering::Relaxed),
            max_calls: self.max_calls,
            request_bytes: self.bytes.load(Ordering::Relaxed),
            max_request_bytes: self.max_bytes,
            memory: self.memory.status(),
        }
    }

    /// Brings the gauges up to date; called before they are rendered.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub fn publish(&self) {
        let status = self.status();
        metrics::IN_FLIGHT.gauge(&[]).set(status.calls as f64);
        metrics::IN_FLIGHT_BYTES.gauge(&[]).set(status.request_bytes as f64);
        self.memory.publish();
    }

    fn refuse(&self, why: Shed, text: &str) -> Rejection {
        self.metrics.shed(why);
        Rejection::new(Kind::Overloaded, format!("the gateway is overloaded: {text}"))
            .with_retry_after(AGAIN)
    }
}

impl Permit {
    /// Holds at least so many bytes in all. One request may always be held alone, however large:
    /// its size has a limit of its own.
    ///
    /// # Errors
    /// `Overloaded` when all requests together would be too large, or this one is large and
    /// memory is short.
    pub fn cover(&mut self, bytes: usize) -> Result<(), Rejection> {
        let Some(overload) = &self.overload else { return Ok(()) };
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let others = overload.bytes.fetch_add(more, Ordering::Relaxed) - self.bytes;
        self.bytes = bytes;
        self.check(others, bytes)
    }

    /// Whether so many bytes would be within the bounds beside those of others.
    fn check(&self, others: usize, bytes: usize) -> Result<(), Rejection> {
        let Some(overload) = &self.overload else { return Ok(()) };
        if others > 0 && others.saturating_add(bytes) > overload.max_bytes {
            return Err(overload.refuse(Shed::Bytes, "the requests in flight are too large"));
        }
        if bytes > LARGE && overload.memory.pressure() != Pressure::None {
            return Err(overload.refuse(Shed::Memory, "memory is short for large requests"));
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(overload) = &self.overload {
            overload.calls.fetch_sub(self.calls, Ordering::Relaxed);
            overload.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    pub(super) fn overload(text: &str) -> Arc<Overload> {
        let text = format!("version = 1\n{text}");
        let config = config::parse(&text, Path::new("")).unwrap();
        Overload::new(&config.limits, &config.overload, Arc::new(WireMetrics::new()))
    }

    fn held(overload: &Overload) -> (usize, usize) {
        let status = overload.status();
        (status.calls, status.request_bytes)
    }

    #[test]
    fn what_is_in_flight_is_bounded_and_refusals_leave_nothing_behind() {
        let overload = overload("[limits]\nmax_in_flight = 2\nmax_in_flight_bytes = '100B'\n");
        let mut first = overload.enter(90).unwrap();
        let refused = overload.enter(11).unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);
        assert_eq!(refused.retry_after(), Some(AGAIN));
        assert_eq!(held(&overload), (1, 90));
        let mut second = overload.enter(10).unwrap();
        assert!(overload.enter(0).is_err());
        assert!(second.cover(11).is_err() && first.cover(90).is_ok());
        drop((first, second));
        assert_eq!(held(&overload), (0, 0));
        // Alone it may be as large as it is.
        let mut alone = overload.enter(60).unwrap();
        alone.cover(1000).unwrap();
        assert!(overload.enter(1).is_err());
        drop(alone);
        assert_eq!(held(&overload), (0, 0));
    }

    #[test]
    fn a_declared_length_holds_little_before_it_comes() {
        let overload = overload("[limits]\nmax_in_flight_bytes = '64MiB'\n");
        let declared = 60 << 20;
        let mut permits: Vec<_> = (0..16).map(|_| overload.enter(declared).unwrap()).collect();
        assert_eq!(held(&overload), (16, 16 * AHEAD));
        permits[0].cover(declared).unwrap();
        assert!(permits[1].cover(declared).is_err(), "it counts as it comes");
        assert!(overload.enter(declared).is_err(), "what would not fit is refused at once");
        drop(permits);
        assert_eq!(held(&overload), (0, 0));
    }

    #[test]
    fn short_memory_keeps_large_requests_out_and_very_short_memory_all() {
        let overload = overload("");
        overload.memory().note(86, 100);
        assert!(overload.enter(LARGE + 1).is_err());
        let mut growing = overload.enter(LARGE).unwrap();
        assert!(growing.cover(LARGE + 1).is_err());
        overload.memory().note(96, 100);
        assert!(overload.enter(0).is_err());
        drop(growing);
        overload.memory().note(10, 100);
        assert!(overload.enter(LARGE + 1).is_ok());
        assert_eq!(held(&overload), (0, 0));
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_nothing_is_lost(
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..90), 1..200),
        ) {
            let overload =
                overload("[limits]\nmax_in_flight = 5\nmax_in_flight_bytes = '200B'\n");
            let mut open: Vec<Permit> = Vec::new();
            for (which, bytes) in steps {
                match bytes % 3 {
                    0 => open.extend(overload.enter(bytes).ok()),
                    1 if !open.is_empty() => drop(open.swap_remove(which.index(open.len()))),
                    _ if !open.is_empty() => {
                        let at = which.index(open.len());
                        if open[at].cover(bytes).is_err() {
                            drop(open.swap_remove(at));
                        }
                    }
                    _ => {}
                }
                let (calls, held) = held(&overload);
                prop_assert!(calls == open.len() && calls <= 5 && held <= 200);
                prop_assert_eq!(held, open.iter().map(|permit| permit.bytes).sum::<usize>());
            }
            drop(open);
            prop_assert_eq!(held(&overload), (0, 0));
        }
    }
}
