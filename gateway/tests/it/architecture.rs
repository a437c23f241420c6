//! The layers hold: a module names only modules below it, every file says what it is, and each
//! outside package has one home.

use crate::source::{files, read};

/// Modules by layer, lowest first; modules of one layer do not name each other.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["types"],
    &["codec"],
    &["config"],
    &["telemetry"],
    &["tasks"],
    &["identity"],
    &["breaker"],
    &["limits"],
    &["overload"],
    &["idempotency"],
    &["contract"],
    &["routing"],
    &["revisions"],
    &["shadow"],
    &["predictions"],
    &["batching"],
    &["models"],
    &["upstream"],
    &["delivery"],
    &["feedback"],
    &["snapshot"],
    &["pipeline"],
    &["control"],
    &["traffic"],
    &["reload"],
    &["replay"],
    &["api"],
    &["server"],
    &["app"],
    &["cli"],
];

/// Packages with the modules that may name them; everybody else goes through those.
const HOMES: &[(&str, &[&str])] = &[
    ("arc_swap", &["identity", "snapshot"]),
    ("axum", &["api", "server"]),
    ("clap", &["cli"]),
    ("csv", &["cli"]),
    ("dashmap", &["limits"]),
    ("engine_torch", &["app", "cli", "main"]),
    ("flate2", &["api"]),
    ("form_urlencoded", &["api"]),
    ("governor", &["limits"]),
    ("hyper", &["server", "upstream"]),
    ("hyper_rustls", &["identity", "upstream", "cli"]),
    ("hyper_util", &["identity", "upstream", "server", "cli"]),
    ("jsonwebtoken", &["identity"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("notify", &["reload"]),
    ("nvml_wrapper", &["telemetry"]),
    ("object_store", &["delivery"]),
    ("predlog", &["predictions", "delivery", "replay", "feedback", "cli"]),
    ("proto", &["codec", "upstream", "api"]),
    ("prost", &["predictions", "upstream", "replay", "api"]),
    ("rustix", &["tasks", "delivery", "app", "cli"]),
    ("rustls", &["identity", "upstream", "server", "cli"]),
    ("sd_notify", &["app"]),
    ("redis", &["limits"]),
    (
        "sha2",
        &["identity", "limits", "idempotency", "revisions", "predictions", "models", "reload"],
    ),
    ("socket2", &["server"]),
    ("subtle", &["identity"]),
    ("thread_priority", &["tasks"]),
    ("tikv_jemallocator", &["main"]),
    ("tokio_rustls", &["identity", "upstream", "server"]),
    ("toml", &["config", "models", "cli"]),
    ("tonic", &["upstream", "api"]),
    ("tracing_subscriber", &["telemetry"]),
    ("uuid", &["types"]),
    ("x509_parser", &["server"]),
    ("xxhash_rust", &["routing", "predictions"]),
];

/// Modules that may read the wall clock, which jumps; everything that waits or measures uses one
/// that does not.
const WALL_CLOCK: &[(&str, &str)] = &[
    ("cli", "what `-1h` means to a command"),
    ("identity", "when tokens are valid"),
    (
        "models",
        "the time of the last call in statistics; times of files, which are compared for equality",
    ),
    ("delivery", "how old files and what waits are; nothing waits by it"),
    ("revisions", "when a revision or a line of the audit log was written; nothing compares it"),
    ("predictions", "when calls came and segments were begun, for people; nothing compares it"),
    ("reload", "when the configuration was last good, for metrics"),
    ("server", "when certificates are valid"),
];

/// Longest file, tests in files of their own not counted.
const LONGEST: usize = 400;

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The top-level module that a file belongs to.
fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("gateway/src/").expect("a file of the gateway");
    let first = inside.split('/').next().unwrap_or(inside);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Top-level modules that a text names as `crate::name` or within `crate::{…}`.
fn named_modules(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            // A grouped use: only the heads of its items are modules.
            Some(group) => {
                let mut depth = 0_usize;
                let mut item = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.push(std::mem::take(&mut item)),
                        _ if depth == 0 => item.push(c),
                        _ => {}
                    }
                }
                names.push(item);
            }
            None => names.push(rest.to_owned()),
        }
    }
    names
        .iter()
        .map(|name| {
            let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            name.trim().split(end).next().unwrap_or("").to_owned()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether code outside comments names a package.
fn names_package(text: &str, package: &str) -> bool {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).any(|line| {
        line.match_indices(&format!("{package}::")).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
                || line[..at].ends_with("(::")
                || line[..at].ends_with(" ::")
        })
    })
}

