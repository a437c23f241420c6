//! Calls a second with the complete log beside those without one, in turns.
//!
//! Conversion yields to calls: under saturation it may do little while calls are measured. So each
//! window is followed by the rest of its conversion, whose CPU time is counted as if it had been
//! taken from the calls of the window: what is left of them is what can be kept up for ever.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::book::Check;
use crate::check::Judge;
use crate::payload::{Schedule, Shape};
use crate::plan::Limit;
use crate::report::row;
use crate::run::Load;

use super::Arguments;
use super::site::Site;

const CALLERS: usize = 64;
const CONNECTIONS: usize = 4;
/// What has to be left of the calls a second without a log.
const LEAST: f64 = 0.80;
/// How long closed segments may have waited at the end of a window.
const LAG: Duration = Duration::from_secs(75);
/// How long conversion may take after the last window.
const CATCH_UP: Duration = Duration::from_secs(120);
/// One of so many answers is read as a whole.
const SAMPLE: u64 = 64;
const WARM_UP: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(200);

/// A kind of log, and its lines of the configuration.
const KINDS: [(&str, &str); 4] = [
    ("no log", ""),
    ("lossy", "guarantee = \"lossy\"\n"),
    ("durable, fsync never", "guarantee = \"durable\"\nfsync = \"never\"\n"),
    ("durable, fsync always", "guarantee = \"durable\"\nfsync = \"always\"\n"),
];
/// So that conversion is at work while calls are measured.
const COMMON: &str = "segment_size = \"16MiB\"\nsegment_age = \"2s\"\nmin_free = \"0B\"\n";

/// One window.
#[derive(Debug, Clone, Copy)]
struct Window {
    rate: f64,
    /// What the process spent on each call, whatever it did meanwhile.
    cpu_us: f64,
    /// What it spent afterwards on what was left of conversion, for each call.
    later_us: f64,
}

/// All windows with one kind of log.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    windows: Vec<Window>,
    answered: u64,
    failed: u64,
    dropped: u64,
    written: u64,
    /// Rows that were converted by the end of their window.
    converted: u64,
    /// The longest that a closed segment had waited at the end of a window.
    lag: Duration,
    /// The longest that the rest of conversion took, with the age at which a segment is closed.
    catch_up: Duration,
}

/// What the logs cost.
#[derive(Debug)]
pub(super) struct Throughput(Vec<Measured>);

/// Measures.
///
/// # Errors
/// When a gateway does not start, or does not convert what it has.
pub(super) async fn perform(arguments: &Arguments) -> anyhow::Result<Throughput> {
    ensure!(arguments.rounds > 0, "there must be a round");
    let (mut sites, mut measured) = (Vec::new(), Vec::new());
    for (name, log) in KINDS {
        let mut site = Site::new(&arguments.scene, arguments.identity)?;
        let common = if log.is_empty() { "" } else { COMMON };
        site.start(&format!("{log}{common}")).await?;
        sites.push(site);
        measured.push(Measured::new(name));
    }
    for round in 0..arguments.rounds {
        for turn in 0..sites.len() {
            // Another one begins each time.
            let at = (round + turn) % sites.len();
            let result = measured[at].measure(&sites[at], arguments).await;
            result.map_err(|error| sites[at].explain(&error))?;
        }
    }
    for (site, measured) in sites.iter_mut().zip(&mut measured) {
        measured.end(site).await.map_err(|error| site.explain(&error))?;
    }
    Ok(Throughput(measured))
}

async fn load(site: &Site, arguments: &Arguments) -> anyhow::Result<Load> {
    let (target, data) = (site.target()?, Arc::new(site.rows().await?));
    let metadata = target.metadata(site.model, "").await?;
    let judge = Judge::new(&metadata, &data, 1, "");
    let (model, version) = (site.model.to_owned(), String::new());
    let shape = Shape { model, version, rows: 1, schedule: Schedule::default() };
    let mut load = Load::new(target, shape, arguments.protocol, data, judge);
    (load.callers, load.connections) = (CALLERS, CONNECTIONS);
    load.check = Check::Sample(SAMPLE);
    Ok(load)
}

impl Measured {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            windows: Vec::new(),
            answered: 0,
            failed: 0,
            dropped: 0,
            converted: 0,
            written: 0,
            lag: Duration::ZERO,
            catch_up: Duration::ZERO,
        }
    }

    async fn measure(&mut self, site: &Site, arguments: &Arguments) -> anyhow::Result<()> {
        let load = load(site, arguments).await?;
        let warm = load.run(Limit::Time(WARM_UP)).await?.recorder.total();
        let (before, earlier) = (cpu(site)?, site.count("converted_rows_total").await?);
        let recording = load.run(Limit::Time(arguments.measure)).await?;
        let during = cpu(site)?;
        let total = recording.recorder.total();
        ensure!(total.answered > 0, "no call was answered");
        let lag = site.figure("conversion_lag_seconds").await?;
        self.lag = self.lag.max(Duration::from_secs_f64(lag.max(0.0)));
        self.answered += warm.answered + total.answered;
        self.failed += warm.failed + total.failed;
        self.converted += site.count("converted_rows_total").await? - earlier;
        self.catch_up = self.catch_up.max(caught_up(site).await?);
        let later = cpu(site)?;
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        let each = |time: Duration| time.as_secs_f64() * 1e6 / total.answered as f64;
        self.windows.push(Window {
            rate: recording.achieved_rate(&total),
            cpu_us: each(during.saturating_sub(before)),
            later_us: each(later.saturating_sub(during)),
        });
        Ok(())
    }

    async fn end(&mut self, site: &mut Site) -> anyhow::Result<()> {
        self.dropped = site.count("dropped_rows_total").await?;
        self.written = site.count("rows_total").await?;
        site.stop().await
    }

    fn median(&self, of: impl Fn(&Window) -> f64) -> f64 {
        median(self.windows.iter().map(of).collect())
    }
}

