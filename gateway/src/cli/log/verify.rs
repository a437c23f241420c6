//! `penstock log verify`: reads all of a log, and ends with status 1 where something is damaged.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use predlog::verify::{FeedbackCheck, FileCheck, SegmentCheck, Verification, verify};
use serde_json::{Value, json};

use super::Source;
use crate::cli::FAILED;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) source: Source,
    /// Print JSON instead of lines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, log: PathBuf) -> anyhow::Result<ExitCode> {
    let found = verify(&log)?;
    if arguments.json {
        println!("{}", shown(&found));
    } else {
        for line in problems(&found) {
            eprintln!("{line}");
        }
        print!("{}", summary(&log, &found));
    }
    Ok(if found.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// A line for everything that cannot be read, with where it is.
fn problems(found: &Verification) -> Vec<String> {
    let of_segment = |segment: &SegmentCheck| {
        let path = segment.path.display().to_string();
        let gaps = segment.gaps.iter().map(ToString::to_string);
        let texts: Vec<String> = gaps.chain(segment.problem.clone()).collect();
        texts.into_iter().map(move |text| format!("{path}: {text}"))
    };
    let of_file = |file: &FileCheck| {
        file.problem.as_ref().map(|text| format!("{}: {text}", file.path.display()))
    };
    let segments = found.segments.iter().flat_map(of_segment);
    let of_feedback = |file: &FeedbackCheck| {
        file.problem.as_ref().map(|text| format!("{}: {text}", file.path.display()))
    };
    let files = found.files.iter().filter_map(of_file);
    segments.chain(files).chain(found.feedback.iter().filter_map(of_feedback)).collect()
}

fn summary(log: &Path, found: &Verification) -> String {
    // Calls of those that were put aside are in files.
    let held = || found.segments.iter().filter(|segment| !segment.is_aside);
    let calls: u64 = held().map(|segment| segment.rows).sum();
    let lines: u64 = found.files.iter().map(|file| file.rows).sum();
    let mut text = format!(
        "segments: {} with {calls} calls  files: {} with {lines} lines\n",
        held().count(),
        found.files.len(),
    );
    let waiting: u64 = held().map(|segment| segment.feedback).sum();
    let told: u64 = found.feedback.iter().map(|file| file.rows).sum();
    if waiting + told > 0 {
        let files = found.feedback.len();
        text += &format!("feedback: {waiting} in segments, {told} in {files} files\n");
    }
    if !found.missing.is_empty() {
        let numbers: Vec<String> = found
            .missing
            .iter()
            .map(|range| match (range.start(), range.end()) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}–{last}"),
            })
            .collect();
        text += &format!(
            "segments that are not here, since they had no calls, were delivered or were deleted: \
             {}\n",
            numbers.join(", ")
        );
    }
    let verdict = match problems(found).len() {
        0 => "all that is here can be read".to_owned(),
        1 => "1 place is damaged".to_owned(),
        count => format!("{count} places are damaged"),
    };
    text + &format!("{}: {verdict}\n", log.display())
}

fn shown(found: &Verification) -> Value {
    let segments = found.segments.iter().map(|segment| {
        let gaps = segment.gaps.iter().map(|gap| {
            json!({ "offset": gap.offset, "length": gap.length, "reason": gap.reason.to_string() })
        });
        json!({
            "number": segment.number,
            "path": segment.path,
            "calls": segment.rows,
            "feedback": segment.feedback,
            "is_aside": segment.is_aside,
            "gaps": gaps.collect::<Vec<_>>(),
            "problem": segment.problem,
        })
    });
    let files = found.files.iter().map(|file| {
        json!({
            "path": file.path,
            "model": file.partition.model,
            "version": file.partition.version,
            "lines": file.rows,
            "problem": file.problem,
        })
    });
    let feedback = found
        .feedback
        .iter()
        .map(|file| json!({ "path": file.path, "lines": file.rows, "problem": file.problem }));
    json!({
        "is_whole": found.is_whole(),
        "feedback": feedback.collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
        "missing": found.missing.iter().map(|range| [*range.start(), *range.end()])
            .collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use predlog::convert::Partition;
    use predlog::segment::{Damage, Reason};

    use super::*;

    fn damaged() -> Verification {
        let gap = Damage { offset: 40, length: 9, reason: Reason::Payload };
        let segment = |number: u64, gaps| SegmentCheck {
            number,
            path: format!("log/{number}.segment").into(),
            rows: 2,
            feedback: 0,
            is_aside: false,
            gaps,
            problem: None,
        };
        let partition = Partition { model: "m".to_owned(), version: "1".to_owned(), hour: 0 };
        let problem = Some("it does not match its checksum".to_owned());
        let file = FileCheck { partition, path: "log/a.parquet".into(), rows: 0, problem };
        let segments = vec![segment(1, vec![]), segment(9, vec![gap])];
        let missing = vec![2..=4, 6..=6];
        Verification { segments, files: vec![file], feedback: vec![], missing }
    }

    #[test]
    fn everything_that_is_damaged_is_named_with_its_place() {
        let expected = [
            "log/9.segment: a record does not match its checksum (9 bytes from byte 40)",
            "log/a.parquet: it does not match its checksum",
        ];
        assert_eq!(problems(&damaged()), expected);
        let text = summary(Path::new("log"), &damaged());
        assert!(text.starts_with("segments: 2 with 4 calls  files: 1 with 0 lines\n"), "{text}");
        assert!(text.contains("were deleted: 2–4, 6\n"), "{text}");
        assert!(text.ends_with("log: 2 places are damaged\n"), "{text}");
        let whole = summary(Path::new("log"), &Verification::default());
        assert!(whole.ends_with("log: all that is here can be read\n"), "{whole}");
    }

    #[test]
    fn json_says_the_same() {
        let shown = shown(&damaged());
        assert_eq!(shown["is_whole"], false);
        assert_eq!(shown["segments"][1]["gaps"][0]["offset"], 40);
        assert_eq!(shown["files"][0]["problem"], "it does not match its checksum");
        assert_eq!(shown["missing"], json!([[2, 4], [6, 6]]));
    }
}
