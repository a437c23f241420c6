//! The report of a replay, for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::{shadow_report, table};
use crate::replay::{Asked, Metrics, Report, Skipped};

/// Lines of a table; `--json` has all.
const LINES: usize = 10;
/// Answers that are shown of a label.
const ANSWERS: usize = 4;

pub(super) fn render(report: &Report) -> anyhow::Result<String> {
    let mut out = heading(report);
    out += &sameness(report);
    let mut comparison = serde_json::to_value(&report.comparison)?;
    comparison["name"] = Value::from("replay");
    let _ = write!(
        out,
        "\nlive: as recorded; shadow: as replayed\n{}",
        shadow_report::of_shadow(&comparison)
    );
    out += &examples(report);
    if let Some(metrics) = &report.metrics {
        out += &of_metrics(metrics);
    }
    out += &skipped("not replayed", report.not_replayed.calls, &report.not_replayed.causes);
    let not_compared: u64 = report.not_compared.iter().map(|line| line.calls).sum();
    out += &skipped("compared without an output", not_compared, &report.not_compared);
    out += &notes(report);
    Ok(out)
}

fn heading(report: &Report) -> String {
    let Asked { place, model, version, .. } = &report.target;
    let version = version.as_ref().map_or_else(String::new, |version| format!("/{version}"));
    let place = if *place == "here" { "here" } else { "at the gateway" };
    let mut out = format!("{model}{version} {place}, beside what was recorded:\n");
    for ran in report.recorded.iter().take(LINES) {
        let _ = writeln!(out, "  {}/{}: {} calls", ran.model, ran.version, ran.calls);
    }
    let calls = report.sameness.calls as f64;
    let _ = writeln!(
        out,
        "  in {:.1} s, {:.0} calls/s",
        report.seconds,
        calls / report.seconds.max(1e-9)
    );
    out
}

fn sameness(report: &Report) -> String {
    let same = &report.sameness;
    let mut rows = vec![
        cells("  bit for bit", same.identical),
        cells("  within tolerance", same.within_tolerance),
        cells("  beyond tolerance", same.beyond_tolerance),
        cells("  failed", same.failed),
    ];
    rows.push(vec!["  largest difference".to_owned(), format!("{:.3e}", same.largest_difference)]);
    if same.had_to_be_identical > 0 {
        let text = format!("{} of {} that had to be", same.not_identical, same.had_to_be_identical);
        rows.push(vec!["  not bit for bit".to_owned(), text]);
    }
    format!("\n{}", table::render(&rows))
}

fn cells(name: &str, count: u64) -> Vec<String> {
    vec![name.to_owned(), count.to_string()]
}

fn examples(report: &Report) -> String {
    let first = &report.sameness.first;
    if first.is_empty() {
        return String::new();
    }
    let heading = ["  FIRST THAT DIFFER", "RECORDED OF", "OUTPUT", "ROW", "RECORDED → REPLAYED"];
    let mut rows = vec![table::row(&heading)];
    rows.extend(first.iter().take(LINES).map(|example| {
        vec![
            format!("  {}", example.prediction),
            example.recorded.clone(),
            example.output.clone().unwrap_or_else(|| "-".to_owned()),
            example.row.map_or_else(|| "-".to_owned(), |row| row.to_string()),
            example.summary.clone(),
        ]
    }));
    format!("\n{}", table::render(&rows))
}

fn of_metrics(metrics: &Metrics) -> String {
    let mut rows = vec![table::row(&["  METRIC", "RECORDED", "REPLAYED", "ITEMS"])];
    let number =
        |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let line = |name: &str, recorded: String, replayed: String, items: u64| {
        vec![format!("  {name}"), recorded, replayed, items.to_string()]
    };
    if let Some(accuracy) = &metrics.accuracy {
        let shown = |of: Option<crate::shadow::Proportion>| {
            of.map_or_else(|| "-".to_owned(), |of| of.to_string())
        };
        let items = accuracy.recorded.map_or(0, |of| of.of);
        rows.push(line("accuracy", shown(accuracy.recorded), shown(accuracy.replayed), items));
        if accuracy.recorded_weighted.is_some() {
            let [recorded, replayed] =
                [accuracy.recorded_weighted, accuracy.replayed_weighted].map(number);
            rows.push(line("accuracy, of all calls (estimate)", recorded, replayed, items));
        }
    }
    if let Some(errors) = &metrics.mean_absolute_error {
        let [recorded, replayed] = [errors.recorded, errors.replayed].map(number);
        rows.push(line("mean absolute error", recorded, replayed, errors.items));
    }
    if let Some(reward) = &metrics.reward {
        rows.push(line("reward", number(reward.mean), "-".to_owned(), reward.items));
        let same = number(reward.mean_where_same);
        rows.push(line("reward where answers are the same", same.clone(), same, reward.same_items));
    }
    let labels = metrics.labelled_items;
    let mut out = format!(
        "\n{labels} labelled items, against '{}'\n{}",
        metrics.output,
        table::render(&rows)
    );
    if !metrics.confusion.is_empty() {
        let mut rows = vec![table::row(&["  LABEL", "ITEMS", "RECORDED", "REPLAYED"])];
        rows.extend(metrics.confusion.iter().take(LINES).map(|line| {
            let [recorded, replayed] = [&line.recorded, &line.replayed].map(|counts| {
                let counts = counts.iter().take(ANSWERS);
                counts
                    .map(|count| format!("{}: {}", count.answer, count.items))
                    .collect::<Vec<_>>()
                    .join(", ")
            });
            vec![format!("  {}", line.label), line.items.to_string(), recorded, replayed]
        }));
        let _ = write!(out, "\n{}", table::render(&rows));
    }
    out
}

fn skipped(what: &str, calls: u64, causes: &[Skipped]) -> String {
    if causes.is_empty() {
        return String::new();
    }
    let mut rows = vec![table::row(&["  CAUSE", "FIELD", "CALLS", ""])];
    rows.extend(causes.iter().map(|line| {
        vec![
            format!("  {}", line.cause.replace('_', " ")),
            line.field.clone().unwrap_or_else(|| "-".to_owned()),
            line.calls.to_string(),
            line.detail.clone().unwrap_or_default(),
        ]
    }));
    format!("\n{what}: {calls} calls\n{}", table::render(&rows))
}

/// What is to be known about all of it.
fn notes(report: &Report) -> String {
    let (sampling, log) = (&report.sampling, &report.log);
    let mut notes = Vec::new();
    if sampling.sampled_calls > 0 {
        let least = sampling.least_inclusion.unwrap_or(1.0);
        notes.push(format!(
            "{} calls were sampled, with probabilities from {least:.4}: the comparison counts what is in the log, unweighted",
            sampling.sampled_calls
        ));
    }
    if report.lag_seconds >= 1.0 {
        notes.push(format!("behind the recorded pace by up to {:.1} s", report.lag_seconds));
    }
    let counted = [
        (log.repeats, "rows came once more and were left out"),
        (log.late, "calls were not in the order of arrival"),
        (log.gone, "files were removed before they were read"),
        (log.gaps, "parts of segments cannot be read"),
    ];
    notes.extend(
        counted
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}")),
    );
    notes.extend(log.damage.iter().map(|text| format!("cannot be read: {text}")));
    notes.iter().fold(String::new(), |out, note| format!("{out}\n- {note}"))
        + if notes.is_empty() { "" } else { "\n" }
}
