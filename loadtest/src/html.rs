//! A run as one page that needs nothing beside it: figures in tables, charts as inline SVG.

use std::collections::BTreeMap;

use crate::compare::{self, FIGURES};
use crate::job::Rounds;
use crate::recording::{Outcome, Recording};
use crate::report::{self, micros};

mod chart;

use chart::{Series, bars, escape, lines};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;\
    padding:0 1em;color:#222;background:#fff}h1{font-size:1.5em}h2{font-size:1.15em;\
    margin-top:2em}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
    th,td{padding:.3em .6em;border-bottom:1px solid #ddd;text-align:right}th:first-child,\
    td:first-child{text-align:left}svg{width:100%;height:auto;font-size:12px}.grid{stroke:#e5e5e5}\
    .end{text-anchor:end}.mid{text-anchor:middle}.bad{color:#b00020}";
/// Nines of the last percentile that is drawn: 99.999 %.
const NINES: f64 = 5.0;
/// Points of a percentile line.
const STEPS: u32 = 100;

/// The page of a run on one target or several; `breaches` are expectations that do not hold.
#[must_use]
pub fn page(title: &str, load: &str, targets: &[Rounds], breaches: &[String]) -> String {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>{}</p>\n",
        escape(load)
    );
    for breach in breaches {
        page += &format!("<p class=\"bad\">does not hold: {}</p>\n", escape(breach));
    }
    page += &figures(targets);
    if targets.len() > 1 {
        page += &side_by_side(targets);
    }
    page += "<h2>Latency by percentile</h2>\n";
    page += &percentiles(targets);
    page += "<h2>Answers over time</h2>\n";
    page += &over_time(
        targets,
        &|outcome, at| {
            let point = &outcome.timeline.points()[at];
            count(point.answered) / outcome.timeline.interval().as_secs_f64()
        },
        &|value| format!("{value:.0}/s"),
    );
    page += "<h2>p99 over time</h2>\n";
    page += &over_time(
        targets,
        &|outcome, at| outcome.timeline.points()[at].quantile(0.99),
        &show_micros,
    );
    page += "<h2>Errors by kind</h2>\n";
    page += &errors(targets);
    page + "</body></html>\n"
}

/// All rounds of a target together.
fn all(target: &Rounds) -> Recording {
    let mut all = Recording::default();
    target.outcomes.iter().for_each(|outcome| all.append(&outcome.measured()));
    all
}

fn figures(targets: &[Rounds]) -> String {
    let mut table = "<table><tr><th>target</th><th>requests</th><th>offered/s</th>\
        <th>achieved/s</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th>\
        <th>failed</th><th>dropped</th><th>wrong</th></tr>\n"
        .to_owned();
    let mut row = |name: &str, recording: &Recording| {
        let total = recording.recorder.total();
        let offered =
            recording.offered_rate().map_or("–".to_owned(), |rate| format!("{rate:.1}"));
        let mut cells = vec![escape(name), total.requests().to_string(), offered];
        cells.push(format!("{:.1}", recording.achieved_rate(&total)));
        cells.extend([0.5, 0.9, 0.99, 0.999].map(|part| micros(total.quantile(part))));
        cells.push(micros(total.latency.max()));
        cells.extend(
            [total.failed, recording.sending.dropped, total.mismatches].map(|n| n.to_string()),
        );
        table += &format!("<tr><td>{}</td></tr>\n", cells.join("</td><td>"));
    };
    for target in targets {
        row(&target.name, &all(target));
        // Stages of a single round; those of several are in the JSON.
        if let [outcome] = &target.outcomes[..]
            && outcome.stages.len() > 1
        {
            for (stage, recording) in &outcome.stages {
                let kind = if stage.warm_up { ", not counted" } else { "" };
                row(&format!("· {}: {}{kind}", stage.name, stage.drive.describe()), recording);
            }
        }
    }
    table + "</table>\n"
}

fn side_by_side(targets: &[Rounds]) -> String {
    let mut text = "<h2>Side by side</h2>\n".to_owned();
    for figure in FIGURES {
        let bar = |(index, target): (usize, &Rounds)| {
            let value = compare::median(target, figure);
            let shown = if figure.name.starts_with('p') {
                show_micros(value)
            } else {
                format!("{value:.3}")
            };
            let ratio = compare::ratio(targets, index, figure).filter(|_| index > 0);
            let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2}×)"));
            (target.name.clone(), value, shown + &ratio)
        };
        let all: Vec<_> = targets.iter().enumerate().map(bar).collect();
        text += &format!("<h3>{} (median of rounds)</h3>\n", figure.name.replace('_', " "));
        text += &bars(figure.name, &all);
    }
    text
}

