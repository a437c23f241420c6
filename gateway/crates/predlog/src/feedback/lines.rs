//! Feedback as lines of Parquet, and back.

use std::sync::Arc;

use arrow_array::builder::{
    Float64Builder, Int32Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow_schema::{ArrowError, DataType, Field, Schema as ArrowSchema, TimeUnit};
use bytes::Bytes;

use super::{Feedback, Joined, Label, parse_id};
use crate::columns::hyphenated;

/// So many columns come first that say what feedback is about.
const ABOUT: usize = 3;

/// The columns of feedback.
pub(crate) fn fields() -> Vec<Field> {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = [
        ("prediction_id", DataType::Utf8),
        ("caller_id", DataType::Utf8),
        ("item", DataType::Int32),
        ("feedback_id", DataType::Utf8),
        ("label_text", DataType::Utf8),
        ("label_number", DataType::Float64),
        ("reward", DataType::Float64),
        ("event_time", time()),
        ("received", time()),
        ("source", DataType::Utf8),
        ("note", DataType::Utf8),
    ];
    columns.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect()
}

/// Lines of feedback.
///
/// # Errors
///
/// None that is known: columns have the types and lengths that their batch says.
pub(crate) fn batch<'a>(
    all: impl IntoIterator<Item = &'a Feedback>,
) -> Result<RecordBatch, ArrowError> {
    let mut texts: [StringBuilder; 6] = Default::default();
    let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
    let (mut items, mut times) = (Int32Builder::new(), [time(), time()]);
    let mut numbers = [Float64Builder::new(), Float64Builder::new()];
    for told in all {
        let (text, number) = match &told.label {
            Some(Label::Text(text)) => (Some(text.as_str()), None),
            Some(Label::Number(number)) => (None, Some(*number)),
            None => (None, None),
        };
        let mut buffer = [0; 36];
        let said = |text| Some(text).filter(|text: &&str| !text.is_empty());
        let cells = [
            said(hyphenated(&told.prediction, &mut buffer)),
            said(&told.caller_id),
            said(&told.id),
            text,
            said(&told.source),
            said(&told.note),
        ];
        texts.iter_mut().zip(cells).for_each(|(cells, cell)| cells.append_option(cell));
        items.append_option(told.item.map(|item| i32::try_from(item).unwrap_or(i32::MAX)));
        numbers[0].append_option(number);
        numbers[1].append_option(told.reward);
        times[0].append_value(told.event_us);
        times[1].append_value(told.received_us);
    }
    let [prediction, caller, id, label, source, note] =
        texts.map(|mut cells| -> ArrayRef { Arc::new(cells.finish()) });
    let [number, reward] = numbers.map(|mut cells| -> ArrayRef { Arc::new(cells.finish()) });
    let [event, received] = times.map(|mut cells| -> ArrayRef { Arc::new(cells.finish()) });
    let items: ArrayRef = Arc::new(items.finish());
    let columns =
        vec![prediction, caller, items, id, label, number, reward, event, received, source, note];
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields())), columns)
}

/// The columns that feedback adds to the lines of rows, and those of what is known of each line.
/// What is of the latest, and not of the latest that has one, is all but label and reward.
pub(crate) fn joined(known: &[Option<Joined<'_>>]) -> Result<RecordBatch, ArrowError> {
    let merged: Vec<Feedback> = known
        .iter()
        .map(|known| {
            known.map_or_else(Feedback::default, |known| Feedback {
                label: known.label.cloned(),
                reward: known.reward,
                ..known.latest.clone()
            })
        })
        .collect();
    let all = batch(&merged)?;
    let counts = known.iter().map(|known| known.map_or(0, |known| known.count as i64));
    let mut fields: Vec<Field> = fields().into_iter().skip(ABOUT).collect();
    fields.push(Field::new("feedback", DataType::Int64, true));
    let mut columns: Vec<ArrayRef> = all.columns().iter().skip(ABOUT).cloned().collect();
    for time in ["event_time", "received"] {
        let place = fields.iter().position(|field| field.name() == time).unwrap_or(0);
        let times = columns[place].as_primitive::<TimestampMicrosecondType>();
        let lines = times.iter().zip(known).map(|(time, known)| time.filter(|_| known.is_some()));
        let times: TimestampMicrosecondArray = lines.collect();
        columns[place] = Arc::new(times.with_timezone("UTC"));
    }
    columns.push(Arc::new(Int64Array::from_iter_values(counts)));
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns)
}

/// Reads what [`batch`] made; columns that a file of somebody else lacks, or has of another type,
/// are empty.
pub(crate) fn read(batch: &RecordBatch, mut take: impl FnMut(Feedback)) {
    let column = |name| batch.column_by_name(name);
    let text = |name| column(name).and_then(|array| array.as_string_opt::<i32>());
    let number = |name| column(name).and_then(|array| array.as_primitive_opt::<Float64Type>());
    let time =
        |name| column(name).and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    let items = column("item").and_then(|array| array.as_primitive_opt::<Int32Type>());
    let names = ["prediction_id", "caller_id", "feedback_id", "label_text", "source", "note"];
    let texts = names.map(text);
    let (label, reward) = (number("label_number"), number("reward"));
    let (event, received) = (time("event_time"), time("received"));
    for line in 0..batch.num_rows() {
        let cell = |index: usize| {
            texts[index].filter(|array| array.is_valid(line)).map(|array| array.value(line))
        };
        let text = |index| cell(index).unwrap_or_default().to_owned();
        let number = |array: Option<&arrow_array::Float64Array>| {
            array.filter(|array| array.is_valid(line)).map(|array| array.value(line))
        };
        let time = |array: Option<&arrow_array::TimestampMicrosecondArray>| {
            array.map_or(0, |array| if array.is_valid(line) { array.value(line) } else { 0 })
        };
        let prediction = cell(0).and_then(parse_id);
        let item = items.filter(|array| array.is_valid(line)).map(|array| array.value(line));
        take(Feedback {
            prediction: prediction.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id)),
            caller_id: text(1),
            item: item.and_then(|item| u32::try_from(item).ok()),
            id: text(2),
            label: (cell(3).map(|text| Label::Text(text.to_owned())))
                .or_else(|| number(label).map(Label::Number)),
            reward: number(reward),
            event_us: time(event),
            received_us: time(received),
            source: text(4),
            note: text(5),
        });
    }
}
