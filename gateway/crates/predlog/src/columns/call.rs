//! The columns about calls, the same in every file.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_schema::{DataType, Field, TimeUnit};

use super::Fitted;
use crate::{Row, SchemaId, Status};

/// Where a column's value comes from.
#[derive(Clone, Copy)]
enum From {
    /// Texts; an empty one is none.
    Text(fn(&Row) -> &str),
    Int(fn(&Row) -> Option<u32>),
    Long(fn(&Row) -> Option<u64>),
    Double(fn(&Row) -> Option<f64>),
    Flag(fn(&Row) -> bool),
    Arrived,
    Prediction,
    Item,
    Schema,
    LeftOut,
}

/// Numbers without sign in a row are signed in columns, so that differences of two are right.
const CALL: &[(&str, From)] = &[
    ("prediction_id", From::Prediction),
    ("item", From::Item),
    ("items", From::Int(|row| known(row.items))),
    ("arrived", From::Arrived),
    ("caller_id", From::Text(|row| &row.caller_id)),
    ("idempotency_key", From::Text(|row| &row.idempotency_key)),
    ("protocol", From::Text(|row| &row.protocol)),
    ("called", From::Text(|row| &row.called)),
    ("file_hash", From::Text(|row| &row.file_hash)),
    ("route", From::Text(|row| &row.route)),
    ("assigned_arm", From::Text(|row| &row.assigned_arm)),
    ("arm", From::Text(|row| &row.arm)),
    ("fallback", From::Text(|row| &row.fallback)),
    ("draw", From::Text(|row| &row.draw)),
    ("bucket", From::Int(|row| row.bucket)),
    ("propensity", From::Double(|row| row.propensity)),
    ("sticky_key", From::Text(|row| &row.sticky_key)),
    ("revision", From::Long(|row| Some(row.revision))),
    ("status", From::Text(status)),
    ("error", From::Text(|row| &row.error)),
    ("queue_us", From::Long(|row| measured(row, row.queue_us))),
    ("engine_us", From::Long(|row| measured(row, row.engine_us))),
    ("total_us", From::Long(|row| Some(row.total_us))),
    ("batch_size", From::Int(|row| known(row.batch_size))),
    ("device", From::Text(|row| &row.device)),
    ("identity", From::Text(|row| &row.identity)),
    ("inclusion", From::Double(|row| Some(row.inclusion))),
    ("stratum", From::Text(|row| &row.stratum)),
    ("schema", From::Schema),
    ("shadow", From::Text(|row| &row.shadow)),
    ("amends", From::Flag(|row| row.amends)),
    ("left_out", From::LeftOut),
];

/// Whether hardly two calls have the same value there, so that a dictionary would be a waste.
pub(crate) fn is_unique(column: &str) -> bool {
    matches!(column, "prediction_id" | "caller_id" | "idempotency_key")
}

/// A number that is nought where nobody knows it.
fn known(number: u32) -> Option<u32> {
    Some(number).filter(|number| *number > 0)
}

/// A time that is nought, but for calls that ran here, where there was nothing to measure.
fn measured(row: &Row, us: u64) -> Option<u64> {
    Some(us).filter(|us| *us > 0 || row.batch_size > 0)
}

fn status(row: &Row) -> &str {
    match row.status() {
        Status::Unknown => "",
        Status::Answered => "answered",
        Status::Replayed => "replayed",
        Status::Refused => "refused",
        Status::Failed => "failed",
        Status::Cancelled => "cancelled",
    }
}

pub(crate) fn fields() -> Vec<Field> {
    CALL.iter()
        .map(|(name, from)| {
            let kind = match from {
                From::Text(_) | From::Prediction | From::Schema | From::LeftOut => DataType::Utf8,
                From::Int(_) | From::Item => DataType::Int32,
                From::Long(_) => DataType::Int64,
                From::Double(_) => DataType::Float64,
                From::Flag(_) => DataType::Boolean,
                From::Arrived => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            };
            Field::new(*name, kind, true)
        })
        .collect()
}

