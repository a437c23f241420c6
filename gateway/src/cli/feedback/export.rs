//! `penstock feedback export`: rows joined with their feedback. It reads the log's folder, beside a
//! gateway that writes there or after it has ended.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use predlog::feedback::{Labels, Range};
use predlog::{ExportError, Format, join};

use crate::cli::log::Source;
use crate::cli::log::export::{Output, Rows};

/// How much earlier than a row its feedback may have been received: clocks differ, and feedback by
/// an id of the caller may come first.
const EARLIER_US: i64 = 24 * 3600 * 1_000_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    rows: Rows,
    /// Leave out lines of which nothing is known
    #[arg(long)]
    only_known: bool,
    /// Also write the feedback that belongs to no line of the log to this file, as JSON lines
    #[arg(long, value_name = "FILE")]
    unmatched: Option<PathBuf>,
    /// Feedback that is held in memory at most, of about 250 bytes each
    #[arg(long, value_name = "COUNT", default_value_t = Range::default().most)]
    most: usize,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    arguments.source.read(|log| export(arguments, &log))
}

fn export(arguments: &Arguments, log: &Path) -> anyhow::Result<ExitCode> {
    if let Some(path) = arguments.unmatched.as_ref().filter(|path| path.exists()) {
        bail!("{} exists", path.display());
    }
    let query = arguments.rows.query(log)?;
    let from_us = query.from_us.map(|from| from.saturating_sub(EARLIER_US));
    let labels = Labels::read(log, &Range { from_us, until_us: None, most: arguments.most })?;
    for damage in labels.damage() {
        eprintln!("feedback that cannot be read: {damage}");
    }
    let known = (&labels, arguments.only_known);
    let mut with_feedback = 0;
    let written = arguments.output.write(
        |format, out| join::export(log, query, known, format, out),
        |summary| {
            with_feedback = summary.with_feedback;
            summary.lines
        },
    );
    // Files that cannot be read take nothing away from what follows.
    let is_incomplete = |error: &anyhow::Error| {
        matches!(error.downcast_ref(), Some(ExportError::Incomplete { .. }))
    };
    let written = match written {
        Err(error) if !is_incomplete(&error) => return Err(error),
        written => written,
    };
    let join::Unmatched { feedback: unmatched, problems } = join::unmatched(log, &labels)?;
    for problem in &problems {
        eprintln!("rows that cannot be read, whose feedback counts as that of no line: {problem}");
    }
    let (all, rest, again) = (labels.len(), unmatched.len(), labels.told_again());
    eprintln!("feedback: {all}, told again {again} times; {rest} belong to no line of the log");
    if let Some(path) = &arguments.unmatched {
        let write = || {
            let mut out = BufWriter::new(File::create_new(path)?);
            join::export_feedback(unmatched.iter().copied(), Format::JsonLines, &mut out)?;
            out.flush()?;
            anyhow::Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    let status = written?;
    let is_whole = labels.damage().is_empty() && problems.is_empty();
    Ok(if is_whole { status } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use predlog::segment::{Kind, Writer, frame};
    use predlog::{Feedback, Options, RowRef, convert};
    use tempfile::TempDir;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// A log with a file of rows, and feedback about the call with this number in its id.
    fn log(told: u8) -> TempDir {
        let log = TempDir::new().unwrap();
        let segments = log.path().join("segments");
        fs::create_dir(&segments).unwrap();
        let mut writer = Writer::create(&segments, 1, 0, 0).unwrap();
        let (prediction, model, version) = ([1; 16], "m", "1");
        let row = RowRef { prediction, model, version, items: 1, ..RowRef::default() };
        let mut framed = vec![];
        assert!(frame(Kind::Row, &mut framed, |out| row.encode(out)));
        writer.append(&mut framed).unwrap();
        let segment = writer.close().unwrap();
        convert(&segment, log.path(), &Options::default()).unwrap();
        fs::remove_file(segment).unwrap();
        let prediction = vec![told; 16].into();
        let feedback = Feedback { prediction, id: "a".into(), ..Feedback::default() };
        let day = log.path().join("feedback/date=1970-01-01");
        fs::create_dir_all(&day).unwrap();
        let mut file = File::create(day.join("00000000-00000002-00-feedback.parquet")).unwrap();
        join::export_feedback([&feedback], Format::Parquet, &mut file).unwrap();
        log
    }

    #[test]
    fn what_belongs_to_no_line_is_written_though_a_file_cannot_be_read() {
        let log = log(2);
        let path = log.path();
        let [to, rest] = ["to.jsonl", "rest.jsonl"].map(|name| path.join(name));
        let words = ["export".as_ref(), "--path".as_ref(), path, "--out".as_ref(), &to];
        let words = words.into_iter().chain(["--unmatched".as_ref(), &*rest]);
        let export = || {
            let (to, rest) = (fs::remove_file(&to), fs::remove_file(&rest));
            drop((to, rest));
            run(&Line::parse_from(words.clone()).arguments)
        };
        assert_eq!(export().unwrap(), ExitCode::SUCCESS);
        let whole = fs::read_to_string(&rest).unwrap();
        assert!(whole.contains("\"feedback_id\":\"a\""), "{whole}");
        // Another file, which cannot be read.
        let file = predlog::read::files(path).unwrap().remove(0).1;
        let damaged = file.with_file_name("00000000-00000009-00.parquet");
        fs::write(&damaged, "no Parquet").unwrap();
        let error = format!("{:#}", export().unwrap_err());
        assert!(error.contains("00000000-00000009-00.parquet"), "{error}");
        assert_eq!(fs::read_to_string(&rest).unwrap(), whole);
        assert_eq!(fs::read_to_string(&to).unwrap().lines().count(), 1);
    }
}