#[test]
fn modules_depend_downwards_only() {
    let mut offences = Vec::new();
    for (path, text) in files("gateway/src", "rs") {
        let module = module_of(&path);
        if matches!(module, "lib" | "main") {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{path}: '{module}' has no layer"));
        for name in named_modules(&text) {
            let named = layer(&name).unwrap_or_else(|| panic!("{path}: '{name}' has no layer"));
            if name != module && named >= own {
                offences.push(format!("{path} names {name}"));
            }
        }
    }
    assert!(offences.is_empty(), "upward dependencies:\n{}", offences.join("\n"));
}

#[test]
fn the_contents_page_lists_every_module_in_order() {
    let lib = read("gateway/src/lib.rs");
    let listed: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let expected: Vec<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    assert_eq!(listed, expected);
}

#[test]
fn every_package_has_its_home() {
    let mut offences = Vec::new();
    for (path, text) in files("gateway/src", "rs") {
        let module = module_of(&path);
        for (package, homes) in HOMES {
            if names_package(&text, package) && !homes.contains(&module) {
                offences.push(format!("{path} names {package}"));
            }
        }
    }
    assert!(offences.is_empty(), "packages away from home:\n{}", offences.join("\n"));
}

#[test]
fn a_jump_of_the_wall_clock_moves_nothing_that_waits() {
    for (path, text) in files("gateway/src", "rs") {
        let module = module_of(&path);
        let reads = names_package(&text, "SystemTime") || text.contains("time::SystemTime");
        let may = WALL_CLOCK.iter().any(|(name, _)| *name == module);
        assert!(may || !reads, "{path} reads the wall clock");
    }
}

#[test]
fn files_say_what_they_are_and_stay_small() {
    let mut offences = Vec::new();
    for folder in ["gateway", "proto", "loadtest", "benches"] {
        for (path, text) in files(folder, "rs") {
            let first = text.lines().next().unwrap_or("");
            if !first.starts_with("//! ") || first.len() < 12 {
                offences.push(format!("{path} does not say what it is"));
            }
            if path.ends_with("/mod.rs") {
                offences.push(format!("{path}: use {}.rs", path.trim_end_matches("/mod.rs")));
            }
            let own_tests = path.contains("/tests");
            let lines = text.lines().take_while(|line| !line.contains("#[cfg(test)]")).count();
            if lines > LONGEST && !own_tests {
                offences.push(format!("{path} has {lines} lines before its tests"));
            }
        }
    }
    for (path, text) in files("gateway/tests/clients", "py") {
        let first =
            text.trim_start_matches("#!/usr/bin/env python3\n").lines().next().unwrap_or("");
        if !text.is_empty() && !first.starts_with("\"\"\"") {
            offences.push(format!("{path} does not say what it is"));
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn unsafe_code_lives_in_the_libtorch_engine_alone() {
    for (path, text) in files(".", "rs") {
        let is_ffi = path.starts_with("gateway/crates/engine-torch/");
        // Spelled in two parts, so that this file does not find itself.
        let found = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or("");
            code.contains(concat!("uns", "afe {")) || code.contains(concat!("uns", "afe fn"))
        });
        assert!(is_ffi || !found, "{path} holds unsafe code");
    }
    for crate_root in [
        "gateway/src/lib.rs",
        "gateway/src/main.rs",
        "gateway/crates/engine/src/lib.rs",
        "gateway/crates/predlog/src/lib.rs",
        "proto/src/lib.rs",
        "loadtest/src/lib.rs",
    ] {
        assert!(read(crate_root).contains("#![forbid(unsafe_code)]"), "{crate_root}");
    }
}

#[test]
fn planted_offences_are_seen() {
    assert_eq!(
        named_modules("use crate::{api::rest, types::{A, B}, error};"),
        ["api", "types", "error"]
    );
    assert_eq!(named_modules("crate::cli::main()"), ["cli"]);
    assert!(names_package("    let x = tonic::Status::ok();", "tonic"));
    assert!(!names_package("    // tonic::Status", "tonic"));
    assert!(!names_package("use prototype::X;", "proto"));
}
