//! Rows of a log as one file for somebody else: Parquet, CSV or JSON lines.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::read::{Query, ReadError, conform, printable, scan, texts};

/// Bytes of a row group.
const ROW_GROUP: usize = 16 << 20;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// With zstd. Columns that only some rows have are null in the others.
    Parquet,
    /// With a line of names. Lists are texts in brackets, bytes are hex, nothing is null.
    Csv,
    /// An object a line, without what is null. Bytes are hex; numbers that JSON cannot say are
    /// null.
    JsonLines,
}

/// Why rows could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// All but what these name was written, and can be used.
    #[error("{lines} lines were written; not in them is {}", listed(problems))]
    Incomplete { lines: u64, problems: Vec<ReadError> },
    #[error("writing: {0}")]
    Write(#[from] io::Error),
    #[error("writing: {0}")]
    Parquet(#[from] ParquetError),
    #[error("writing: {0}")]
    Arrow(#[from] ArrowError),
}

/// Writes the rows of a log that a query takes; returns how many lines there were.
///
/// # Errors
///
/// What reading or writing gives; what was written until then is of no use, unless it is
/// [`Incomplete`](ExportError::Incomplete).
pub fn export(
    log: &Path,
    query: Query,
    format: Format,
    out: impl Write + Send,
) -> Result<u64, ExportError> {
    let scan = scan(log, query)?;
    // JSON lines need none, and for the others segments are read once more.
    let schema = match format {
        Format::JsonLines => Schema::empty(),
        Format::Parquet | Format::Csv => scan.schema()?,
    };
    write(format, schema, scan, out)
}

/// The first few, and how many more.
fn listed(problems: &[ReadError]) -> String {
    const SHOWN: usize = 3;
    let texts: Vec<_> = problems.iter().take(SHOWN).map(ToString::to_string).collect();
    match problems.len().saturating_sub(SHOWN) {
        0 => texts.join("; "),
        more => format!("{}; and {more} more", texts.join("; ")),
    }
}

/// Writes batches; `schema` has all columns, but for JSON lines.
pub(crate) fn write(
    format: Format,
    schema: Schema,
    batches: impl Iterator<Item = Result<RecordBatch, ReadError>>,
    mut out: impl Write + Send,
) -> Result<u64, ExportError> {
    let schema = Arc::new(schema);
    let mut problems = vec![];
    let batches = batches.filter_map(|batch| match batch {
        Err(problem) if problem.is_partial() => {
            problems.push(problem);
            None
        }
        batch => Some(batch),
    });
    let rows = match format {
        Format::Parquet => parquet(&schema, batches, &mut out)?,
        Format::Csv => csv(&schema, batches, &mut out)?,
        Format::JsonLines => {
            let mut writer = arrow_json::LineDelimitedWriter::new(&mut out);
            let mut rows = 0;
            for batch in batches {
                let batch = printable(&batch?)?;
                writer.write(&batch)?;
                rows += batch.num_rows() as u64;
            }
            writer.finish()?;
            rows
        }
    };
    out.flush()?;
    if problems.is_empty() {
        Ok(rows)
    } else {
        Err(ExportError::Incomplete { lines: rows, problems })
    }
}

fn parquet(
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ReadError>>,
    out: impl Write + Send,
) -> Result<u64, ExportError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_bytes(Some(ROW_GROUP))
        .build();
    let mut writer = ArrowWriter::try_new(out, Arc::clone(schema), Some(properties))?;
    let mut rows = 0;
    for batch in batches {
        let batch = conform(&batch?, schema)?;
        writer.write(&batch)?;
        rows += batch.num_rows() as u64;
    }
    writer.close()?;
    Ok(rows)
}

fn csv(
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ReadError>>,
    out: impl Write,
) -> Result<u64, ExportError> {
    let mut writer = arrow_csv::Writer::new(out);
    let mut rows = 0;
    for batch in batches {
        let batch = flat(&conform(&batch?, schema)?)?;
        writer.write(&batch)?;
        rows += batch.num_rows() as u64;
    }
    if rows == 0 && !schema.fields().is_empty() {
        // The names are there all the same.
        writer.write(&flat(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
    }
    Ok(rows)
}

/// The batch with texts instead of lists, which CSV does not know.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let batch = printable(batch)?;
    let schema = batch.schema();
    let columns: Vec<_> = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| {
            if field.data_type().is_nested() {
                Ok((Arc::new(Field::new(field.name(), DataType::Utf8, true)), texts(array)?))
            } else {
                Ok((Arc::clone(field), Arc::clone(array)))
            }
        })
        .collect::<Result<_, ArrowError>>()?;
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

#[cfg(test)]
mod tests;
