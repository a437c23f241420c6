//! The values of one tensor, gathered line by line and turned into columns at the end.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder, StringBuilder};
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, BooleanArray, ListArray, PrimitiveArray};
use arrow_buffer::{BooleanBuffer, NullBuffer, NullBufferBuilder, OffsetBuffer};
use arrow_schema::DataType as ArrowType;
use engine::DataType;
use half::{bf16, f16};

use super::batch::Part;
use super::{Fit, Layout, TensorColumns, arrow_type, element};

/// Gathers a tensor.
pub(super) enum Cells {
    Nothing,
    /// Numbers of one line behind those of the line before, as on the wire.
    Numbers {
        data: Vec<u8>,
        line: usize,
        nulls: NullBufferBuilder,
    },
    Lists {
        data: Vec<u8>,
        size: usize,
        ends: Vec<i32>,
        nulls: NullBufferBuilder,
        shapes: Shapes,
    },
    Texts(Vec<StringBuilder>),
    TextLists(Box<ListBuilder<StringBuilder>>, Shapes),
}

/// The shapes of lists, where there is a column for them.
pub(super) struct Shapes(Option<Box<ListBuilder<Int64Builder>>>);

impl Cells {
    pub(super) fn new(tensor: &TensorColumns) -> Self {
        let nulls = NullBufferBuilder::new(0);
        match (tensor.layout, tensor.datatype.size()) {
            (Layout::Nothing, _) => Self::Nothing,
            (Layout::Scalars(count), Some(size)) => {
                Self::Numbers { data: vec![], line: count * size, nulls }
            }
            (Layout::Scalars(count), None) => {
                Self::Texts((0..count).map(|_| StringBuilder::new()).collect())
            }
            (Layout::List { with_shape }, Some(size)) => Self::Lists {
                data: vec![],
                size,
                ends: vec![0],
                nulls,
                shapes: Shapes::new(with_shape),
            },
            (Layout::List { with_shape }, None) => {
                let texts =
                    ListBuilder::new(StringBuilder::new()).with_field(element(ArrowType::Utf8));
                Self::TextLists(Box::new(texts), Shapes::new(with_shape))
            }
        }
    }

    /// Adds lines; returns how many bytes they take.
    pub(super) fn push(&mut self, fit: &Fit<'_>, part: &Part) -> usize {
        match (self, fit) {
            (Self::Nothing, _) => 0,
            (Self::Numbers { data, line, nulls }, Fit::Numbers(value)) => {
                let before = data.len();
                part.of(&value.data).for_each(|line| data.extend_from_slice(line));
                debug_assert_eq!(data.len() - before, *line * part.lines.len());
                nulls.append_n_non_nulls(part.lines.len());
                data.len() - before
            }
            (Self::Lists { data, size, ends, nulls, shapes }, Fit::Numbers(value)) => {
                let before = data.len();
                for line in part.of(&value.data) {
                    data.extend_from_slice(line);
                    ends.push(offset(data.len() / *size));
                }
                nulls.append_n_non_nulls(part.lines.len());
                shapes.push(&value.shape, part);
                data.len() - before
            }
            (Self::Texts(columns), Fit::Texts(_, texts)) => {
                for line in part.of(texts) {
                    for (cells, text) in columns.iter_mut().zip(line) {
                        cells.append_value(text);
                    }
                }
                size(texts, part)
            }
            (Self::TextLists(cells, shapes), Fit::Texts(value, texts)) => {
                for line in part.of(texts) {
                    line.iter().for_each(|text| cells.values().append_value(text));
                    cells.append(true);
                }
                shapes.push(&value.shape, part);
                size(texts, part)
            }
            // The values are in a column beside these; their shape is not.
            (Self::TextLists(cells, shapes), Fit::Binary(value, ..)) => {
                part.lines.clone().for_each(|_| cells.append_null());
                shapes.push(&value.shape, part);
                0
            }
            (cells, _) => cells.nulls(part.lines.len()),
        }
    }

    fn nulls(&mut self, lines: usize) -> usize {
        match self {
            Self::Nothing => {}
            Self::Numbers { data, line, nulls } => {
                data.resize(data.len() + *line * lines, 0);
                nulls.append_n_nulls(lines);
                return *line * lines;
            }
            Self::Lists { data, size, ends, nulls, shapes } => {
                ends.extend(std::iter::repeat_n(offset(data.len() / *size), lines));
                nulls.append_n_nulls(lines);
                shapes.nulls(lines);
            }
            Self::Texts(columns) => {
                columns.iter_mut().for_each(|cells| cells.append_nulls(lines));
            }
            Self::TextLists(cells, shapes) => {
                (0..lines).for_each(|_| cells.append_null());
                shapes.nulls(lines);
            }
        }
        0
    }