enum Cells {
    Text(StringBuilder),
    Int(Int32Builder),
    Long(Int64Builder),
    Double(Float64Builder),
    Flag(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
}

/// Gathers the columns about calls.
pub(super) struct CallCells(Vec<(From, Cells)>);

impl CallCells {
    pub(super) fn new() -> Self {
        let cells = |from: From| match from {
            From::Text(_) | From::Prediction | From::Schema | From::LeftOut => {
                Cells::Text(StringBuilder::new())
            }
            From::Int(_) | From::Item => Cells::Int(Int32Builder::new()),
            From::Long(_) => Cells::Long(Int64Builder::new()),
            From::Double(_) => Cells::Double(Float64Builder::new()),
            From::Flag(_) => Cells::Flag(BooleanBuilder::new()),
            From::Arrived => Cells::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
        };
        Self(CALL.iter().map(|(_, from)| (*from, cells(*from))).collect())
    }

    /// Bytes of the texts that each line of a call repeats.
    pub(super) fn width(&self, row: &Row, fitted: &Fitted<'_>) -> usize {
        let texts = self.0.iter().map(|(from, _)| match from {
            From::Text(get) => get(row).len(),
            From::LeftOut => fitted.left_out.len(),
            _ => 0,
        });
        let slices = row.slices.iter().map(|slice| slice.value.len());
        texts.chain(slices).sum()
    }

    /// The call's values once for each of its lines `from..to`.
    pub(super) fn push(&mut self, row: &Row, fitted: &Fitted<'_>, lines: std::ops::Range<usize>) {
        let count = lines.len();
        for (from, cells) in &mut self.0 {
            match (from, cells) {
                (From::Text(get), Cells::Text(cells)) => text(cells, get(row), count),
                (From::LeftOut, Cells::Text(cells)) => text(cells, &fitted.left_out, count),
                (From::Prediction, Cells::Text(cells)) => {
                    let mut buffer = [0; 36];
                    text(cells, hyphenated(&row.prediction, &mut buffer), count);
                }
                (From::Schema, Cells::Text(cells)) => {
                    let id = if row.schema == 0 {
                        String::new()
                    } else {
                        SchemaId(row.schema).to_string()
                    };
                    text(cells, &id, count);
                }
                (From::Item, Cells::Int(cells)) => {
                    lines.clone().for_each(|line| cells.append_value(int(line)));
                }
                (From::Int(get), Cells::Int(cells)) => match get(row) {
                    Some(value) => cells.append_value_n(int(value as usize), count),
                    None => cells.append_nulls(count),
                },
                (From::Long(get), Cells::Long(cells)) => match get(row) {
                    Some(value) => {
                        cells.append_value_n(i64::try_from(value).unwrap_or(i64::MAX), count);
                    }
                    None => cells.append_nulls(count),
                },
                (From::Double(get), Cells::Double(cells)) => match get(row) {
                    Some(value) => cells.append_value_n(value, count),
                    None => cells.append_nulls(count),
                },
                (From::Flag(get), Cells::Flag(cells)) => cells.append_n(count, get(row)),
                (From::Arrived, Cells::Time(cells)) => {
                    cells.append_value_n(row.arrived_us, count);
                }
                _ => debug_assert!(false, "cells are made for their column"),
            }
        }
    }

    pub(super) fn finish(&mut self, into: &mut Vec<ArrayRef>) {
        into.extend(self.0.iter_mut().map(|(_, cells)| -> ArrayRef {
            match cells {
                Cells::Text(cells) => Arc::new(cells.finish()),
                Cells::Int(cells) => Arc::new(cells.finish()),
                Cells::Long(cells) => Arc::new(cells.finish()),
                Cells::Double(cells) => Arc::new(cells.finish()),
                Cells::Flag(cells) => Arc::new(cells.finish()),
                Cells::Time(cells) => Arc::new(cells.finish()),
            }
        }));
    }
}

/// The text so many times; nulls for an empty one.
pub(super) fn text(cells: &mut StringBuilder, value: &str, count: usize) {
    if value.is_empty() {
        cells.append_nulls(count);
    } else {
        cells.append_value_n(value, count);
    }
}

fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// The usual text of a UUID; nothing for what is none.
pub(crate) fn hyphenated<'a>(id: &[u8], buffer: &'a mut [u8; 36]) -> &'a str {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if id.len() != 16 {
        return "";
    }
    let mut at = 0;
    for (index, byte) in id.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            buffer[at] = b'-';
            at += 1;
        }
        buffer[at] = HEX[usize::from(byte >> 4)];
        buffer[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    std::str::from_utf8(buffer).unwrap_or("")
}
