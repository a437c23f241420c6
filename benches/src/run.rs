//! A whole run: every part measured, compared with the last stored results, printed and stored.

use std::time::SystemTime;

use crate::bench::Bench;
use crate::machine;
use crate::report::{Report, Section};
use crate::row::Row;
use crate::say::{progress, say};
use crate::sections::Name;
use crate::settings::{Arguments, Settings};
use crate::store;

/// Runs what was asked for. False when a part failed; a demand that is missed is a result.
///
/// # Errors
/// When nothing can be measured or the results cannot be stored.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let settings = Settings::new(arguments)?;
    // Read first: a run of an hour shall not end at a file that cannot be read.
    let older = store::newest(&arguments.results)?;
    let mut report = blank(&settings);
    let mut bench = Bench::new(settings.clone())?;
    let mut sound = true;
    for name in settings.sections.iter().copied() {
        let rows = name.measure(&mut bench).unwrap_or_else(|error| {
            sound = false;
            progress(format_args!("{}: {error:#}", name.key()));
            vec![failed(name, &error)]
        });
        report.sections.push(Section { key: name.key().into(), title: name.title().into(), rows });
    }
    if let Ok(server) = bench.penstock() {
        let libtorch = server.libtorch.clone().unwrap_or_else(|| "none".to_owned());
        report.versions.push(("libtorch".to_owned(), libtorch));
    }
    drop(bench);
    if let Some((name, older)) = older {
        report.compare_with(name, &older);
    }
    say(report.markdown());
    if settings.store {
        let path = store::write(&arguments.results, &report)?;
        progress(format_args!("stored as {}", path.display()));
    }
    Ok(sound)
}

fn failed(name: Name, error: &anyhow::Error) -> Row {
    Row::skipped(format!("{}/failed", name.key()), "this part", format!("failed: {error:#}"))
}

fn blank(settings: &Settings) -> Report {
    let Arguments { gateway, loadtest, quick, .. } = &settings.given;
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let rustc = machine::output(std::process::Command::new("rustc").arg("--version"));
    let rustc = rustc.unwrap_or_else(|| "unknown".to_owned());
    let rustc = rustc.split_whitespace().nth(1).unwrap_or("unknown").to_owned();
    let pairs = |pairs: &[(&str, String)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    Report {
        date,
        commit: machine::commit(),
        machine: machine::machine(),
        versions: pairs(&[
            ("penstock", machine::version(gateway)),
            ("penstock-loadtest", machine::version(loadtest)),
            ("rustc", rustc),
        ]),
        settings: pairs(&[
            ("rounds", settings.rounds.to_string()),
            ("seconds", settings.seconds.to_string()),
            ("quick", quick.to_string()),
        ]),
        compared_with: None,
        sections: Vec::new(),
    }
}