    pub(super) fn finish(&mut self, tensor: &TensorColumns, into: &mut Vec<ArrayRef>) {
        match self {
            Self::Nothing => {}
            Self::Numbers { data, line, nulls } => {
                let nulls = nulls.finish();
                let width = *line / tensor.names.len();
                into.extend((0..tensor.names.len()).map(|index| {
                    numbers(tensor.datatype, data, (index * width, *line), nulls.clone())
                }));
                data.clear();
            }
            Self::Lists { data, size, ends, nulls, shapes } => {
                let values = numbers(tensor.datatype, data, (0, *size), None);
                let ends = std::mem::replace(ends, vec![0]);
                into.push(Arc::new(ListArray::new(
                    element(arrow_type(tensor.datatype)),
                    OffsetBuffer::new(ends.into()),
                    values,
                    nulls.finish(),
                )));
                shapes.finish(into);
                // Lists may be large and rare: what they took is not held on to.
                *data = vec![];
            }
            Self::Texts(columns) => {
                into.extend(
                    columns.iter_mut().map(|cells| -> ArrayRef { Arc::new(cells.finish()) }),
                );
            }
            Self::TextLists(cells, shapes) => {
                into.push(Arc::new(cells.finish()));
                shapes.finish(into);
            }
        }
    }
}

impl Shapes {
    fn new(wanted: bool) -> Self {
        let builder =
            || ListBuilder::new(Int64Builder::new()).with_field(element(ArrowType::Int64));
        Self(wanted.then(|| Box::new(builder())))
    }

    /// The shape of each line: that of the tensor, without its items.
    fn push(&mut self, shape: &[u64], part: &Part) {
        let Some(cells) = &mut self.0 else { return };
        let own = if part.items.is_some() { shape.get(1..).unwrap_or(&[]) } else { shape };
        for _ in part.lines.clone() {
            for size in own {
                cells.values().append_value(i64::try_from(*size).unwrap_or(i64::MAX));
            }
            cells.append(true);
        }
    }

    fn nulls(&mut self, lines: usize) {
        if let Some(cells) = &mut self.0 {
            (0..lines).for_each(|_| cells.append_null());
        }
    }

    fn finish(&mut self, into: &mut Vec<ArrayRef>) {
        into.extend(self.0.as_mut().map(|cells| -> ArrayRef { Arc::new(cells.finish()) }));
    }
}

/// Elements of lists in a batch stay far below the limit: batches are bounded in bytes, and one
/// row by the largest message.
fn offset(elements: usize) -> i32 {
    i32::try_from(elements).unwrap_or(i32::MAX)
}

fn size(texts: &[&str], part: &Part) -> usize {
    let all: usize = texts.iter().map(|text| text.len()).sum();
    part.items.map_or(all * part.lines.len(), |items| all * part.lines.len() / items)
}

/// The numbers that stand at `at` of each `step` bytes, as `(at, step)`.
fn numbers(
    datatype: DataType,
    data: &[u8],
    steps: (usize, usize),
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    /// Numbers that are written as `N` bytes.
    fn read<T: ArrowPrimitiveType, const N: usize>(
        data: &[u8],
        (at, step): (usize, usize),
        nulls: Option<NullBuffer>,
        number: impl Fn([u8; N]) -> T::Native,
    ) -> ArrayRef {
        let values: Vec<T::Native> = data
            .chunks_exact(step)
            .map(|line| line[at..].first_chunk().map_or(T::default_value(), |bytes| number(*bytes)))
            .collect();
        Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
    }
    match datatype {
        DataType::Bool => {
            let (at, step) = steps;
            let values: BooleanBuffer = data.chunks_exact(step).map(|line| line[at] != 0).collect();
            Arc::new(BooleanArray::new(values, nulls))
        }
        DataType::Uint8 => read::<UInt8Type, _>(data, steps, nulls, u8::from_le_bytes),
        DataType::Uint16 => read::<UInt16Type, _>(data, steps, nulls, u16::from_le_bytes),
        DataType::Uint32 => read::<UInt32Type, _>(data, steps, nulls, u32::from_le_bytes),
        DataType::Uint64 => read::<UInt64Type, _>(data, steps, nulls, u64::from_le_bytes),
        DataType::Int8 => read::<Int8Type, _>(data, steps, nulls, i8::from_le_bytes),
        DataType::Int16 => read::<Int16Type, _>(data, steps, nulls, i16::from_le_bytes),
        DataType::Int32 => read::<Int32Type, _>(data, steps, nulls, i32::from_le_bytes),
        DataType::Int64 => read::<Int64Type, _>(data, steps, nulls, i64::from_le_bytes),
        DataType::Fp16 => {
            read::<Float32Type, _>(data, steps, nulls, |bytes| f16::from_le_bytes(bytes).to_f32())
        }
        DataType::Bf16 => {
            read::<Float32Type, _>(data, steps, nulls, |bytes| bf16::from_le_bytes(bytes).to_f32())
        }
        DataType::Fp32 => read::<Float32Type, _>(data, steps, nulls, f32::from_le_bytes),
        // Texts are gathered as such and never come here.
        DataType::Fp64 | DataType::Bytes => {
            read::<Float64Type, _>(data, steps, nulls, f64::from_le_bytes)
        }
    }
}
