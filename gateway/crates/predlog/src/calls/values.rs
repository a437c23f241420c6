//! Tensors out of the columns that they were spread over.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch};
use arrow_schema::ArrowError;
use engine::DataType;
use half::{bf16, f16};

use crate::columns::{Layout, TensorColumns};
use crate::{State, TensorValue};

/// The columns of a tensor in a batch.
pub(super) enum Cells {
    Nothing,
    /// One for each scalar, and that of values that are no text.
    Scalars(Vec<ArrayRef>, Option<ArrayRef>),
    List(Box<Lists>),
}

/// The values, their shapes where they differ, and the values that are no text.
pub(super) struct Lists {
    values: ListArray,
    shape: Option<ListArray>,
    binary: Option<ListArray>,
}

/// What lines had of a tensor so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    data: Vec<u8>,
    lines: u64,
    /// Without the items.
    shape: Option<Vec<u64>>,
}

impl Cells {
    pub(super) fn new(tensor: &TensorColumns, batch: &RecordBatch) -> Result<Self, ArrowError> {
        let column = |name: &str| batch.column_by_name(name);
        let wanted = |name: &String| {
            let missing = || ArrowError::SchemaError(format!("the file has no column '{name}'"));
            column(name).cloned().ok_or_else(missing)
        };
        let list = |array: ArrayRef| {
            let other = || ArrowError::SchemaError("a column holds no lists".to_owned());
            array.as_list_opt::<i32>().cloned().ok_or_else(other)
        };
        let binary = column(tensor.binary()).cloned();
        Ok(match tensor.layout {
            Layout::Nothing => Self::Nothing,
            Layout::Scalars(_) => {
                Self::Scalars(tensor.names.iter().map(wanted).collect::<Result<_, _>>()?, binary)
            }
            Layout::List { with_shape } => {
                let own = |index: usize| {
                    let none = || ArrowError::SchemaError("a column is missing".to_owned());
                    list(wanted(tensor.names.get(index).ok_or_else(none)?)?)
                };
                let shape = with_shape.then(|| own(1)).transpose()?;
                let binary = binary.map(list).transpose()?;
                Self::List(Box::new(Lists { values: own(0)?, shape, binary }))
            }
        })
    }
}

impl Gathered {
    /// Adds what a line has. A tensor that belongs to the whole call is on each of its lines.
    pub(super) fn add(
        &mut self,
        tensor: &TensorColumns,
        cells: &Cells,
        line: usize,
    ) -> Result<(), ArrowError> {
        if self.lines > 0 && !tensor.spec.is_batched {
            return Ok(());
        }
        match cells {
            Cells::Nothing => return Ok(()),
            Cells::Scalars(columns, _) if columns.iter().all(|column| column.is_valid(line)) => {
                for column in columns {
                    push(tensor.datatype, column, line..line + 1, &mut self.data)?;
                }
            }
            Cells::Scalars(columns, Some(binary)) if binary.is_valid(line) => {
                match (columns.len(), binary.as_list_opt::<i32>()) {
                    (_, Some(lists)) => self.frame_all(lists, line)?,
                    (_, None) => push(DataType::Bytes, binary, line..line + 1, &mut self.data)?,
                }
            }
            Cells::List(lists) if lists.values.is_valid(line) => {
                let values = &lists.values;
                let ends = values.value_offsets();
                let (start, end) = (place(ends[line]), place(ends[line + 1]));
                push(tensor.datatype, values.values(), start..end, &mut self.data)?;
            }
            Cells::List(lists) => match lists.binary.as_ref().filter(|list| list.is_valid(line)) {
                Some(binary) => self.frame_all(binary, line)?,
                None => return Ok(()),
            },
            Cells::Scalars(..) => return Ok(()),
        }
        self.lines += 1;
        if self.shape.is_none()
            && let Cells::List(lists) = cells
            && let Some(shapes) = &lists.shape
            && shapes.is_valid(line)
        {
            let own = shapes.value(line);
            let sizes = own.as_primitive_opt::<Int64Type>();
            self.shape = sizes.map(|sizes| {
                sizes.values().iter().map(|size| u64::try_from(*size).unwrap_or(0)).collect()
            });
        }
        Ok(())
    }

