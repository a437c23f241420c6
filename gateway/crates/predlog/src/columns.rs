//! Columns: which ones the rows of a schema have, how values fit them, and batches of them.
//!
//! Every file has the same columns about calls. Those of tensors follow from the schema alone,
//! and a few exist only where a row needs them ([`Extra`]).

mod batch;
mod call;
mod fit;
mod tensor;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow_schema::{DataType as ArrowType, Field, Schema as ArrowSchema};
use engine::DataType;

use crate::{Schema, TensorSpec};

pub(crate) use batch::Batch;
pub(crate) use call::{fields as call_fields, hyphenated, is_unique};
pub(crate) use fit::{Fit, Fitted};

/// Which side of the model a tensor is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Input,
    Output,
}

impl Side {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Input => "in",
            Self::Output => "out",
        }
    }
}

/// How the scalars of a tensor are laid out in columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// It has no scalars, or a type that this version does not know.
    Nothing,
    /// One column for each of so many scalars.
    Scalars(usize),
    /// One column of lists, row-major; with the shape beside it where that differs.
    List { with_shape: bool },
}

/// The columns of one tensor.
#[derive(Debug)]
pub(crate) struct TensorColumns {
    pub(crate) side: Side,
    pub(crate) spec: TensorSpec,
    pub(crate) datatype: DataType,
    pub(crate) layout: Layout,
    /// Of scalars one name each; of a list its own and perhaps that of the shape.
    pub(crate) names: Vec<String>,
    redacted: String,
    binary: String,
}

/// A column that a file has only where one of its rows needs it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Extra {
    /// `slice_<name>`: a declared header or parameter.
    Slice(String),
    /// `<tensor>_redacted`: what redaction left of the tensor with this index, where that is not
    /// of the tensor's type.
    Redacted(usize),
    /// `<tensor>_binary`: values of the BYTES tensor with this index that are not UTF-8.
    Binary(usize),
}

/// The columns of a schema.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) tensors: Vec<TensorColumns>,
    taken: HashSet<String>,
}

impl Columns {
    /// Up to `limit` scalars of a tensor get a column each.
    pub(crate) fn new(schema: &Schema, limit: usize) -> Self {
        let mut names = Names::default();
        for field in call::fields() {
            names.claim(field.name().clone());
        }
        let inputs = schema.inputs.iter().map(|spec| (Side::Input, spec));
        let outputs = schema.outputs.iter().map(|spec| (Side::Output, spec));
        let mut tensors: Vec<_> =
            inputs.chain(outputs).map(|(side, spec)| names.tensor(side, spec, limit)).collect();
        // After all others, so that these names move no name that follows from the schema.
        for tensor in &mut tensors {
            let stem = format!("{}_{}", tensor.side.prefix(), tensor.spec.name);
            tensor.redacted = names.claim(format!("{stem}_redacted"));
            tensor.binary = names.claim(format!("{stem}_binary"));
        }
        Self { tensors, taken: names.0 }
    }

    /// The schema of files with these extras.
    pub(crate) fn arrow(&self, extras: &BTreeSet<Extra>) -> ArrowSchema {
        let mut fields = call::fields();
        fields.extend(self.tensors.iter().flat_map(TensorColumns::fields));
        let mut names = Names(self.taken.clone());
        for extra in extras {
            let (name, kind) = match extra {
                Extra::Slice(name) => (names.claim(format!("slice_{name}")), ArrowType::Utf8),
                Extra::Redacted(index) => (self.tensors[*index].redacted.clone(), ArrowType::Utf8),
                Extra::Binary(index) => {
                    let tensor = &self.tensors[*index];
                    let kind = match tensor.layout {
                        Layout::Scalars(1) => ArrowType::Binary,
                        _ => list(ArrowType::Binary),
                    };
                    (tensor.binary.clone(), kind)
                }
            };
            fields.push(Field::new(name, kind, true));
        }
        ArrowSchema::new(fields)
    }
}

