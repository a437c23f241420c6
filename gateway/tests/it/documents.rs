//! The documents tell the truth of this commit: tables equal the code's own, links lead
//! somewhere, the OpenAPI document names exactly what is served.

use std::collections::BTreeSet;

use penstock::api::rest::ENDPOINTS;
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
            4 if matches!(key, "get" | "post" | "put" | "delete" | "patch") => {
                let path = path.clone().expect("a method stands under a path");
                documented.insert((key.to_owned(), path));
            }
            _ => {}
        }
    }
    let served: BTreeSet<(String, String)> =
        ENDPOINTS.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
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

#[test]
fn every_promise_of_the_architecture_names_a_test_that_exists() {
    let text = read("ARCHITECTURE.md");
    let sources: String = ["gateway", "loadtest", "proto"]
        .iter()
        .flat_map(|folder| files(folder, "rs").into_iter().chain(files(folder, "py")))
        .map(|(_, text)| text)
        .collect();
    let mut checked = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        for name in line.split('`').skip(1).step_by(2) {
            let Some(test) = name.strip_prefix("test:") else { continue };
            assert!(
                sources.contains(&format!("fn {test}("))
                    || sources.contains(&format!("def {test}(")),
                "no test {test}"
            );
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} promises name their test");
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
