//! The documents tell the truth of this commit: tables equal the code's own, links lead
//! somewhere, the OpenAPI document names exactly what is served.

use std::collections::BTreeSet;

use penstock::api::{admin, rest};
use penstock::config::reference::{CONFIG, MODEL, json_schema, markdown};
use penstock::error::Kind;
use penstock::telemetry::metrics;

use crate::source::{files, read, root};

const STALE: &str = "is stale: run `make docs`";

#[test]
fn generated_references_are_current() {
    for (path, table) in [
        ("docs/config.md", markdown(CONFIG)),
        ("docs/model.md", markdown(MODEL)),
        ("docs/metrics.md", metrics::markdown()),
    ] {
        assert!(read(path).contains(&table), "{path} {STALE}");
    }
    for (path, schema) in [
        ("docs/config.schema.json", json_schema("Penstock configuration", CONFIG)),
        ("docs/model.schema.json", json_schema("Penstock model.toml", MODEL)),
    ] {
        let stored: serde_json::Value = serde_json::from_str(&read(path)).expect("JSON");
        assert_eq!(stored, schema, "{path} {STALE}");
    }
}

#[test]
fn the_openapi_document_names_exactly_what_is_served() {
    let text = read("docs/openapi.yaml");
    let mut documented = BTreeSet::new();
    let mut path = None;
    let in_paths = text.lines().skip_while(|line| *line != "paths:").skip(1);
    for line in in_paths.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        let key = line.trim().trim_end_matches(':');
        match line.len() - line.trim_start().len() {
            2 => path = key.starts_with('/').then(|| key.to_owned()),
            4 if matches!(key, "get" | "post" | "put" | "delete" | "patch" | "head") => {
                let path = path.clone().expect("a method stands under a path");
                documented.insert((key.to_owned(), path));
            }
            _ => {}
        }
    }
    let endpoints = rest::ENDPOINTS.iter().chain(admin::ENDPOINTS);
    let served: BTreeSet<(String, String)> =
        endpoints.map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(documented, served);
}

