//! What lines say of their calls beside the tensors.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, BooleanArray, PrimitiveArray, RecordBatch, StringArray};

use crate::row::Slice;
use crate::{Row, Status};

type Text = fn(&mut Row) -> &mut String;
type Long = fn(&mut Row) -> &mut u64;

const TEXTS: &[(&str, Text)] = &[
    ("caller_id", |row| &mut row.caller_id),
    ("idempotency_key", |row| &mut row.idempotency_key),
    ("protocol", |row| &mut row.protocol),
    ("called", |row| &mut row.called),
    ("file_hash", |row| &mut row.file_hash),
    ("route", |row| &mut row.route),
    ("assigned_arm", |row| &mut row.assigned_arm),
    ("arm", |row| &mut row.arm),
    ("fallback", |row| &mut row.fallback),
    ("draw", |row| &mut row.draw),
    ("sticky_key", |row| &mut row.sticky_key),
    ("error", |row| &mut row.error),
    ("device", |row| &mut row.device),
    ("identity", |row| &mut row.identity),
    ("stratum", |row| &mut row.stratum),
    ("shadow", |row| &mut row.shadow),
];

const LONGS: &[(&str, Long)] = &[
    ("revision", |row| &mut row.revision),
    ("queue_us", |row| &mut row.queue_us),
    ("engine_us", |row| &mut row.engine_us),
    ("total_us", |row| &mut row.total_us),
];

const STATUS: &[(&str, Status)] = &[
    ("answered", Status::Answered),
    ("replayed", Status::Replayed),
    ("refused", Status::Refused),
    ("failed", Status::Failed),
    ("cancelled", Status::Cancelled),
];

/// The columns about calls of a batch.
pub(super) struct Heads {
    texts: Vec<(Text, StringArray)>,
    longs: Vec<(Long, PrimitiveArray<Int64Type>)>,
    slices: Vec<(String, StringArray)>,
    prediction: Option<StringArray>,
    status: Option<StringArray>,
    schema: Option<StringArray>,
    left_out: Option<StringArray>,
    shadow: Option<StringArray>,
    amends: Option<BooleanArray>,
    item: Option<PrimitiveArray<Int32Type>>,
    items: Option<PrimitiveArray<Int32Type>>,
    bucket: Option<PrimitiveArray<Int32Type>>,
    batch_size: Option<PrimitiveArray<Int32Type>>,
    arrived: Option<PrimitiveArray<TimestampMicrosecondType>>,
    propensity: Option<PrimitiveArray<Float64Type>>,
    inclusion: Option<PrimitiveArray<Float64Type>>,
}

impl Heads {
    pub(super) fn new(batch: &RecordBatch) -> Self {
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>().cloned();
        let texts = TEXTS.iter().filter_map(|(name, of)| Some((*of, text(name)?)));
        let longs = LONGS.iter().filter_map(|(name, of)| Some((*of, numbers(batch, name)?)));
        let schema = batch.schema();
        let slices = schema.fields().iter().filter_map(|field| {
            let name = field.name().strip_prefix("slice_")?;
            Some((name.to_owned(), text(field.name())?))
        });
        Self {
            texts: texts.collect(),
            longs: longs.collect(),
            slices: slices.collect(),
            prediction: text("prediction_id"),
            status: text("status"),
            schema: text("schema"),
            left_out: text("left_out"),
            shadow: text("shadow"),
            amends: batch
                .column_by_name("amends")
                .and_then(|column| column.as_boolean_opt())
                .cloned(),
            item: numbers(batch, "item"),
            items: numbers(batch, "items"),
            bucket: numbers(batch, "bucket"),
            batch_size: numbers(batch, "batch_size"),
            arrived: numbers(batch, "arrived"),
            propensity: numbers(batch, "propensity"),
            inclusion: numbers(batch, "inclusion"),
        }
    }

    /// What tells the lines of a call from those of the one before.
    pub(super) fn key(&self, line: usize) -> (&str, &str, bool) {
        let amends =
            self.amends.as_ref().is_some_and(|array| array.is_valid(line) && array.value(line));
        (text(self.prediction.as_ref(), line), text(self.shadow.as_ref(), line), amends)
    }

    pub(super) fn item(&self, line: usize) -> u32 {
        unsigned(number(self.item.as_ref(), line))
    }

    pub(super) fn left_out(&self, line: usize) -> &str {
        text(self.left_out.as_ref(), line)
    }

    /// The call of a line, without its tensors.
    pub(super) fn row(&self, line: usize) -> Row {
        let (prediction, _, amends) = self.key(line);
        let mut row = Row {
            prediction: id(prediction).into(),
            amends,
            arrived_us: number(self.arrived.as_ref(), line).unwrap_or(0),
            status: status(text(self.status.as_ref(), line)) as i32,
            items: unsigned(number(self.items.as_ref(), line)),
            bucket: number(self.bucket.as_ref(), line)
                .and_then(|bucket| u32::try_from(bucket).ok()),
            batch_size: unsigned(number(self.batch_size.as_ref(), line)),
            propensity: number(self.propensity.as_ref(), line),
            inclusion: number(self.inclusion.as_ref(), line).unwrap_or(0.0),
            schema: u64::from_str_radix(text(self.schema.as_ref(), line), 16).unwrap_or(0),
            ..Row::default()
        };
        for (of, column) in &self.texts {
            text(Some(column), line).clone_into(of(&mut row));
        }
        for (of, column) in &self.longs {
            *of(&mut row) =
                number(Some(column), line).and_then(|of| u64::try_from(of).ok()).unwrap_or(0);
        }
        let slices = self.slices.iter().map(|(name, column)| (name, text(Some(column), line)));
        let slices = slices.filter(|(_, value)| !value.is_empty());
        let slice =
            |(name, value): (&String, &str)| Slice { name: name.clone(), value: value.into() };
        row.slices = slices.map(slice).collect();
        row
    }
}

fn numbers<T: ArrowPrimitiveType>(batch: &RecordBatch, name: &str) -> Option<PrimitiveArray<T>> {
    batch.column_by_name(name)?.as_primitive_opt::<T>().cloned()
}

fn text(column: Option<&StringArray>, line: usize) -> &str {
    column.filter(|column| column.is_valid(line)).map_or("", |column| column.value(line))
}

fn number<T: ArrowPrimitiveType>(
    column: Option<&PrimitiveArray<T>>,
    line: usize,
) -> Option<T::Native> {
    column.filter(|column| column.is_valid(line)).map(|column| column.value(line))
}

fn unsigned(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

fn status(text: &str) -> Status {
    STATUS.iter().find(|(name, _)| *name == text).map_or(Status::Unknown, |(_, status)| *status)
}

/// The bytes of a UUID; none of what is no such text.
fn id(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.filter(|bytes| bytes.len() == 16).unwrap_or_default()
}