impl TensorColumns {
    pub(crate) fn is_input(&self) -> bool {
        self.side == Side::Input
    }

    /// The column of values that are no UTF-8, in files that have it.
    pub(crate) fn binary(&self) -> &str {
        &self.binary
    }

    fn fields(&self) -> Vec<Field> {
        let kind = arrow_type(self.datatype);
        let kinds = match self.layout {
            Layout::Nothing => vec![],
            Layout::Scalars(count) => vec![kind; count],
            Layout::List { with_shape: false } => vec![list(kind)],
            Layout::List { with_shape: true } => vec![list(kind), list(ArrowType::Int64)],
        };
        self.names.iter().zip(kinds).map(|(name, kind)| Field::new(name, kind, true)).collect()
    }
}

/// Names that are taken, in lower case: DuckDB tells no others apart.
#[derive(Debug, Default)]
struct Names(HashSet<String>);

impl Names {
    /// The name, or the first of `name_2`, `name_3`, … that nobody has.
    fn claim(&mut self, name: String) -> String {
        if self.0.insert(name.to_lowercase()) {
            return name;
        }
        let mut number = 2_u64;
        loop {
            let other = format!("{name}_{number}");
            if self.0.insert(other.to_lowercase()) {
                return other;
            }
            number += 1;
        }
    }

    fn tensor(&mut self, side: Side, spec: &TensorSpec, limit: usize) -> TensorColumns {
        let known = spec.datatype.parse();
        let scalars = spec.scalars();
        let layout = match (known.is_ok(), scalars) {
            (false, _) | (true, Some(0)) => Layout::Nothing,
            (true, Some(count)) if count <= limit => Layout::Scalars(count),
            (true, _) => Layout::List { with_shape: scalars.is_none() },
        };
        let prefix = side.prefix();
        let stem = format!("{prefix}_{}", spec.name);
        let wanted: Vec<String> = match layout {
            Layout::Nothing => vec![],
            Layout::Scalars(count) if spec.features.len() == count => {
                spec.features.iter().map(|feature| format!("{prefix}_{feature}")).collect()
            }
            Layout::Scalars(1) => vec![stem],
            Layout::Scalars(count) => (0..count).map(|index| format!("{stem}_{index}")).collect(),
            Layout::List { with_shape: false } => vec![stem],
            Layout::List { with_shape: true } => {
                let shape = format!("{stem}_shape");
                vec![stem, shape]
            }
        };
        TensorColumns {
            side,
            spec: spec.clone(),
            datatype: known.unwrap_or(DataType::Bytes),
            layout,
            names: wanted.into_iter().map(|name| self.claim(name)).collect(),
            redacted: String::new(),
            binary: String::new(),
        }
    }
}

/// The type of a column of such scalars; the 16-bit floats, which few readers know, are widened.
fn arrow_type(datatype: DataType) -> ArrowType {
    match datatype {
        DataType::Bool => ArrowType::Boolean,
        DataType::Uint8 => ArrowType::UInt8,
        DataType::Uint16 => ArrowType::UInt16,
        DataType::Uint32 => ArrowType::UInt32,
        DataType::Uint64 => ArrowType::UInt64,
        DataType::Int8 => ArrowType::Int8,
        DataType::Int16 => ArrowType::Int16,
        DataType::Int32 => ArrowType::Int32,
        DataType::Int64 => ArrowType::Int64,
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 => ArrowType::Float32,
        DataType::Fp64 => ArrowType::Float64,
        DataType::Bytes => ArrowType::Utf8,
    }
}

/// The element of lists, named as the Parquet format wants it.
fn element(kind: ArrowType) -> Arc<Field> {
    Arc::new(Field::new("element", kind, true))
}

fn list(kind: ArrowType) -> ArrowType {
    ArrowType::List(element(kind))
}

#[cfg(test)]
mod tests;
