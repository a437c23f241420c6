//! What is expected of a run: bounds on its latencies, errors and rates.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::recording::Recording;
use crate::report::{micros, share};

/// One expectation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// A part of the answers comes within a time; the part 1 is the longest.
    Latency { part: f64, limit: Duration },
    /// Failed, dropped and wrong calls among all that were due, at most.
    ErrorShare(f64),
    /// Answers each second, at least.
    Rate(f64),
    /// The achieved rate as a part of the offered one, at least.
    AchievedShare(f64),
}

impl Bound {
    /// A bound by its name in scenarios.
    ///
    /// # Errors
    /// When there is none of this name or the value does not fit it.
    pub fn new(name: &str, value: &str) -> anyhow::Result<Self> {
        let part = match name {
            "p50" => 0.5,
            "p90" => 0.9,
            "p95" => 0.95,
            "p99" => 0.99,
            "p99.9" => 0.999,
            "max" => 1.0,
            "error_share" => return Ok(Self::ErrorShare(number(value, 1.0)?)),
            "achieved_share" => return Ok(Self::AchievedShare(number(value, 1.0)?)),
            "requests_per_second" => return Ok(Self::Rate(number(value, f64::MAX)?)),
            _ => bail!(
                "'{name}' is none of p50, p90, p95, p99, p99.9, max, error_share, \
                 achieved_share, requests_per_second"
            ),
        };
        let limit = humantime::parse_duration(value).with_context(|| format!("'{value}'"))?;
        Ok(Self::Latency { part, limit })
    }

    /// How a run breaks it.
    #[must_use]
    pub fn breach(&self, recording: &Recording) -> Option<String> {
        let total = recording.recorder.total();
        match *self {
            Self::Latency { part, limit } => {
                let value = total.quantile(part);
                let name = if part < 1.0 { format!("p{}", part * 100.0) } else { "max".to_owned() };
                // A run without answers keeps no promise.
                if total.answered == 0 {
                    return Some(format!("{name} of no answer"));
                }
                (u128::from(value) > limit.as_micros()).then(|| {
                    format!("{name} {} above {}", micros(value), humantime::format_duration(limit))
                })
            }
            Self::ErrorShare(limit) => {
                let bad = total.failed + total.mismatches + recording.sending.dropped;
                let all = total.requests() + recording.sending.dropped;
                let part = share(bad, all).unwrap_or(1.0);
                (part > limit).then(|| format!("error share {part:.4} above {limit}"))
            }
            Self::Rate(limit) => {
                let rate = recording.achieved_rate(&total);
                (rate < limit).then(|| format!("{rate:.1} requests/s below {limit}"))
            }
            Self::AchievedShare(limit) => {
                let offered = recording.offered_rate()?;
                let part = recording.achieved_rate(&total) / offered.max(1e-9);
                (part < limit)
                    .then(|| format!("achieved {part:.3} of the offered rate, below {limit}"))
            }
        }
    }
}

impl FromStr for Bound {
    type Err = anyhow::Error;

    /// `p99=20ms`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, value) = text.split_once('=').context("a bound reads p99=20ms")?;
        Self::new(name.trim(), value.trim())
    }
}

fn number(value: &str, most: f64) -> anyhow::Result<f64> {
    let number: f64 = value.parse().with_context(|| format!("'{value}' is no number"))?;
    ensure!((0.0..=most).contains(&number), "{number} does not lie between 0 and {most}");
    Ok(number)
}

/// Every breach of some bounds.
#[must_use]
pub fn breaches(bounds: &[Bound], recording: &Recording) -> Vec<String> {
    bounds.iter().filter_map(|bound| bound.breach(recording)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Phase;

    fn recording() -> Recording {
        let mut recording = Recording { elapsed: Duration::from_secs(1), ..Recording::default() };
        let tally = recording.recorder.of(Phase::Before);
        for milli in 1..=99 {
            tally.answer(Duration::from_millis(milli), 1, "1");
        }
        tally.fail("HTTP 503".into(), String::new);
        recording
    }

    #[test]
    fn bounds_hold_or_say_how_they_are_broken() {
        let breach = |text: &str| text.parse::<Bound>().unwrap().breach(&recording());
        assert_eq!(breach("p50=51ms"), None);
        assert_eq!(breach("p50=20ms").unwrap(), "p50 50.01 ms above 20ms");
        assert_eq!(breach("max=1s"), None);
        assert_eq!(breach("error_share=0.01"), None);
        assert_eq!(breach("error_share=0").unwrap(), "error share 0.0100 above 0");
        assert_eq!(breach("requests_per_second=100").unwrap(), "99.0 requests/s below 100");
        assert_eq!(breach("achieved_share=1"), None);
        let nothing = Recording::default();
        let bound: Bound = "p99=1h".parse().unwrap();
        assert_eq!(bound.breach(&nothing).unwrap(), "p99 of no answer");
    }

    #[test]
    fn an_open_loop_that_falls_behind_is_seen() {
        let mut recording = recording();
        recording.sending.open = true;
        recording.sending.window = Duration::from_secs(1);
        (recording.sending.sent, recording.sending.dropped) = (90, 10);
        recording.sending.answered_within = 80;
        let bound: Bound = "achieved_share=0.99".parse().unwrap();
        let breach = bound.breach(&recording).unwrap();
        assert_eq!(breach, "achieved 0.800 of the offered rate, below 0.99");
    }

    #[test]
    fn bounds_that_are_none_are_refused() {
        for text in ["p99", "p98=1ms", "p99=soon", "error_share=2", "requests_per_second=-1"] {
            assert!(text.parse::<Bound>().is_err(), "{text}");
        }
    }
}
