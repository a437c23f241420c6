//! Lines of one file, gathered until they are written.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, DataType as ArrowType, SchemaRef};

use super::call::{CallCells, text};
use super::tensor::Cells;
use super::{Columns, Extra, Fit, Fitted, Layout, element};
use crate::Row;

/// Lines after which a batch is full.
const LINES: usize = 4096;
/// Bytes of values after which a batch is full.
const BYTES: usize = 1 << 20;
/// About what a line takes beside its values and texts.
const LINE: usize = 150;

/// Gathers lines.
pub(crate) struct Batch {
    columns: Arc<Columns>,
    extras: BTreeSet<Extra>,
    schema: SchemaRef,
    call: CallCells,
    tensors: Vec<Cells>,
    extra: Vec<ExtraCells>,
    lines: usize,
    bytes: usize,
}

enum ExtraCells {
    Text(StringBuilder),
    Binary(BinaryBuilder),
    BinaryList(ListBuilder<BinaryBuilder>),
}

impl Batch {
    pub(crate) fn new(columns: Arc<Columns>) -> Self {
        let extras = BTreeSet::new();
        Self {
            schema: Arc::new(columns.arrow(&extras)),
            call: CallCells::new(),
            tensors: columns.tensors.iter().map(Cells::new).collect(),
            extra: vec![],
            columns,
            extras,
            lines: 0,
            bytes: 0,
        }
    }

    pub(crate) fn columns(&self) -> &Columns {
        &self.columns
    }

    pub(crate) fn extras(&self) -> &BTreeSet<Extra> {
        &self.extras
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.lines >= LINES || self.bytes >= BYTES
    }

    /// Adds columns; lines that are here already have nulls there.
    pub(crate) fn add(&mut self, extras: BTreeSet<Extra>) {
        let mut before = std::mem::take(&mut self.extras).into_iter().zip(self.extra.drain(..));
        let mut old = before.next();
        let mut cells = Vec::with_capacity(extras.len());
        for extra in &extras {
            match old.take_if(|(name, _)| name == extra) {
                Some((_, kept)) => {
                    cells.push(kept);
                    old = before.next();
                }
                None => cells.push(ExtraCells::new(extra, &self.columns, self.lines)),
            }
        }
        drop(before);
        debug_assert!(old.is_none(), "columns are added only");
        self.schema = Arc::new(self.columns.arrow(&extras));
        (self.extra, self.extras) = (cells, extras);
    }

    /// How many lines of a row fit, at least one.
    pub(crate) fn room(&self, fitted: &Fitted<'_>, row: &Row) -> usize {
        let tensors = row.inputs.iter().chain(&row.outputs);
        let bytes: usize = tensors.map(|tensor| tensor.data.len()).sum();
        let line = bytes / fitted.lines + LINE + self.call.width(row, fitted);
        (LINES.saturating_sub(self.lines)).min(BYTES.saturating_sub(self.bytes) / line).max(1)
    }

    /// Adds lines of a row, for which all its extras are here.
    pub(crate) fn push(&mut self, row: &Row, fitted: &Fitted<'_>, lines: Range<usize>) {
        self.call.push(row, fitted, lines.clone());
        for (index, fit) in fitted.tensors.iter().enumerate() {
            let is_batched = self.columns.tensors[index].spec.is_batched;
            let of = Part { items: is_batched.then_some(fitted.lines), lines: lines.clone() };
            self.bytes += self.tensors[index].push(fit, &of);
        }
        for (extra, cells) in self.extras.iter().zip(&mut self.extra) {
            self.bytes += cells.push(extra, row, fitted, &lines);
        }
        self.lines += lines.len();
        self.bytes += lines.len() * (LINE + self.call.width(row, fitted));
    }

    /// What was gathered; the batch is empty afterwards.
    pub(crate) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        self.call.finish(&mut arrays);
        for (cells, tensor) in self.tensors.iter_mut().zip(&self.columns.tensors) {
            cells.finish(tensor, &mut arrays);
        }
        arrays.extend(self.extra.iter_mut().map(ExtraCells::finish));
        (self.lines, self.bytes) = (0, 0);
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
    }
}

