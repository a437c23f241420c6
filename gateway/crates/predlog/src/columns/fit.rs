//! How the tensors of a row fit the columns of its schema, and why they do not.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use engine::DataType;

use super::{Columns, Extra, Layout, TensorColumns};
use crate::row::Slice;
use crate::{Row, State, Status, TensorSpec, TensorValue};

/// What of a tensor goes into columns.
#[derive(Debug, PartialEq)]
pub(crate) enum Fit<'a> {
    Nothing,
    /// Little-endian numbers of all items.
    Numbers(&'a TensorValue),
    /// BYTES that are UTF-8.
    Texts(&'a TensorValue, Vec<&'a str>),
    /// BYTES of which some are not, and whether they belong to items.
    Binary(&'a TensorValue, Vec<&'a [u8]>, bool),
    /// What redaction left, where that is not of the tensor's type or shape.
    Redacted(Vec<&'a str>),
}

/// A row's tensors beside their columns.
#[derive(Debug)]
pub(crate) struct Fitted<'a> {
    /// One for each tensor of the schema.
    pub(crate) tensors: Vec<Fit<'a>>,
    /// Which tensors are not held as they were sent, and why; empty if all are.
    pub(crate) left_out: String,
    /// Lines that the row makes.
    pub(crate) lines: usize,
}

impl<'a> Fitted<'a> {
    pub(crate) fn new(columns: &Columns, row: &'a Row) -> Self {
        let mut fitted = Self { tensors: vec![], left_out: String::new(), lines: 1 };
        let items = row.items.max(1) as usize;
        let inputs =
            columns.tensors.iter().take_while(|tensor| tensor.side == super::Side::Input).count();
        let (inputs, outputs) = columns.tensors.split_at(inputs);
        fitted.side(inputs, &row.inputs, items);
        fitted.side(outputs, &row.outputs, items);
        fitted.unknown(inputs, &row.inputs, "in");
        fitted.unknown(outputs, &row.outputs, "out");
        fitted.lines = fitted.count(columns, row);
        fitted
    }

    /// Whether the columns are all that a row needs.
    pub(crate) fn is_served_by(&self, extras: &BTreeSet<Extra>, row: &Row) -> bool {
        let has_slice = |slice: &Slice| {
            extras.iter().any(|extra| matches!(extra, Extra::Slice(name) if *name == slice.name))
        };
        row.slices.iter().all(has_slice)
            && self.tensors.iter().enumerate().all(|(index, fit)| match fit {
                Fit::Binary(..) => extras.contains(&Extra::Binary(index)),
                Fit::Redacted(_) => extras.contains(&Extra::Redacted(index)),
                Fit::Nothing | Fit::Numbers(_) | Fit::Texts(..) => true,
            })
    }

    /// The extras that a row needs.
    pub(crate) fn extras(&self, row: &Row, into: &mut BTreeSet<Extra>) {
        for (index, fit) in self.tensors.iter().enumerate() {
            match fit {
                Fit::Binary(..) => into.insert(Extra::Binary(index)),
                Fit::Redacted(_) => into.insert(Extra::Redacted(index)),
                Fit::Nothing | Fit::Numbers(_) | Fit::Texts(..) => continue,
            };
        }
        into.extend(row.slices.iter().map(|slice| Extra::Slice(slice.name.clone())));
    }

    fn side(&mut self, columns: &[TensorColumns], values: &'a [TensorValue], items: usize) {
        for (index, tensor) in columns.iter().enumerate() {
            // Rows have their tensors mostly in the order of the schema.
            let value = values
                .get(index)
                .filter(|value| value.name == tensor.spec.name)
                .or_else(|| values.iter().find(|value| value.name == tensor.spec.name));
            let fit = value.map_or(Fit::Nothing, |value| self.one(tensor, value, items));
            self.tensors.push(fit);
        }
    }

