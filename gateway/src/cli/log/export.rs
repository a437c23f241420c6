//! `penstock log export`: rows of a log as one file for somebody else.

mod target;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::ValueEnum;
use predlog::{ExportError, Format, Query, export, scan};

use super::Source;
use super::time::{self, When};
use target::{Counted, Target};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) source: Source,
    #[command(flatten)]
    rows: Rows,
    #[command(flatten)]
    output: Output,
}

/// Which rows are written.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rows {
    /// Calls that arrived then or later: 2026-11-22, 2026-11-22T10:00:00Z, or -1h for an hour ago
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    from: Option<When>,
    /// Calls that arrived before
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    to: Option<When>,
    /// Calls that this model answered; `none`: those that came to no model
    #[arg(long)]
    model: Option<String>,
    /// Calls that this version answered
    #[arg(long)]
    version: Option<String>,
    /// Only these columns, in this order
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    columns: Vec<String>,
}

/// What is written, and where to.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Output {
    /// What is written; as the file is called, without it
    #[arg(long, value_enum)]
    format: Option<Written>,
    /// Where to; `-` is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Written {
    Parquet,
    Csv,
    Jsonl,
}

impl Written {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            _ => None,
        }
    }
}

impl From<Written> for Format {
    fn from(written: Written) -> Self {
        match written {
            Written::Parquet => Self::Parquet,
            Written::Csv => Self::Csv,
            Written::Jsonl => Self::JsonLines,
        }
    }
}

pub(super) fn run(arguments: &Arguments, log: PathBuf) -> anyhow::Result<ExitCode> {
    let query = arguments.rows.query(&log)?;
    arguments.output.write(|format, out| export(&log, query, format, out), |lines| *lines)
}

impl Output {
    /// Writes to where the arguments say; `lines` says how many there were.
    pub(in crate::cli) fn write<T>(
        &self,
        write: impl FnOnce(Format, &mut (dyn Write + Send)) -> Result<T, ExportError>,
        lines: impl FnOnce(&T) -> u64,
    ) -> anyhow::Result<ExitCode> {
        let out = &self.out;
        let Some(format) = self.format.or_else(|| Written::of(out)) else {
            bail!("say what to write: --format csv, jsonl or parquet, or a FILE called so");
        };
        if out.as_os_str() == "-" {
            if format == Written::Parquet && io::stdout().is_terminal() {
                bail!("--format parquet is not for a terminal: name a file with --out");
            }
            let mut stream = Counted::new(BufWriter::new(io::stdout()));
            let written = write(format.into(), &mut stream);
            // Whoever read it, `head` for one, has what it wanted.
            if !stream.is_broken() {
                written?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let target = Target::begin(out, self.force)?;
        let written = {
            let mut file = Counted::new(BufWriter::new(target.file()));
            let written = write(format.into(), &mut file);
            file.end();
            written
        };
        if matches!(written, Err(ExportError::Incomplete { .. })) {
            target.finish()?;
            written.with_context(|| out.display().to_string())?;
            return Ok(ExitCode::FAILURE);
        }
        let written = written.with_context(|| out.display().to_string())?;
        target.finish()?;
        if io::stderr().is_terminal() {
            eprintln!("{}: {} lines", out.display(), lines(&written));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Rows {
    /// What they are in the words of a log, which has all columns that are asked for.
    pub(in crate::cli) fn query(&self, log: &Path) -> anyhow::Result<Query> {
        let query = self.at(SystemTime::now())?;
        check_columns(log, &query)?;
        Ok(query)
    }

    fn at(&self, now: SystemTime) -> anyhow::Result<Query> {
        let [from_us, until_us] = [self.from, self.to].map(|at| at.map(|when| when.micros(now)));
        if let (Some(from), Some(until)) = (from_us, until_us)
            && from >= until
        {
            bail!("--from {} is not before --to {}", time::shown(from), time::shown(until));
        }
        let (model, version) = (self.model.clone(), self.version.clone());
        Ok(Query { from_us, until_us, model, version, columns: self.columns.clone() })
    }
}

/// A column that no row has may be a misspelt one, and is told; where there are no rows every
/// column is one.
fn check_columns(log: &Path, query: &Query) -> anyhow::Result<()> {
    if query.columns.is_empty() {
        return Ok(());
    }
    let found = scan(log, query.clone())?.schema()?;
    let Some(name) = query.columns.iter().find(|name| found.index_of(name).is_err()) else {
        return Ok(());
    };
    let known = scan(log, Query { columns: vec![], ..query.clone() })?.schema()?;
    let names: Vec<&str> = known.fields().iter().map(|field| &**field.name()).collect();
    bail!("--columns: no row has '{name}'; there are {}", names.join(", "))
}

#[cfg(test)]
mod tests;