#[test]
fn the_error_table_is_documented() {
    let text = read("docs/protocol.md");
    for kind in Kind::ALL {
        let name = format!("{kind:?}");
        let row = text.lines().find(|line| line.starts_with('|') && line.contains(&name));
        // Kinds that nothing in this version raises are not promised to anybody.
        if let Some(row) = row {
            assert!(row.contains(&kind.http().to_string()), "{row}");
        }
    }
    for kind in ["InvalidInput", "NotFound", "TooLarge", "Overloaded", "NotReady", "EngineFailed"] {
        assert!(text.contains(kind), "docs/protocol.md lacks {kind}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut offences = Vec::new();
    for (path, text) in files(".", "md") {
        let skipped = ["target/", ".venv/", ".libtorch/", "dist/"];
        if skipped.iter().any(|prefix| path.starts_with(prefix)) || path.contains("node_modules") {
            continue;
        }
        let folder = root().join(&path).parent().expect("a file has a folder").to_owned();
        for (_, rest) in text.match_indices("](").map(|(at, _)| ((), &text[at + 2..])) {
            let Some(link) = rest.split(')').next() else { continue };
            let target = link.split('#').next().unwrap_or("");
            let outside =
                target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !outside && !folder.join(target).exists() {
                offences.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(offences.is_empty(), "broken links:\n{}", offences.join("\n"));
}

#[test]
fn the_change_log_knows_this_version() {
    assert!(read("CHANGELOG.md").contains(env!("CARGO_PKG_VERSION")));
}

/// Names after `test:` in a text, each of which must be that of a test.
fn tests_in(text: &str) -> BTreeSet<String> {
    let sources: String = ["gateway", "loadtest", "proto"]
        .iter()
        .flat_map(|folder| files(folder, "rs").into_iter().chain(files(folder, "py")))
        .map(|(_, text)| text)
        .collect();
    let mut named = BTreeSet::new();
    for name in text.split('`').skip(1).step_by(2) {
        let Some(test) = name.strip_prefix("test:") else { continue };
        let mut spellings = ["fn ", "def ", "def test_"].iter();
        assert!(spellings.any(|s| sources.contains(&format!("{s}{test}("))), "no test {test}");
        named.insert(test.to_owned());
    }
    named
}

#[test]
fn promises_threats_and_faults_name_tests_that_exist() {
    for (document, least) in
        [("ARCHITECTURE.md", 20), ("SECURITY.md", 40), ("docs/operations.md", 15)]
    {
        let named = tests_in(&read(document)).len();
        assert!(named >= least, "{document}: only {named} tests are named");
    }
}

#[test]
fn every_trap_of_the_wire_names_tests_that_exist() {
    let tests = files("gateway/tests/clients", "py");
    let exists = |name: &str| {
        let file = format!("test_{name}.py");
        tests.iter().any(|(path, text)| {
            path.ends_with(name)
                || path.ends_with(&file)
                || text.contains(&format!("def test_{name}("))
        })
    };
    let mut held = 0;
    for row in read("docs/traps.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        if cells[0].parse::<u32>().is_err() {
            continue;
        }
        let [_, _, what, tests] = cells[..] else { panic!("not four columns: {row}") };
        for name in tests.split('`').skip(1).step_by(2).filter(|name| *name != "triton_") {
            assert!(exists(name), "docs/traps.md: no test '{name}'");
            held += 1;
        }
        let excused = what.contains("later version") || what.contains("not applicable");
        assert!(excused || tests.contains('`'), "nothing holds: {row}");
    }
    assert!(held >= 30, "only {held} tests are named");
}

/// Names of metrics in a text; those of the series of a histogram are its own name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| {
            let starts = ["penstock_", "nv_", "process_"];
            // A name that ends so stands for all that begin with it.
            starts.iter().any(|start| word.starts_with(start)) && !word.ends_with('_')
        })
        .map(|word| {
            let of_histogram = metrics::ALL.iter().find(|metric| {
                let rest = word.strip_prefix(metric.name);
                matches!(metric.shape, metrics::Shape::Histogram(_))
                    && rest.is_some_and(|rest| matches!(rest, "_bucket" | "_sum" | "_count"))
            });
            of_histogram.map_or(word, |metric| metric.name).to_owned()
        })
        .collect()
}

#[test]
fn alert_rules_name_metrics_that_exist_and_each_has_a_test() {
    let known: BTreeSet<String> =
        metrics::ALL.iter().map(|metric| metric.name.to_owned()).collect();
    let rules = files("deploy/prometheus", "yml");
    let mut named = 0;
    for (path, text) in &rules {
        let unknown: Vec<_> = metrics_in(text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{path} names metrics that do not exist: {unknown:?}");
        named += metrics_in(text).len();
    }
    assert!(named >= 10, "only {named} metrics are named");
    // A test that says what fires, and not only that something does not.
    let tests = rules.iter().filter(|(path, _)| path.ends_with("_test.yml"));
    let fires: BTreeSet<String> = tests
        .flat_map(|(_, text)| {
            text.split("- eval_time").filter(|case| case.contains("exp_alerts")).filter_map(
                |case| {
                    let name = case.split("alertname:").nth(1)?;
                    Some(name.split_ascii_whitespace().next()?.to_owned())
                },
            )
        })
        .collect();
    for (path, text) in rules.iter().filter(|(path, _)| !path.ends_with("_test.yml")) {
        for alert in text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            assert!(fires.contains(alert), "{path}: nothing tests that {alert} fires");
        }
    }
}

#[test]
fn the_guide_to_operations_names_metrics_that_exist() {
    let text = read("docs/operations.md");
    let known: BTreeSet<String> =
        metrics::ALL.iter().map(|metric| metric.name.to_owned()).collect();
    let unknown: Vec<_> = metrics_in(&text).difference(&known).cloned().collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
}
