//! `penstock feedback export`: rows joined with their feedback. It reads the log's folder, beside a
//! gateway that writes there or after it has ended.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use predlog::feedback::{Labels, Range};
use predlog::{Format, join};

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
    let status = arguments.output.write(
        |format, out| join::export(log, query, known, format, out),
        |summary| {
            with_feedback = summary.with_feedback;
            summary.lines
        },
    )?;
    let unmatched = join::unmatched(log, &labels)?;
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
    Ok(if labels.damage().is_empty() { status } else { ExitCode::FAILURE })
}
