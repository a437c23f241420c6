//! Batches of different schemas as one table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::columns::call_fields;

/// Columns in the order in which they were first met.
#[derive(Default)]
pub(super) struct Union {
    fields: Vec<(String, DataType)>,
    places: HashMap<String, usize>,
}

impl Union {
    /// Whether nothing was added.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The columns that each row has, and as texts those that are wanted beside them: there is
    /// nothing that would say what they hold.
    pub(super) fn add_none(&mut self, wanted: &[String]) {
        self.add(&Schema::new(call_fields()));
        for name in wanted {
            if !self.places.contains_key(name) {
                self.column(name, &DataType::Utf8);
            }
        }
    }

    pub(super) fn add(&mut self, schema: &Schema) {
        if self.fields.is_empty() {
            self.column("model", &DataType::Utf8);
            self.column("version", &DataType::Utf8);
        }
        schema.fields().iter().for_each(|field| self.column(field.name(), field.data_type()));
    }

    fn column(&mut self, name: &str, kind: &DataType) {
        match self.places.get(name) {
            Some(place) => {
                let known = &mut self.fields[*place].1;
                *known = wider(known, kind);
            }
            None => {
                self.places.insert(name.to_owned(), self.fields.len());
                self.fields.push((name.to_owned(), kind.clone()));
            }
        }
    }

    /// All columns, or the wanted ones in their order.
    pub(super) fn finish(self, wanted: &[String]) -> Schema {
        let field = |(name, kind): &(String, DataType)| Field::new(name, kind.clone(), true);
        if wanted.is_empty() {
            return Schema::new(self.fields.iter().map(field).collect::<Vec<_>>());
        }
        let places = wanted.iter().filter_map(|name| self.places.get(name));
        Schema::new(places.map(|place| field(&self.fields[*place])).collect::<Vec<_>>())
    }
}

/// A type that takes values of both: the same, a wider number, or text.
fn wider(a: &DataType, b: &DataType) -> DataType {
    let has_sign_or_room = |kind: &DataType| kind.is_integer() && !matches!(kind, DataType::UInt64);
    match (a, b) {
        (a, b) if a == b => a.clone(),
        (a, b) if has_sign_or_room(a) && has_sign_or_room(b) => DataType::Int64,
        (a, b) if a.is_numeric() && b.is_numeric() => DataType::Float64,
        _ => DataType::Utf8,
    }
}

/// A batch with the columns of a schema; those that it lacks are null.
///
/// # Errors
///
/// Where a value cannot be what its column is.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |field: &Arc<Field>| -> Result<ArrayRef, ArrowError> {
        match batch.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(array) if array.data_type() == field.data_type() => Ok(Arc::clone(array)),
            Some(array) if field.data_type() == &DataType::Utf8 => texts(array),
            Some(array) => cast(array, field.data_type()),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// Values as text: texts as they are, lists in brackets, bytes in hex.
///
/// # Errors
///
/// For types that have no text.
pub(crate) fn texts(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if array.data_type() == &DataType::Utf8 {
        return Ok(Arc::clone(array));
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let text =
        |line| array.is_valid(line).then(|| formatter.value(line).try_to_string()).transpose();
    let texts: StringArray = (0..array.len()).map(text).collect::<Result<_, _>>()?;
    Ok(Arc::new(texts))
}

/// The batch with times in a zone that needs no table of zones to be written as text.
///
/// # Errors
///
/// None that is known: only what columns are called changes.
pub(crate) fn printable(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let column = |(field, array): (&Arc<Field>, &ArrayRef)| -> (Arc<Field>, ArrayRef) {
        match array.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) if times.timezone() == Some("UTC") => {
                let times = times.clone().with_timezone("+00:00");
                let field = field.as_ref().clone().with_data_type(times.data_type().clone());
                (Arc::new(field), Arc::new(times))
            }
            _ => (Arc::clone(field), Arc::clone(array)),
        }
    };
    let schema = batch.schema();
    let (fields, arrays): (Vec<_>, Vec<_>) =
        schema.fields().iter().zip(batch.columns()).map(column).unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}
