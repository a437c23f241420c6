//! What people and scripts read: aligned text, and the same figures as JSON.

use std::io::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::recorder::Tally;
use crate::recording::{Outcome, Recording, rate};

/// Prints a line. A reader that has gone away is no failure.
pub fn say(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// Lines of a table with columns as wide as their widest cell; the first row is the heading.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A row of borrowed cells.
#[must_use]
pub fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

/// Microseconds as people read them.
#[must_use]
pub fn micros(value: u64) -> String {
    let duration = Duration::from_micros(value).as_secs_f64();
    match value {
        0..1_000 => format!("{value} µs"),
        1_000..1_000_000 => format!("{:.2} ms", duration * 1e3),
        _ => format!("{duration:.2} s"),
    }
}

/// Bytes as people read them.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// A part of a whole; `None` of nothing.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a share is shown with few digits")]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The figures of a run, a line each.
#[must_use]
pub fn recording(recording: &Recording) -> String {
    let total = recording.recorder.total();
    let elapsed = recording.elapsed;
    let mut lines = vec![
        vec!["requests".into(), format!("{} in {:.2} s", total.requests(), elapsed.as_secs_f64())],
        vec!["requests/s".into(), format!("{:.1}", rate(total.answered, elapsed))],
        vec!["items/s".into(), format!("{:.1}", rate(total.items, elapsed))],
        vec!["latency".into(), latency(&total)],
        vec!["sending".into(), sending(recording, &total)],
        vec!["versions".into(), versions(&total)],
    ];
    if let Some(accuracy) = share(total.correct, total.labelled) {
        let text = format!("{accuracy:.4}, {} of {} rows", total.correct, total.labelled);
        lines.push(vec!["accuracy".into(), text]);
    }
    if total.checked > 0 {
        let text = format!("{} answers, {} mismatches", total.checked, total.mismatches);
        lines.push(vec!["checked".into(), text]);
    }
    lines.extend(total.mismatch.iter().map(|text| vec!["mismatch".into(), text.clone()]));
    if !total.refused.is_empty() {
        let latency = [0.5, 0.99].map(|part| micros(total.refused.value_at_quantile(part)));
        let text = format!("{}, p50 {}  p99 {}", total.refused.len(), latency[0], latency[1]);
        lines.push(vec!["refused".into(), text]);
    }
    lines.push(vec!["errors".into(), total.failed.to_string()]);
    for (kind, error) in &total.errors {
        let text = format!("{} × {kind}, such as: {}", error.count, error.example);
        lines.push(vec![String::new(), text]);
    }
    table(&lines)
}

fn sending(recording: &Recording, total: &Tally) -> String {
    let sending = &recording.sending;
    let cost = recording.cpu_micros_per_request(total).unwrap_or_default();
    let own = format!("{cost:.1} µs of CPU a request in the load generator");
    let Some(offered) = recording.offered_rate() else { return own };
    format!(
        "offered {offered:.1}/s  achieved {:.1}/s  dropped {}  late p99 {} max {}  {own}",
        recording.achieved_rate(total),
        sending.dropped,
        micros(sending.lag.value_at_quantile(0.99)),
        micros(sending.lag.max()),
    )
}

fn latency(total: &Tally) -> String {
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
    let parts = quantiles.map(|(name, part)| format!("{name} {}", micros(total.quantile(part))));
    format!("{}  max {}", parts.join("  "), micros(total.latency.max()))
}

/// How many calls each version answered.
#[must_use]
pub fn versions(tally: &Tally) -> String {
    let one = |(version, count): (&String, &u64)| {
        let version = if version.is_empty() { "unnamed" } else { version };
        format!("{version}: {count}")
    };
    tally.versions.iter().map(one).collect::<Vec<_>>().join("  ")
}

/// The figures of a run for scripts; latencies in microseconds.
#[must_use]
pub fn recording_json(recording: &Recording) -> Value {
    let total = recording.recorder.total();
    let errors: Map<String, Value> = total
        .errors
        .iter()
        .map(|(kind, error)| {
            (kind.to_string(), json!({ "count": error.count, "example": error.example }))
        })
        .collect();
    json!({
        "seconds": recording.elapsed.as_secs_f64(),
        "requests": total.requests(),
        "answered": total.answered,
        "failed": total.failed,
        "errors": errors,
        "requests_per_second": rate(total.answered, recording.elapsed),
        "items_per_second": rate(total.items, recording.elapsed),
        "latency_us": latency_json(&total.latency),
        "refused": total.refused.len(),
        "refused_latency_us": latency_json(&total.refused),
        "offered_rate": recording.offered_rate(),
        "achieved_rate": recording.achieved_rate(&total),
        "dropped": recording.sending.dropped,
        "send_lag_us": {
            "p99": recording.sending.lag.value_at_quantile(0.99),
            "max": recording.sending.lag.max(),
        },
        "client_cpu_us_per_request": recording.cpu_micros_per_request(&total),
        "versions": total.versions,
        "arms": total.arms,
        "accuracy": share(total.correct, total.labelled),
        "correct": total.correct,
        "labelled": total.labelled,
        "checked": total.checked,
        "mismatches": total.mismatches,
        "mismatch": total.mismatch,
    })
}

/// A run for scripts: the figures of all that counts, of each stage, and over time.
#[must_use]
pub fn outcome_json(outcome: &Outcome) -> Value {
    let mut report = recording_json(&outcome.measured());
    let stages = outcome.stages.iter().map(|(stage, recording)| {
        let mut figures = recording_json(recording);
        figures["name"] = stage.name.clone().into();
        figures["load"] = stage.drive.describe().into();
        figures["warm_up"] = stage.warm_up.into();
        figures
    });
    report["stages"] = stages.collect();
    let interval = outcome.timeline.interval();
    let points = outcome.timeline.points().iter().map(|point| {
        json!({
            "answered": point.answered,
            "failed": point.failed,
            "p50_us": point.quantile(0.5),
            "p99_us": point.quantile(0.99),
        })
    });
    report["timeline"] =
        json!({ "seconds": interval.as_secs_f64(), "points": points.collect::<Vec<_>>() });
    report
}

/// How long something took again and again, from a histogram of microseconds.
#[must_use]
pub fn times(times: &Histogram<u64>) -> String {
    let [p50, p99] = [0.5, 0.99].map(|part| micros(times.value_at_quantile(part)));
    format!("{}, p50 {p50}  p99 {p99}  max {}", times.len(), micros(times.max()))
}

/// The same for scripts.
#[must_use]
pub fn times_json(times: &Histogram<u64>) -> Value {
    let [p50, p99] = [0.5, 0.99].map(|part| times.value_at_quantile(part));
    json!({ "count": times.len(), "p50": p50, "p99": p99, "max": times.max() })
}

fn latency_json(latency: &Histogram<u64>) -> Value {
    json!({
        "p50": latency.value_at_quantile(0.5),
        "p90": latency.value_at_quantile(0.9),
        "p99": latency.value_at_quantile(0.99),
        "p99.9": latency.value_at_quantile(0.999),
        "max": latency.max(),
        "mean": latency.mean(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [row(&["A", "LONG HEADING"]), row(&["longer", "x"]), row(&["é", ""])];
        assert_eq!(table(&rows), "  A       LONG HEADING\n  longer  x\n  é");
    }

    #[test]
    fn times_keep_three_digits_or_so() {
        assert_eq!([999, 1_500, 2_500_000].map(micros), ["999 µs", "1.50 ms", "2.50 s"]);
    }

    #[test]
    fn a_share_of_nothing_is_none() {
        assert_eq!(share(0, 0), None);
        assert_eq!(share(1, 4), Some(0.25));
    }
}