/// Which lines of a tensor.
pub(super) struct Part {
    /// Items of the whole tensor; `None` if it belongs to the call and not to items.
    pub(super) items: Option<usize>,
    pub(super) lines: Range<usize>,
}

impl Part {
    /// The elements of each line.
    pub(super) fn of<'a, T>(&self, elements: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        let each = self.items.map(|items| elements.len() / items);
        self.lines.clone().map(move |line| match each {
            Some(each) => &elements[line * each..(line + 1) * each],
            None => elements,
        })
    }
}

impl ExtraCells {
    fn new(extra: &Extra, columns: &Columns, lines: usize) -> Self {
        let mut cells = match extra {
            Extra::Slice(_) | Extra::Redacted(_) => Self::Text(StringBuilder::new()),
            Extra::Binary(index) if columns.tensors[*index].layout == Layout::Scalars(1) => {
                Self::Binary(BinaryBuilder::new())
            }
            Extra::Binary(_) => Self::BinaryList(
                ListBuilder::new(BinaryBuilder::new()).with_field(element(ArrowType::Binary)),
            ),
        };
        cells.nulls(lines);
        cells
    }

    fn nulls(&mut self, lines: usize) {
        match self {
            Self::Text(cells) => cells.append_nulls(lines),
            Self::Binary(cells) => cells.append_nulls(lines),
            Self::BinaryList(cells) => (0..lines).for_each(|_| cells.append_null()),
        }
    }

    /// Returns how many bytes it took.
    fn push(
        &mut self,
        extra: &Extra,
        row: &Row,
        fitted: &Fitted<'_>,
        lines: &Range<usize>,
    ) -> usize {
        let mut bytes = 0;
        match (extra, self) {
            (Extra::Slice(name), Self::Text(cells)) => {
                let slice = row.slices.iter().find(|slice| slice.name == *name);
                text(cells, slice.map_or("", |slice| &slice.value), lines.len());
            }
            (Extra::Redacted(index), cells) => match (&fitted.tensors[*index], cells) {
                (Fit::Redacted(texts), Self::Text(cells)) => {
                    for line in lines.clone() {
                        let value = left(texts, line, fitted.lines);
                        bytes += value.len();
                        text(cells, &value, 1);
                    }
                }
                (_, cells) => cells.nulls(lines.len()),
            },
            (Extra::Binary(index), cells) => match (&fitted.tensors[*index], cells) {
                (Fit::Binary(_, values, is_batched), cells) => {
                    let items = is_batched.then_some(fitted.lines);
                    let part = Part { items, lines: lines.clone() };
                    for values in part.of(values) {
                        bytes += values.iter().map(|value| value.len()).sum::<usize>();
                        cells.binary(values);
                    }
                }
                (_, cells) => cells.nulls(lines.len()),
            },
            (_, cells) => cells.nulls(lines.len()),
        }
        bytes
    }

    fn binary(&mut self, values: &[&[u8]]) {
        match self {
            Self::Text(cells) => cells.append_null(),
            Self::Binary(cells) => cells.append_option(values.first()),
            Self::BinaryList(cells) => {
                values.iter().for_each(|value| cells.values().append_value(value));
                cells.append(true);
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(cells) => Arc::new(cells.finish()),
            Self::Binary(cells) => Arc::new(cells.finish()),
            Self::BinaryList(cells) => Arc::new(cells.finish()),
        }
    }
}

/// What redaction left of an item: one text as it is, several as a JSON list.
fn left(texts: &[&str], item: usize, items: usize) -> String {
    let own = match texts.len().checked_div(items) {
        Some(each) if each > 0 && each * items == texts.len() => {
            &texts[item * each..(item + 1) * each]
        }
        // Not by items: it stands for all of them.
        _ => texts,
    };
    match own {
        [one] => (*one).to_owned(),
        several => serde_json::json!(several).to_string(),
    }
}
