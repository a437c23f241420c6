//! The figures of a report in plain sentences, and all of them in one word.
//!
//! The thresholds are listed in `docs/operations.md`, "Shadows".

use super::proportion::percent;
use super::report::{Latency, OutputKind, OutputReport, Report, Verdict};
use super::{LaneCounts, Proportion};

/// Calls without which nothing is judged.
const ENOUGH: u64 = 30;
/// It fails when more calls than this surely do (the lower end of the interval).
const FAILING: f64 = 0.01;
/// It differs when fewer labels or rows than this surely agree (the upper end of the interval).
const AGREEING: f64 = 0.99;
/// It differs when vectors are less alike on average.
const COSINE: f64 = 0.99;
/// It differs when single numbers are further off on average, as a part of their value.
const RELATIVE: f64 = 0.01;
/// It is slower from this ratio of times on.
const SLOWER: f64 = 1.5;
/// Ratios of times within this factor are not mentioned.
const SAME_TIME: f64 = 1.2;

/// Writes findings and verdict of everything else that the report holds.
pub(super) fn judge(report: &mut Report) {
    let mut findings = Vec::new();
    if report.calls < ENOUGH {
        findings.push(format!("too few calls to judge: {} of {ENOUGH}", report.calls));
    }
    findings.extend(of_errors(report));
    let mut differs = false;
    for output in &report.outputs {
        let (sentences, is_different) = of_output(output);
        findings.extend(sentences);
        differs |= is_different;
    }
    if report.outputs_left_out > 0 {
        findings.push("some outputs were not compared: there are too many".to_owned());
    }
    let ratio = report.latency.as_ref().and_then(|latency| latency.ratio);
    findings.extend(report.latency.as_ref().and_then(of_latency));
    let is_failing = report.failed.is_some_and(|failed| failed.low > FAILING);
    report.verdict = match () {
        () if report.calls < ENOUGH => Verdict::TooFew,
        () if is_failing => Verdict::Failing,
        () if differs => Verdict::Differs,
        () if ratio.is_some_and(|ratio| ratio.median >= SLOWER) => Verdict::Slower,
        () => Verdict::Alike,
    };
    report.findings = findings;
}

fn of_errors(report: &Report) -> Option<String> {
    let failed = report.failed.filter(|failed| failed.count > 0)?;
    let mut errors: Vec<_> = report.errors.iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let share = if failed.count == failed.of { percent(1.0) } else { failed.to_string() };
    let errors: Vec<_> = errors.iter().map(|(kind, count)| format!("{kind} ({count})")).collect();
    Some(format!("fails {share} of its calls: {}", errors.join(", ")))
}

fn of_latency(latency: &Latency) -> Option<String> {
    let ratio = latency.ratio?;
    let (median, p90) = (ratio.median, ratio.p90);
    if median >= SAME_TIME {
        return Some(format!(
            "{median:.1} times as slow (median; {p90:.1} at the 90th percentile)"
        ));
    }
    (median <= 1.0 / SAME_TIME).then(|| format!("{:.1} times as fast (median)", 1.0 / median))
}

/// Sentences about an output, and whether it is another one than live.
fn of_output(output: &OutputReport) -> (Vec<String>, bool) {
    let name = &output.name;
    let mut findings = Vec::new();
    let mut differs = false;
    for (what, odd) in [("NaN", output.nan), ("infinity", output.infinite)] {
        if odd.shadow > odd.live {
            differs = true;
            let share = |count: u64| percent(count as f64 / output.rows.max(1) as f64);
            let (shadow, live) = (share(odd.shadow), share(odd.live));
            findings.push(format!("{what} in '{name}' in {shadow} of rows (live: {live})"));
        }
    }
    if output.labels_differ {
        differs = true;
        findings.push(format!("the labels of '{name}' are declared differently"));
    }
    if let Some(datatype) = output.shadow_datatype {
        findings.push(format!("'{name}' is {datatype}, live it is {}", output.datatype));
    }
    let (sentence, is_different) = match output.kind {
        OutputKind::Classes => of_labels(output),
        OutputKind::Exact => of_equality(output),
        OutputKind::Vector => of_vectors(output),
        OutputKind::Scalar => of_scalars(output),
    };
    findings.extend(sentence);
    (findings, differs || is_different)
}

fn disagrees(agreement: Proportion) -> bool {
    agreement.high < AGREEING
}

fn of_labels(output: &OutputReport) -> (Option<String>, bool) {
    let Some(agreement) = output.agreement else { return (None, false) };
    let mut text =
        format!("labels of '{}' agree in {agreement} over {}", output.name, agreement.of);
    if let Some(flip) = output.flips.as_ref().and_then(|flips| flips.most.first()) {
        let about = if flip.error > 0 { "about " } else { "" };
        text += &format!("; most often {} → {}: {about}{}", flip.live, flip.shadow, flip.count);
    }
    (Some(text), disagrees(agreement))
}

fn of_equality(output: &OutputReport) -> (Option<String>, bool) {
    let Some(agreement) = output.agreement else { return (None, false) };
    let text = format!("'{}' is equal in {agreement} over {} rows", output.name, agreement.of);
    (Some(text), disagrees(agreement))
}

fn of_vectors(output: &OutputReport) -> (Option<String>, bool) {
    let Some(cosine) = output.cosine else { return (None, false) };
    let (mean, min) = (cosine.mean, cosine.min);
    let text = format!("'{}' has a cosine of {mean:.4} on average, {min:.4} at least", output.name);
    (Some(text), mean < COSINE)
}

fn of_scalars(output: &OutputReport) -> (Option<String>, bool) {
    let Some(difference) = output.difference else { return (None, false) };
    let relative = difference.mean_relative;
    let part =
        relative.map_or_else(String::new, |part| format!(" ({} of the value)", percent(part)));
    let text = format!(
        "'{}' is off by {:.3e} on average{part}, {:.3e} at most",
        output.name, difference.mean, difference.max
    );
    (Some(text), relative.is_some_and(|relative| relative > RELATIVE))
}

/// Says which part of the calls was not compared.
pub(super) fn of_lane(lane: &LaneCounts) -> Option<String> {
    let dropped: u64 = lane.dropped.values().sum();
    if dropped == 0 {
        return None;
    }
    let share = percent(dropped as f64 / lane.sampled.max(1) as f64);
    let mut reasons: Vec<_> = lane.dropped.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let reasons: Vec<_> =
        reasons.iter().map(|(reason, count)| format!("{reason} ({count})")).collect();
    Some(format!("{share} of the sampled calls were not compared: {}", reasons.join(", ")))
}
