//! What each stage of a call costs: CPU time by samples of `perf`, or, where that cannot be had,
//! the wall time of the gateway's own phases.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;

use crate::bench::Bench;
use crate::http;
use crate::load::{Load, Protocol};
use crate::perf::{self, ORDER, Recording};
use crate::process::Server;
use crate::row::Row;
use crate::say::progress;
use crate::stats::Spread;

const CALLERS: usize = 64;
/// The load begins before the samples and ends after them.
const MARGIN: Duration = Duration::from_millis(300);
/// Shorter than this, a busy machine has not even started the load.
const SHORTEST: Duration = Duration::from_secs(2);
/// Fewer samples than this say nothing about shares of a hundredth.
const ENOUGH: usize = 200;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    bench.digits()?;
    let mut rows = Vec::new();
    for protocol in [Protocol::Grpc, Protocol::HttpBinary, Protocol::HttpJson] {
        progress(format_args!("stages over {}", protocol.title()));
        let sampled = match perf::available() {
            Ok(()) => sampled(bench, protocol).map_err(|error| format!("{error:#}")),
            Err(why) => Err(why),
        };
        rows.extend(match sampled {
            Ok(rows) => rows,
            Err(why) => phases(bench, protocol, &why)?,
        });
    }
    Ok(rows)
}

fn load(bench: &Bench, protocol: Protocol, duration: Duration) -> Load<'_> {
    let connections = if protocol == Protocol::Grpc { 4 } else { CALLERS };
    Load { callers: CALLERS, connections, ..bench.load(protocol, duration) }
}

fn sampled(bench: &Bench, protocol: Protocol) -> anyhow::Result<Vec<Row>> {
    let server = bench.penstock()?;
    let file = bench.folder("perf")?.join(format!("{}.data", protocol.name()));
    let duration = bench.settings.window(1.0).max(SHORTEST);
    let recording = Recording::start(server.pid(), duration, &file)?;
    let window = bench.loadtest.run(server, &load(bench, protocol, duration + MARGIN))?;
    let counts = recording.finish(&file)?;
    std::fs::remove_file(&file)?;
    let total: usize = counts.values().sum();
    ensure!(total >= ENOUGH, "perf took only {total} samples");
    Ok(shares(protocol, &counts, window.server_us))
}

/// A row for each stage: its share of the samples, and of the CPU time of a call.
#[expect(clippy::cast_precision_loss, reason = "samples are far below 2^53")]
fn shares(protocol: Protocol, counts: &BTreeMap<&'static str, usize>, call_us: f64) -> Vec<Row> {
    let total: usize = counts.values().sum();
    let row = |&(stage, meaning): &(&str, &str)| {
        let share = counts.get(stage).copied().unwrap_or(0) as f64 / total as f64;
        Row::new(
            format!("stages/{}/{stage}", protocol.name()),
            format!("{}, {stage}", protocol.title()),
        )
        .measured("%", &[share * 100.0])
        .value("µs", Spread::of(&[share * call_us]))
        .note(meaning)
    };
    let mut rows: Vec<Row> = ORDER.iter().map(row).collect();
    rows.push(
        Row::new(
            format!("stages/{}/all", protocol.name()),
            format!("{}, all of it", protocol.title()),
        )
        .measured("%", &[100.0])
        .value("µs", Spread::of(&[call_us]))
        .note(format!("{total} samples of CPU time, sampling included")),
    );
    rows
}

/// Wall time of each of the gateway's own phases, as a mean over the calls of a window.
fn phases(bench: &Bench, protocol: Protocol, why: &str) -> anyhow::Result<Vec<Row>> {
    let server = bench.penstock()?;
    let before = scrape(server)?;
    bench.loadtest.run(server, &load(bench, protocol, bench.settings.window(1.0)))?;
    let after = scrape(server)?;
    let means = means(&before, &after);
    ensure!(!means.is_empty(), "the gateway's metrics name no phase");
    let rows = means.into_iter().map(|(phase, mean)| {
        Row::new(
            format!("stages/{}/wall/{phase}", protocol.name()),
            format!("{}, phase {phase}", protocol.title()),
        )
        .value("µs", Spread::of(&[mean]))
        .note(format!("wall time with all waiting, not CPU time: {why}"))
    });
    Ok(rows.collect())
}

fn scrape(server: &Server) -> anyhow::Result<BTreeMap<String, (f64, f64)>> {
    let answer = http::call(&server.metrics, "GET", "/metrics", &[], b"")?;
    Ok(totals(&String::from_utf8_lossy(&answer.body)))
}

/// Seconds and calls of each phase, over all models.
fn totals(text: &str) -> BTreeMap<String, (f64, f64)> {
    let mut totals = BTreeMap::<String, (f64, f64)>::new();
    for line in text.lines().filter(|line| line.starts_with("penstock_phase_seconds_")) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let phase = series.split_once("phase=\"").and_then(|(_, rest)| rest.split('"').next());
        let (Some(phase), Ok(value)) = (phase, value.parse::<f64>()) else { continue };
        let total = totals.entry(phase.to_owned()).or_default();
        if series.starts_with("penstock_phase_seconds_sum") {
            total.0 += value;
        } else if series.starts_with("penstock_phase_seconds_count") {
            total.1 += value;
        }
    }
    totals
}

/// Microseconds of a call in each phase that had one between two scrapes.
fn means(
    before: &BTreeMap<String, (f64, f64)>,
    after: &BTreeMap<String, (f64, f64)>,
) -> Vec<(String, f64)> {
    let mean = |(phase, (seconds, calls)): (&String, &(f64, f64))| {
        let (old_seconds, old_calls) = before.get(phase).copied().unwrap_or_default();
        let calls = calls - old_calls;
        (calls > 0.0).then(|| (phase.clone(), (seconds - old_seconds) * 1e6 / calls))
    };
    after.iter().filter_map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_cost_of_a_call() {
        let counts = BTreeMap::from([("decode", 25), ("engine", 50), ("rest", 25)]);
        let rows = shares(Protocol::Grpc, &counts, 20.0);
        let value = |key: &str| {
            let row = rows.iter().find(|row| row.key == format!("stages/grpc/{key}"));
            row.unwrap().value.unwrap().median
        };
        assert!((value("decode") - 5.0).abs() < 1e-9 && (value("engine") - 10.0).abs() < 1e-9);
        assert!(value("encode").abs() < 1e-9);
        let stages: f64 = ORDER.iter().map(|(stage, _)| value(stage)).sum();
        assert!((stages - value("all")).abs() < 1e-9);
    }

    #[test]
    fn phases_are_means_over_the_calls_between_two_scrapes() {
        let text = |seconds: f64, calls: u32| {
            format!(
                "penstock_phase_seconds_bucket{{model=\"a\",phase=\"queue\",le=\"1\"}} 99\n\
                 penstock_phase_seconds_sum{{model=\"a\",version=\"1\",phase=\"queue\"}} {seconds}\n\
                 penstock_phase_seconds_count{{model=\"a\",version=\"1\",phase=\"queue\"}} {calls}\n\
                 penstock_phase_seconds_sum{{model=\"b\",version=\"1\",phase=\"queue\"}} 0.5\n\
                 penstock_phase_seconds_count{{model=\"b\",version=\"1\",phase=\"queue\"}} 5\n"
            )
        };
        let (before, after) = (totals(&text(1.0, 10)), totals(&text(1.001, 20)));
        let found = means(&before, &after);
        assert_eq!(found.len(), 1);
        assert!((found[0].1 - 100.0).abs() < 1e-6, "{found:?}");
        assert!(means(&after, &after).is_empty());
    }
}
