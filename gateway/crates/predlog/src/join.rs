//! Rows of a log beside what is known of them by feedback.
//!
//! Every line that has the prediction's id, or that of its caller, is joined: those of shadows and
//! repeats of a prediction too. The rules by which several feedback become one are those of
//! [`Labels`].

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{ArrowError, Field, Schema};

use crate::Feedback;
use crate::export::{ExportError, Format, write};
use crate::feedback::{Joined, Labels, lines, parse_id};
use crate::read::{Query, ReadError, scan};

/// Columns by which lines are joined.
const IDS: [&str; 3] = ["prediction_id", "caller_id", "item"];

/// What was joined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that were written.
    pub lines: u64,
    /// Those of them of which feedback says something.
    pub with_feedback: u64,
}

/// The feedback that belongs to no line of a log that can be read.
#[derive(Debug, Default)]
pub struct Unmatched<'a> {
    pub feedback: Vec<&'a Feedback>,
    /// Files and segments that cannot be read: what belongs to their lines is in it too.
    pub problems: Vec<ReadError>,
}

/// Writes the rows that a query takes with what is known of them: columns `feedback_id`,
/// `label_text`, `label_number`, `reward`, `event_time`, `received`, `source`, `note` and
/// `feedback` (how many say something) behind those of the rows. `only_known` leaves out lines of
/// which nothing is known.
///
/// # Errors
///
/// What reading or writing gives; what was written until then is of no use.
pub fn export(
    log: &Path,
    query: Query,
    (labels, only_known): (&Labels, bool),
    format: Format,
    out: impl Write + Send,
) -> Result<Summary, ExportError> {
    let wanted = query.columns.clone();
    let mut query = query;
    if !wanted.is_empty() {
        query.columns.extend(IDS.iter().map(|id| (*id).to_owned()));
        query.columns.dedup();
        let mut met = HashSet::new();
        query.columns.retain(|name| met.insert(name.clone()));
    }
    let scan = scan(log, query)?;
    let schema = match format {
        Format::JsonLines => Schema::empty(),
        Format::Parquet | Format::Csv => joined_schema(&scan.schema()?, &wanted)?,
    };
    let mut with_feedback = 0;
    let batches = scan.flat_map(|batch| {
        let joined = batch.and_then(|batch| Ok(join(&batch, labels, &wanted)?));
        match joined {
            Ok((batch, known)) => {
                with_feedback += known.iter().filter(|known| **known).count() as u64;
                match only_known {
                    true => runs(&known).map(|(at, length)| Ok(batch.slice(at, length))).collect(),
                    false => vec![Ok(batch)],
                }
            }
            Err(error) => vec![Err(error)],
        }
    });
    let lines = write(format, schema, batches, out)?;
    Ok(Summary { lines, with_feedback })
}

/// Writes feedback itself; returns how much.
///
/// # Errors
///
/// What writing gives.
pub fn export_feedback<'a>(
    all: impl IntoIterator<Item = &'a Feedback>,
    format: Format,
    out: impl Write + Send,
) -> Result<u64, ExportError> {
    let batch = lines::batch(all)?;
    write(format, batch.schema().as_ref().clone(), std::iter::once(Ok(batch)), out)
}

/// The feedback that belongs to no line of a log: its prediction is not here, no more or not yet,
/// or has no such item. All rows of the log are looked at, whatever a query takes.
///
/// # Errors
///
/// What listing the log's folders gives. What cannot be read of it ends nothing and is returned.
pub fn unmatched<'a>(log: &Path, labels: &'a Labels) -> Result<Unmatched<'a>, ReadError> {
    let mut is_matched = vec![false; labels.len()];
    let mut problems = vec![];
    let columns = IDS.iter().map(|id| (*id).to_owned()).collect();
    for batch in scan(log, Query { columns, ..Query::default() })? {
        let batch = match batch {
            Ok(batch) => batch,
            Err(problem) if problem.is_partial() => {
                problems.push(problem);
                continue;
            }
            Err(error) => return Err(error),
        };
        each(&batch, |_, (prediction, caller_id, item)| {
            for (place, _) in labels.about(prediction, caller_id, item) {
                is_matched[place] = true;
            }
        });
    }
    let all = labels.iter().zip(is_matched);
    let feedback =
        all.filter_map(|(feedback, is_matched)| (!is_matched).then_some(feedback)).collect();
    Ok(Unmatched { feedback, problems })
}

/// Calls back with each line's place, and the ids of its prediction and its caller, empty where
/// there are none, and its item.
fn each(batch: &RecordBatch, mut with: impl FnMut(usize, (&[u8], &str, u32))) {
    let text = |name| batch.column_by_name(name).and_then(|array| array.as_string_opt::<i32>());
    let (predictions, callers) = (text("prediction_id"), text("caller_id"));
    let items =
        batch.column_by_name("item").and_then(|array| array.as_primitive_opt::<Int32Type>());
    for line in 0..batch.num_rows() {
        let cell = |array: Option<&'_ arrow_array::StringArray>| {
            array.filter(|array| array.is_valid(line)).map(|array| array.value(line).to_owned())
        };
        let prediction = cell(predictions).as_deref().and_then(parse_id);
        let caller = cell(callers).unwrap_or_default();
        let item = items.filter(|array| array.is_valid(line)).map_or(0, |array| array.value(line));
        let prediction = prediction.as_ref().map_or(&[][..], |id| id);
        with(line, (prediction, &caller, item.unsigned_abs()));
    }
}

/// The batch with the columns of feedback, and of which lines something is known.
fn join(
    batch: &RecordBatch,
    labels: &Labels,
    wanted: &[String],
) -> Result<(RecordBatch, Vec<bool>), ArrowError> {
    let mut known: Vec<Option<Joined<'_>>> = vec![None; batch.num_rows()];
    each(batch, |line, (prediction, caller_id, item)| {
        // An id that is none is in no feedback either.
        known[line] = labels.of(prediction, caller_id, item);
    });
    let added = lines::joined(&known)?;
    let (rows, schema) = (kept(batch, wanted)?, batch.schema());
    let schema = joined_schema(&schema, wanted)?;
    let columns = rows.columns().iter().chain(added.columns()).cloned().collect();
    let batch = RecordBatch::try_new(schema.into(), columns)?;
    Ok((batch, known.iter().map(Option::is_some).collect()))
}

/// The columns that somebody asked for.
fn kept(batch: &RecordBatch, wanted: &[String]) -> Result<RecordBatch, ArrowError> {
    batch.project(&places(&batch.schema(), wanted))
}

fn places(schema: &Schema, wanted: &[String]) -> Vec<usize> {
    match wanted {
        [] => (0..schema.fields().len()).collect(),
        wanted => wanted.iter().filter_map(|name| schema.index_of(name).ok()).collect(),
    }
}

/// The columns of rows, and those that feedback adds.
fn joined_schema(rows: &Schema, wanted: &[String]) -> Result<Schema, ArrowError> {
    let added = lines::joined(&[])?.schema();
    let rows = rows.project(&places(rows, wanted))?;
    let fields = rows.fields().iter().chain(added.fields());
    Ok(Schema::new(fields.map(|field| field.as_ref().clone()).collect::<Vec<Field>>()))
}

/// Where lines stand side by side that are to be kept, and how many.
fn runs(keep: &[bool]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    keep.chunk_by(|a, b| a == b).filter_map(move |part| {
        let start = at;
        at += part.len();
        part[0].then_some((start, part.len()))
    })
}

#[cfg(test)]
mod tests;