    fn frame_all(&mut self, lists: &ListArray, line: usize) -> Result<(), ArrowError> {
        let values = lists.value(line);
        push(DataType::Bytes, &values, 0..values.len(), &mut self.data)
    }

    /// The tensor of a call with so many lines; `None` where they have nothing of it.
    pub(super) fn take(&mut self, tensor: &TensorColumns, state: State) -> Option<TensorValue> {
        let Self { data, lines, shape } = std::mem::take(self);
        let spec = &tensor.spec;
        let own = shape.or_else(|| {
            spec.shape.iter().map(|size| u64::try_from(*size).ok()).collect::<Option<Vec<u64>>>()
        });
        let value = |shape: Vec<u64>, data: Vec<u8>, state: State| TensorValue {
            name: spec.name.clone(),
            datatype: spec.datatype.clone(),
            shape,
            data: data.into(),
            state: state as i32,
        };
        match own {
            Some(own) if lines > 0 => {
                let items = spec.is_batched.then_some(lines);
                Some(value(items.into_iter().chain(own).collect(), data, state))
            }
            _ if state == State::Whole => None,
            _ => Some(value(vec![], vec![], state)),
        }
    }

    /// Lines of a tensor without elements, of which there is nothing to see.
    pub(super) fn count_empty(&mut self, lines: u64) {
        self.lines = lines;
    }
}

fn place(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

/// Writes elements in the wire's binary form.
fn push(
    datatype: DataType,
    array: &ArrayRef,
    range: std::ops::Range<usize>,
    into: &mut Vec<u8>,
) -> Result<(), ArrowError> {
    fn numbers<T: ArrowPrimitiveType, const N: usize>(
        array: &ArrayRef,
        range: std::ops::Range<usize>,
        into: &mut Vec<u8>,
        bytes: impl Fn(T::Native) -> [u8; N],
    ) -> Result<(), ArrowError> {
        let array = array.as_primitive_opt::<T>().ok_or_else(other)?;
        array.values()[range].iter().for_each(|value| into.extend_from_slice(&bytes(*value)));
        Ok(())
    }
    match datatype {
        DataType::Bool => {
            let array = array.as_boolean_opt().ok_or_else(other)?;
            into.extend(range.map(|index| u8::from(array.value(index))));
            Ok(())
        }
        DataType::Uint8 => numbers::<UInt8Type, _>(array, range, into, u8::to_le_bytes),
        DataType::Uint16 => numbers::<UInt16Type, _>(array, range, into, u16::to_le_bytes),
        DataType::Uint32 => numbers::<UInt32Type, _>(array, range, into, u32::to_le_bytes),
        DataType::Uint64 => numbers::<UInt64Type, _>(array, range, into, u64::to_le_bytes),
        DataType::Int8 => numbers::<Int8Type, _>(array, range, into, i8::to_le_bytes),
        DataType::Int16 => numbers::<Int16Type, _>(array, range, into, i16::to_le_bytes),
        DataType::Int32 => numbers::<Int32Type, _>(array, range, into, i32::to_le_bytes),
        DataType::Int64 => numbers::<Int64Type, _>(array, range, into, i64::to_le_bytes),
        DataType::Fp16 => numbers::<Float32Type, _>(array, range, into, |value| {
            f16::from_f32(value).to_le_bytes()
        }),
        DataType::Bf16 => numbers::<Float32Type, _>(array, range, into, |value| {
            bf16::from_f32(value).to_le_bytes()
        }),
        DataType::Fp32 => numbers::<Float32Type, _>(array, range, into, f32::to_le_bytes),
        DataType::Fp64 => numbers::<Float64Type, _>(array, range, into, f64::to_le_bytes),
        DataType::Bytes => {
            let mut frame = |value: &[u8]| {
                // A row is smaller than that.
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                into.extend_from_slice(&length.to_le_bytes());
                into.extend_from_slice(value);
            };
            if let Some(texts) = array.as_string_opt::<i32>() {
                range.for_each(|index| frame(texts.value(index).as_bytes()));
            } else {
                let values = array.as_binary_opt::<i32>().ok_or_else(other)?;
                range.for_each(|index| frame(values.value(index)));
            }
            Ok(())
        }
    }
}

fn other() -> ArrowError {
    ArrowError::SchemaError("a column has another type than the schema says".to_owned())
}