    fn one(&mut self, tensor: &TensorColumns, value: &'a TensorValue, items: usize) -> Fit<'a> {
        let state = State::try_from(value.state).unwrap_or(State::LeftOut);
        let prefix = tensor.side.prefix();
        match state {
            State::Whole => {}
            State::LeftOut => {
                self.say(format_args!("{prefix}.{} left out", value.name));
                return Fit::Nothing;
            }
            State::Redacted => self.say(format_args!("{prefix}.{} redacted", value.name)),
        }
        match values(tensor, value, items) {
            Ok(fit) => fit,
            Err(_) if state == State::Redacted => redacted(value),
            Err(reason) => {
                let (datatype, shape) = (&value.datatype, &value.shape);
                let spec = &tensor.spec;
                self.say(format_args!(
                    "{prefix}.{} does not fit its schema: {reason} ({datatype} {shape:?}, {} {:?})",
                    value.name, spec.datatype, spec.shape,
                ));
                Fit::Nothing
            }
        }
    }

    fn unknown(&mut self, columns: &[TensorColumns], values: &[TensorValue], prefix: &str) {
        for value in values {
            if !columns.iter().any(|tensor| tensor.spec.name == value.name) {
                self.say(format_args!("{prefix}.{} is not in the schema", value.name));
            }
        }
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        if !self.left_out.is_empty() {
            self.left_out.push_str("; ");
        }
        // Writing to a text does not fail.
        let _ = self.left_out.write_fmt(what);
    }

    /// One line per item. What ran had its items counted, and so has what is held; the shape of
    /// a refused call is only what its caller said, and makes no lines.
    fn count(&self, columns: &Columns, row: &Row) -> usize {
        let items = row.items.max(1) as usize;
        let ran = matches!(row.status(), Status::Answered | Status::Replayed | Status::Failed);
        let is_held = || {
            columns.tensors.iter().zip(&self.tensors).any(|(tensor, fit)| {
                tensor.spec.is_batched
                    && match fit {
                        Fit::Numbers(value) => value.data.len() >= items,
                        Fit::Texts(_, texts) => texts.len() >= items,
                        Fit::Binary(_, values, _) => values.len() >= items,
                        Fit::Nothing | Fit::Redacted(_) => false,
                    }
            })
        };
        if ran || is_held() { items } else { 1 }
    }
}

/// The values of a tensor that is what its schema says, or what is different.
fn values<'a>(
    tensor: &TensorColumns,
    value: &'a TensorValue,
    items: usize,
) -> Result<Fit<'a>, &'static str> {
    if value.datatype != tensor.spec.datatype {
        return Err("another type");
    }
    let elements = elements(&tensor.spec, &value.shape, items).ok_or("another shape")?;
    if tensor.layout == Layout::Nothing {
        return if elements == 0 { Ok(Fit::Nothing) } else { Err("a type that is not known") };
    }
    match tensor.datatype.size() {
        Some(size) if elements.checked_mul(size) == Some(value.data.len()) => {
            Ok(Fit::Numbers(value))
        }
        Some(_) => Err("another number of bytes"),
        None => {
            let values = frames(&value.data)
                .filter(|values| values.len() == elements)
                .ok_or("another number of elements")?;
            Ok(match values.iter().map(|bytes| std::str::from_utf8(bytes).ok()).collect() {
                Some(texts) => Fit::Texts(value, texts),
                None => Fit::Binary(value, values, tensor.spec.is_batched),
            })
        }
    }
}

/// What redaction left, where its texts can be read; a tensor that it dropped has nothing.
fn redacted(value: &TensorValue) -> Fit<'_> {
    let texts = (value.datatype == DataType::Bytes.name() && !value.data.is_empty())
        .then(|| frames(&value.data))
        .flatten()
        .and_then(|values| {
            values.into_iter().map(|bytes| std::str::from_utf8(bytes).ok()).collect()
        });
    texts.map_or(Fit::Nothing, Fit::Redacted)
}

/// Elements of a tensor with this shape, if the schema allows the shape.
fn elements(spec: &TensorSpec, shape: &[u64], items: usize) -> Option<usize> {
    let own = if spec.is_batched {
        let (first, own) = shape.split_first()?;
        (*first == items as u64).then_some(own)?
    } else {
        shape
    };
    let fits = own.len() == spec.shape.len()
        && own
            .iter()
            .zip(&spec.shape)
            .all(|(size, spec)| *spec < 0 || u64::try_from(*spec) == Ok(*size));
    fits.then_some(())?;
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(usize::try_from(*size).ok()?))
}

/// The elements of a BYTES tensor, each behind its length; `None` if the bytes are no such thing.
fn frames(mut data: &[u8]) -> Option<Vec<&[u8]>> {
    let mut frames = Vec::new();
    while !data.is_empty() {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let (frame, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        frames.push(frame);
        data = rest;
    }
    Some(frames)
}