fn cpu(site: &Site) -> anyhow::Result<Duration> {
    site.gateway()?.cpu_time()
}

/// Waits until all rows are converted; how long that took.
async fn caught_up(site: &Site) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while site.figure("queue_rows").await? > 0.0
        || site.count("converted_rows_total").await? < site.count("rows_total").await?
    {
        ensure!(began.elapsed() < CATCH_UP, "rows wait to be converted after {CATCH_UP:?}");
        sleep(LOOK).await;
    }
    Ok(began.elapsed())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Throughput {
    /// The median over the rounds of the part that is left of the calls without a log: as
    /// measured, and if all conversion had its time from calls.
    fn ratio(&self, of: &Measured) -> (f64, f64) {
        let Some(without) = self.0.first() else { return (0.0, 0.0) };
        let rounds = || without.windows.iter().zip(&of.windows);
        let measured = rounds().map(|(without, with)| with.rate / without.rate);
        let kept = rounds().map(|(without, with)| {
            with.rate / without.rate * with.cpu_us / (with.cpu_us + with.later_us)
        });
        (median(measured.collect()), median(kept.collect()))
    }

    pub(super) fn broken(&self, lenient: bool) -> Vec<String> {
        let mut broken = Vec::new();
        for measured in &self.0 {
            let Measured { name, failed, dropped, answered, written, lag, .. } = measured;
            let mut holds = |good: bool, text: String| {
                if !good {
                    broken.push(format!("throughput, {name}: {text}"));
                }
            };
            holds(*failed == 0, format!("{failed} calls failed"));
            if *name == "no log" {
                continue;
            }
            holds(*dropped == 0, format!("{dropped} rows were dropped"));
            holds(written == answered, format!("{written} rows of {answered} answers"));
            let (_, ratio) = self.ratio(measured);
            // What durable calls cost is told beside it.
            let enough = lenient || *name != "lossy" || ratio >= LEAST;
            holds(enough, format!("{ratio:.3} of the calls without, {LEAST} at least"));
            let keeps_up = lenient || *lag <= LAG;
            holds(keeps_up, format!("conversion was {lag:.1?} behind"));
        }
        broken
    }

    pub(super) fn lines(&self) -> Vec<Vec<String>> {
        let line = |measured: &Measured| {
            let Measured { name, converted, written, lag, catch_up, .. } = measured;
            let rate = measured.median(|window| window.rate);
            let cpu = measured.median(|window| window.cpu_us);
            let mut text = format!("{rate:.0} calls/s, {cpu:.1} µs CPU per call");
            if *written > 0 {
                let (ratio, kept) = self.ratio(measured);
                let later = measured.median(|window| window.later_us);
                text += &format!(
                    ", {ratio:.3} of those without, {kept:.3} with all conversion at their cost; \
                     {converted} of {written} rows converted meanwhile, {lag:.1?} behind, the rest \
                     in {catch_up:.1?} at {later:.1} µs CPU per call"
                );
            }
            row(&[name, &text])
        };
        self.0.iter().map(line).collect()
    }

    pub(super) fn json(&self) -> Value {
        let tell = |measured: &Measured| {
            json!({
                "log": measured.name,
                "calls_per_second": measured.windows.iter().map(|w| w.rate).collect::<Vec<_>>(),
                "cpu_us_per_call": measured.windows.iter().map(|w| w.cpu_us).collect::<Vec<_>>(),
                "cpu_us_later": measured.windows.iter().map(|w| w.later_us).collect::<Vec<_>>(),
                "ratio": self.ratio(measured).0,
                "ratio_kept_up": self.ratio(measured).1,
                "failed": measured.failed,
                "dropped": measured.dropped,
                "rows": measured.written,
                "converted_meanwhile": measured.converted,
                "conversion_lag_seconds": measured.lag.as_secs_f64(),
                "catch_up_seconds": measured.catch_up.as_secs_f64(),
            })
        };
        self.0.iter().map(tell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_rounds_and_no_figure_of_another_machine_hour() {
        let of = |name, rates: [f64; 3], later_us| {
            let windows = rates.map(|rate| Window { rate, cpu_us: 90.0, later_us }).to_vec();
            Measured { windows, ..Measured::new(name) }
        };
        let none = of("no log", [100.0, 50.0, 10.0], 0.0);
        let both = Throughput(vec![none, of("lossy", [70.0, 45.0, 9.5], 10.0)]);
        let (measured, kept) = both.ratio(&both.0[1]);
        assert!((measured - 0.9).abs() < 1e-9 && (kept - 0.81).abs() < 1e-9);
        assert_eq!(both.broken(false), [""; 0]);
        let slow = [of("no log", [100.0; 3], 0.0), of("lossy", [79.0; 3], 0.0)];
        let slow = Throughput(slow.into());
        assert_eq!(slow.broken(true), [""; 0]);
        let told = "throughput, lossy: 0.790 of the calls without, 0.8 at least";
        assert_eq!(slow.broken(false), [told]);
    }
}