/// Latencies over percentiles, each nine as wide as the one before.
fn percentiles(targets: &[Rounds]) -> String {
    let line = |target: &Rounds| {
        let total = all(target).recorder.total();
        let point = |step: u32| {
            let place = f64::from(step) / f64::from(STEPS);
            let part = 1.0 - 10_f64.powf(-place * NINES);
            (place, count(total.quantile(part)))
        };
        // Beyond the longest of so many answers there is nothing to draw.
        let last = if total.answered > 0 { count(total.answered).log10() / NINES } else { 0.0 };
        let points = (0..=STEPS).map(point).filter(|point| point.0 <= last.max(0.2)).collect();
        Series { name: target.name.clone(), points }
    };
    let series: Vec<Series> = targets.iter().map(line).collect();
    let names = ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
    let across: Vec<(f64, String)> = (0_u32..)
        .zip(names)
        .map(|(nine, name)| (f64::from(nine) / NINES, name.to_owned()))
        .collect();
    lines("latency by percentile", &series, &across, &show_micros)
}

/// A line over the time of each target's last round.
fn over_time(
    targets: &[Rounds],
    value: &dyn Fn(&Outcome, usize) -> f64,
    show: &dyn Fn(f64) -> String,
) -> String {
    let last = |target: &Rounds| target.outcomes.last().cloned();
    let length = |outcome: &Outcome| {
        outcome.timeline.interval().as_secs_f64() * size(outcome.timeline.points().len())
    };
    let longest =
        targets.iter().filter_map(last).map(|outcome| length(&outcome)).fold(0.1, f64::max);
    let line = |target: &Rounds| {
        let outcome = target.outcomes.last()?;
        let interval = outcome.timeline.interval().as_secs_f64();
        let place = |at: usize| (size(at) + 0.5) * interval / longest;
        let points = 0..outcome.timeline.points().len();
        let points = points.map(|at| (place(at), value(outcome, at))).collect();
        Some(Series { name: target.name.clone(), points })
    };
    let series: Vec<Series> = targets.iter().filter_map(line).collect();
    let across: Vec<(f64, String)> =
        [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| (part, format!("{:.1} s", part * longest))).into();
    lines("over time", &series, &across, show)
}

fn errors(targets: &[Rounds]) -> String {
    let mut kinds: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for target in targets {
        let recording = all(target);
        let total = recording.recorder.total();
        let prefix = if targets.len() > 1 { format!("{}: ", target.name) } else { String::new() };
        for (kind, error) in &total.errors {
            kinds.insert(format!("{prefix}{kind}"), (error.count, error.example.clone()));
        }
        for (kind, number) in
            [("dropped", recording.sending.dropped), ("wrong answer", total.mismatches)]
        {
            if number > 0 {
                kinds.insert(format!("{prefix}{kind}"), (number, String::new()));
            }
        }
    }
    if kinds.is_empty() {
        return "<p>none</p>\n".to_owned();
    }
    let bar = |(kind, (number, _)): (&String, &(u64, String))| {
        (kind.clone(), count(*number), number.to_string())
    };
    let chart = bars("errors by kind", &kinds.iter().map(bar).collect::<Vec<_>>());
    let examples = kinds.iter().filter(|(_, (_, example))| !example.is_empty());
    let items: Vec<String> = examples
        .map(|(kind, (_, example))| format!("<li>{}: {}</li>", escape(kind), escape(example)))
        .collect();
    format!("{chart}<ul>{}</ul>\n", items.join("\n"))
}

#[expect(clippy::cast_possible_truncation, reason = "an axis shows whole microseconds")]
#[expect(clippy::cast_sign_loss, reason = "latencies are positive")]
fn show_micros(value: f64) -> String {
    report::micros(value.round() as u64)
}

#[expect(clippy::cast_precision_loss, reason = "a chart shows few digits")]
fn count(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a chart has few points")]
fn size(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::{Drive, Limit, LoadStage};
    use crate::recorder::Phase;
    use crate::timeline::Timeline;

    fn target(name: &str) -> Rounds {
        let mut recording = Recording { elapsed: Duration::from_secs(1), ..Recording::default() };
        let mut timeline = Timeline::default();
        let tally = recording.recorder.of(Phase::Before);
        for milli in 1..=1000 {
            tally.answer(Duration::from_millis(milli), 1, "1");
            let latency = Duration::from_millis(milli);
            timeline.record(Duration::from_millis(milli), Some(latency));
        }
        tally.fail("HTTP 503".into(), || "the <queue> is full".to_owned());
        let limit = Limit::Time(Duration::from_secs(1));
        let drive = Drive::callers(3);
        let stage = LoadStage { name: "s".to_owned(), drive, limit, warm_up: false };
        let outcome = Outcome { stages: vec![(stage, recording)], timeline };
        Rounds { name: name.to_owned(), outcomes: vec![outcome] }
    }

    #[test]
    fn a_page_is_whole_in_itself_and_holds_the_figures() {
        let page = page("a & b", "3 callers", &[target("one"), target("<two>")], &["p99".into()]);
        for outside in ["http://", "https://", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for part in [
            "<h1>a &amp; b</h1>",
            "3 callers",
            "does not hold: p99",
            "1001",
            "990.2",
            "&lt;two&gt;",
            "HTTP 503",
            "the &lt;queue&gt; is full",
            "99.99 %",
            "(1.00×)",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(page.matches("<svg").count() >= 4);
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn a_page_of_nothing_is_a_page() {
        let page = page("t", "l", &[Rounds { name: "a".to_owned(), outcomes: vec![] }], &[]);
        assert!(page.ends_with("</body></html>\n") && !page.contains("NaN"));
    }
}
