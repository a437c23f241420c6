//! The report about the shadows of a route, for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::route::{list_of, text};
use super::table;

/// Disagreeing predictions that are shown of each shadow; `--json` has all.
const WORST: usize = 5;
/// Flips that are shown of each output.
const FLIPS: usize = 5;

/// Sentences first, then figures.
pub(super) fn render(answer: &Value) -> String {
    let shadows = list_of(&answer["shadows"]);
    if shadows.is_empty() {
        return format!("{}: no shadow sees its calls\n", text(&answer["route"]));
    }
    shadows.iter().map(of_shadow).collect::<Vec<_>>().join("\n")
}

/// One shadow.
pub(super) fn of_shadow(shadow: &Value) -> String {
    let verdict = text(&shadow["verdict"]).replace('_', " ");
    let mut lines = vec![format!(
        "{}: {verdict}  ({} calls, {} rows, in {:.0} s)",
        text(&shadow["name"]),
        text(&shadow["calls"]),
        text(&shadow["rows"]),
        shadow["seconds"].as_f64().unwrap_or(0.0),
    )];
    lines.extend(list_of(&shadow["findings"]).iter().map(|line| format!("  - {}", text(line))));
    lines.push(format!("  failed calls: {}", proportion(&shadow["failed"])));
    lines.extend(latency(&shadow["latency"]));
    lines.extend(lane(&shadow["lane"]));
    let mut out = lines.join("\n") + "\n";
    let outputs = list_of(&shadow["outputs"]);
    if !outputs.is_empty() {
        let _ = write!(out, "\n{}", table::render(&output_rows(outputs)));
    }
    for output in outputs {
        let flips = list_of(&output["flips"]["most"]);
        for flip in flips.iter().take(FLIPS) {
            let (live, shadow) = (text(&flip["live"]), text(&flip["shadow"]));
            let name = text(&output["name"]);
            let _ = writeln!(out, "  {name}: {live} → {shadow}, {} times", text(&flip["count"]));
        }
    }
    let worst = list_of(&shadow["worst"]);
    if !worst.is_empty() {
        let mut rows = vec![table::row(&["  PREDICTION", "OUTPUT", "ROW", "LIVE → SHADOW"])];
        rows.extend(worst.iter().take(WORST).map(|pair| {
            let prediction = format!("  {}", text(&pair["prediction"]));
            vec![prediction, text(&pair["output"]), text(&pair["row"]), text(&pair["summary"])]
        }));
        let _ = write!(out, "\n{}", table::render(&rows));
    }
    out
}

fn output_rows(outputs: &[Value]) -> Vec<Vec<String>> {
    let heading =
        ["  OUTPUT", "KIND", "AGREEMENT (95 %)", "FLIPS", "MEAN DIFF", "MAX DIFF", "COSINE", "NAN"];
    let mut rows = vec![table::row(&heading)];
    for output in outputs {
        rows.push(vec![
            format!("  {}", text(&output["name"])),
            text(&output["kind"]),
            proportion(&output["agreement"]),
            text(&output["flips"]["total"]),
            number(&output["difference"]["mean"]),
            number(&output["difference"]["max"]),
            number(&output["cosine"]["mean"]),
            format!("{} (live {})", text(&output["nan"]["shadow"]), text(&output["nan"]["live"])),
        ]);
    }
    rows
}

/// `98.5 % (97.1–99.3 %) of 1000`
fn proportion(value: &Value) -> String {
    let percent = |key: &str| 100.0 * value[key].as_f64().unwrap_or(0.0);
    match value["of"].as_u64() {
        None => "-".to_owned(),
        Some(of) => format!(
            "{:.2} % ({:.2}–{:.2} %) of {of}",
            percent("share"),
            percent("low"),
            percent("high")
        ),
    }
}

fn latency(latency: &Value) -> Option<String> {
    let ratio = &latency["ratio"];
    let (median, p90) = (ratio["median"].as_f64()?, ratio["p90"].as_f64()?);
    let milliseconds = |key: &str| {
        let seconds = latency[key]["median"].as_f64();
        seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.3} ms", seconds * 1e3))
    };
    Some(format!(
        "  time against live: {median:.2} times (median), {p90:.2} (90th percentile); live {}, \
         shadow {}",
        milliseconds("live_seconds"),
        milliseconds("shadow_seconds")
    ))
}

/// What the shadow was meant to see and did not.
fn lane(lane: &Value) -> Option<String> {
    let dropped = lane["dropped"].as_object()?;
    let dropped: Vec<String> = dropped
        .iter()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    if dropped.is_empty() {
        return None;
    }
    Some(format!("  not seen: {} of {} calls", dropped.join(", "), text(&lane["sampled"])))
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_read_from_the_verdict_down() {
        let shown = render(&json!({ "route": "digits", "shadows": [{
            "name": "next", "verdict": "differs", "findings": ["1.5 % of labels turn"],
            "seconds": 61.2, "calls": 1000, "rows": 2000, "errors": { "engine_failed": 2 },
            "failed": { "count": 2, "of": 1000, "share": 0.002, "low": 0.0005, "high": 0.0073 },
            "latency": { "pairs": 998, "ratio": { "median": 1.2, "p90": 2.0 },
                         "live_seconds": { "median": 0.001, "p90": 0.002 },
                         "shadow_seconds": { "median": 0.0012, "p90": 0.004 } },
            "outputs": [{ "name": "logits", "kind": "classes",
                "agreement": { "count": 985, "of": 1000, "share": 0.985, "low": 0.9754, "high": 0.9909 },
                "flips": { "total": 15, "different": 1,
                           "most": [{ "live": "3", "shadow": "8", "count": 15, "error": 0 }] },
                "difference": { "mean": 0.5, "max": 2.0 }, "cosine": null,
                "nan": { "live": 0, "shadow": 4 } }],
            "worst": [{ "prediction": "018f", "output": "logits", "row": 0, "score": 1.0,
                        "summary": "3 → 8" }],
            "lane": { "sampled": 1010, "dropped": { "full": 10, "bytes": 0 } },
        }] }));
        for expected in [
            "next: differs  (1000 calls, 2000 rows, in 61 s)",
            "  - 1.5 % of labels turn",
            "failed calls: 0.20 % (0.05–0.73 %) of 1000",
            "1.20 times (median), 2.00 (90th percentile); live 1.000 ms, shadow 1.200 ms",
            "not seen: 10 full of 1010 calls",
            "98.50 % (97.54–99.09 %) of 1000",
            "4 (live 0)",
            "logits: 3 → 8, 15 times",
            "018f",
        ] {
            assert!(shown.contains(expected), "no '{expected}' in\n{shown}");
        }
    }

    #[test]
    fn a_route_without_shadows_says_so() {
        assert!(render(&json!({ "route": "digits", "shadows": [] })).contains("no shadow"));
    }
}
