//! `[breaker]`: when the calls of a failing version are refused without trying. The same keys in
//! `model.toml` win for one model.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::{OrOff, Percent};

/// Longer times than this are mistakes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// When a circuit breaker opens and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Breaker {
    pub enabled: bool,
    /// How far back batches are counted.
    pub window: Duration,
    /// Fewer batches than this in the window say nothing about rates.
    pub min_samples: u32,
    /// Share of failed batches that opens it, from 0 to 1.
    pub failure_rate: f64,
    /// Batches that fail one after the other and open it.
    pub consecutive: u32,
    /// A run beyond this is slow; `None`: none is.
    pub slow_call: Option<Duration>,
    /// Share of slow batches that opens it, from 0 to 1.
    pub slow_rate: f64,
    /// Answers with NaN one after the other that open it; `None`: NaN does not.
    pub nan_answers: Option<u32>,
    /// How long it stays open the first time; doubles each time.
    pub open_time: Duration,
    pub max_open_time: Duration,
    /// How long a trial call may wait for an engine thread before another one is let through.
    pub probe_timeout: Duration,
    /// Trial calls that have to succeed, one after the other.
    pub probes: u32,
    /// After being closed for so long, the open time starts over.
    pub reset_after: Duration,
}

/// What a file says about a breaker; the rest is as elsewhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BreakerSettings {
    enabled: Option<bool>,
    window: Option<Duration>,
    min_samples: Option<u32>,
    failure_rate: Option<f64>,
    consecutive: Option<u32>,
    slow_call: Option<Option<Duration>>,
    slow_rate: Option<f64>,
    nan_answers: Option<Option<u32>>,
    open_time: Option<Duration>,
    max_open_time: Option<Duration>,
    probe_timeout: Option<Duration>,
    probes: Option<u32>,
    reset_after: Option<Duration>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            enabled: true,
            window: Duration::from_secs(10),
            min_samples: 20,
            failure_rate: 0.5,
            consecutive: 5,
            slow_call: None,
            slow_rate: 0.8,
            nan_answers: Some(20),
            open_time: Duration::from_secs(1),
            max_open_time: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(5),
            probes: 3,
            reset_after: Duration::from_secs(60),
        }
    }
}

impl BreakerSettings {
    /// Reads the section of either file.
    pub fn read(mut section: Section<'_>) -> Self {
        let settings = Self {
            enabled: section.take("enabled"),
            window: time(&mut section, "window"),
            min_samples: count(&mut section, "min_samples"),
            failure_rate: rate(&mut section, "failure_rate"),
            consecutive: count(&mut section, "consecutive"),
            slow_call: section.take::<OrOff<Duration>>("slow_call").map(|slow| slow.0),
            slow_rate: rate(&mut section, "slow_rate"),
            nan_answers: count_or_off(&mut section, "nan_answers"),
            open_time: time(&mut section, "open_time"),
            max_open_time: time(&mut section, "max_open_time"),
            probe_timeout: time(&mut section, "probe_timeout"),
            probes: count(&mut section, "probes"),
            reset_after: time(&mut section, "reset_after"),
        };
        if let (Some(first), Some(longest)) = (settings.open_time, settings.max_open_time)
            && first > longest
        {
            section.problem("open_time", "is longer than max_open_time");
        }
        section.finish();
        settings
    }

    /// What holds where these settings stand above others.
    #[must_use]
    pub fn over(&self, below: &Breaker) -> Breaker {
        Breaker {
            enabled: self.enabled.unwrap_or(below.enabled),
            window: self.window.unwrap_or(below.window),
            min_samples: self.min_samples.unwrap_or(below.min_samples),
            failure_rate: self.failure_rate.unwrap_or(below.failure_rate),
            consecutive: self.consecutive.unwrap_or(below.consecutive),
            slow_call: self.slow_call.unwrap_or(below.slow_call),
            slow_rate: self.slow_rate.unwrap_or(below.slow_rate),
            nan_answers: self.nan_answers.unwrap_or(below.nan_answers),
            open_time: self.open_time.unwrap_or(below.open_time),
            max_open_time: self.max_open_time.unwrap_or(below.max_open_time),
            probe_timeout: self.probe_timeout.unwrap_or(below.probe_timeout),
            probes: self.probes.unwrap_or(below.probes),
            reset_after: self.reset_after.unwrap_or(below.reset_after),
        }
    }
}

fn time(section: &mut Section<'_>, key: &str) -> Option<Duration> {
    let time: Duration = section.take(key)?;
    if time.is_zero() || time > LONGEST {
        section.problem(key, "must be longer than zero and at most a day");
        return None;
    }
    Some(time)
}

fn count(section: &mut Section<'_>, key: &str) -> Option<u32> {
    let count: u64 = section.take(key)?;
    in_bounds(section, key, count)
}

fn in_bounds(section: &Section<'_>, key: &str, count: u64) -> Option<u32> {
    let small = u32::try_from(count).ok().filter(|&count| count > 0 && count <= 1_000_000);
    if small.is_none() {
        section.problem(key, "must be from 1 to 1000000");
    }
    small
}

fn count_or_off(section: &mut Section<'_>, key: &str) -> Option<Option<u32>> {
    let OrOff(count) = section.take::<OrOff<u64>>(key)?;
    let Some(count) = count else { return Some(None) };
    in_bounds(section, key, count).map(Some)
}

fn rate(section: &mut Section<'_>, key: &str) -> Option<f64> {
    let Percent(rate) = section.take(key)?;
    if rate <= 0.0 {
        section.problem(key, "must be more than 0%");
        return None;
    }
    Some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader::{Problems, table};

    fn read(text: &str) -> Result<BreakerSettings, Vec<String>> {
        let problems = Problems::default();
        let settings = BreakerSettings::read(Section::root(table(text).unwrap(), &problems));
        problems.into_result(settings).map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_a_model_says_wins_over_what_the_gateway_says() {
        let gateway = read("consecutive = 9\nslow_call = '1s'\nnan_answers = 7").unwrap();
        let gateway = gateway.over(&Breaker::default());
        let model = read("slow_call = 'off'\nfailure_rate = '25%'").unwrap().over(&gateway);
        assert_eq!((model.consecutive, model.slow_call), (9, None));
        assert_eq!((model.failure_rate, model.nan_answers), (0.25, Some(7)));
        let off = read("nan_answers = 'off'").unwrap().over(&gateway);
        assert_eq!(off.nan_answers, None);
        assert_eq!(read("nan_answers = 3").unwrap().over(&off).nan_answers, Some(3));
    }

    #[test]
    fn settings_that_cannot_hold_are_named() {
        let text = "window = '0s'\nprobes = 0\nfailure_rate = '0%'\nslow_rate = '101%'\n\
                    open_time = '2s'\nmax_open_time = '1s'\nprobe_timeout = '2 days'";
        assert_eq!(
            read(text).unwrap_err(),
            [
                "window: must be longer than zero and at most a day",
                "failure_rate: must be more than 0%",
                "slow_rate: is \"101%\", must be a percentage such as \"50%\"",
                "probe_timeout: must be longer than zero and at most a day",
                "probes: must be from 1 to 1000000",
                "open_time: is longer than max_open_time",
            ]
        );
    }
}
