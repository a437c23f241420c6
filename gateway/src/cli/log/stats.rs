//! `penstock log stats`: what a log holds, by the metadata of its files alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use predlog::verify::{Stats, feedback_stats, stats, waiting};
use serde_json::{Value, json};

use super::{Source, bytes, time};
use crate::cli::table;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) source: Source,
    /// Show every hour by itself
    #[arg(long)]
    hours: bool,
    /// Print JSON, by hour, instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, log: PathBuf) -> anyhow::Result<ExitCode> {
    let hours = stats(&log)?;
    let (segments, waiting) = waiting(&log)?;
    let (files, lines, size) = feedback_stats(&log)?;
    if arguments.json {
        let hours: Vec<Value> = hours.iter().map(shown).collect();
        let feedback = json!({ "files": files, "lines": lines, "bytes": size });
        let waiting = json!({ "segments": segments, "bytes": waiting });
        println!("{}", json!({ "partitions": hours, "feedback": feedback, "waiting": waiting }));
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", table::render(&rows(&hours, arguments.hours)));
    if files > 0 {
        println!("\nfeedback: {lines} in {files} files ({})", bytes(size));
    }
    let unreadable: u64 = hours.iter().map(|of| of.unreadable).sum();
    if unreadable > 0 {
        println!("\nfiles that cannot be read: {unreadable}; penstock log verify names them");
    }
    println!("\nsegments that are not files yet: {segments} ({})", bytes(waiting));
    Ok(ExitCode::SUCCESS)
}

fn shown(of: &Stats) -> Value {
    let partition = &of.partition;
    json!({
        "model": partition.model,
        "version": partition.version,
        "hour": time::shown(partition.start_us()),
        "files": of.files,
        "lines": of.rows,
        "bytes": of.bytes,
        "unreadable": of.unreadable,
        "first": time::shown(of.first_us),
        "last": time::shown(of.last_us),
    })
}

/// A line for every version, or for every hour of one.
fn rows(hours: &[Stats], by_hour: bool) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<(&str, &str, i64), Stats> = BTreeMap::new();
    for of in hours {
        let partition = &of.partition;
        let hour = if by_hour { partition.hour } else { 0 };
        groups
            .entry((&partition.model, &partition.version, hour))
            .and_modify(|all| {
                all.files += of.files;
                all.rows += of.rows;
                all.bytes += of.bytes;
                all.unreadable += of.unreadable;
                all.first_us = all.first_us.min(of.first_us);
                all.last_us = all.last_us.max(of.last_us);
            })
            .or_insert_with(|| of.clone());
    }
    let heading = ["MODEL", "VERSION", "FILES", "LINES", "SIZE", "BYTES/LINE", "FIRST", "LAST"];
    let lines = groups.into_values().map(|of| {
        let per_line = of.bytes.checked_div(of.rows).map_or("-".to_owned(), |n| n.to_string());
        vec![
            of.partition.model,
            of.partition.version,
            of.files.to_string(),
            of.rows.to_string(),
            bytes(of.bytes),
            per_line,
            time::shown(of.first_us),
            time::shown(of.last_us),
        ]
    });
    std::iter::once(table::row(&heading)).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use predlog::convert::Partition;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn of(version: &str, hour: i64, rows: u64) -> Stats {
        let partition = Partition { model: "m".to_owned(), version: version.to_owned(), hour };
        let (first_us, last_us) = (hour * HOUR, (hour + 1) * HOUR - 1);
        Stats { partition, files: 1, rows, bytes: 2000 * rows, first_us, last_us, unreadable: 0 }
    }

    #[test]
    fn hours_of_a_version_are_one_line_unless_they_are_wanted() {
        let hours = [of("1", 24, 10), of("2", 24, 7), of("1", 25, 5)];
        let all = rows(&hours, false);
        assert_eq!(all.len(), 3);
        let expected = [
            "m",
            "1",
            "2",
            "15",
            "29.3 KiB",
            "2000",
            "1970-01-02T00:00:00Z",
            "1970-01-02T01:59:59Z",
        ];
        assert_eq!(all[1], expected);
        assert_eq!(all[2][1..4], ["2", "1", "7"]);
        assert_eq!(rows(&hours, true).len(), 4);
    }

    #[test]
    fn json_says_every_hour() {
        let expected = json!({
            "model": "m", "version": "1", "hour": "1970-01-02T00:00:00Z", "files": 1, "lines": 3,
            "bytes": 6000, "unreadable": 0, "first": "1970-01-02T00:00:00Z", "last": "1970-01-02T00:59:59Z",
        });
        assert_eq!(shown(&of("1", 24, 3)), expected);
    }
}
