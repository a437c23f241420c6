//! Which class an answer said of each item.

use std::sync::Arc;

use engine::{DataType, Tensor};

use crate::codec::numbers;
use crate::types::Signature;

/// Elements of an output beyond which nobody looks for the largest: that would cost calls more
/// than it tells.
const MOST_ELEMENTS: usize = 4096;
/// Items beyond which no classes are remembered: they would take more than all the rest.
const MOST_ITEMS: usize = 64;

/// The classes of the items of a prediction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Classes {
    /// It has so many items, and said nothing of classes.
    None(u32),
    One(u32),
    Several(Arc<[u32]>),
}

/// Which output says the class, by index: the first with labels, or the only one that has several
/// floats or a single whole number for each item.
pub(super) fn output_of(signature: &Signature) -> Option<usize> {
    let outputs = &signature.outputs;
    let labelled = outputs.iter().position(|output| !output.labels.is_empty());
    labelled.or_else(|| {
        let [output] = outputs.as_slice() else { return None };
        let shape = output.spec.shape.iter().skip(usize::from(signature.max_batch_size > 0));
        let size: i64 = shape.copied().product();
        let is_class = match output.spec.datatype {
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => size > 1,
            DataType::Bool | DataType::Bytes => false,
            _ => size == 1,
        };
        is_class.then_some(0)
    })
}

impl Classes {
    /// What an answer says; `output` by index.
    pub(super) fn of(output: Option<usize>, outputs: &[Tensor], items: u32) -> Self {
        let tensor = output.and_then(|index| outputs.get(index));
        let Some(tensor) = tensor.filter(|tensor| tensor.elements() <= MOST_ELEMENTS) else {
            return Self::None(items);
        };
        let count = items.max(1) as usize;
        if count > MOST_ITEMS {
            return Self::None(items);
        }
        let size = tensor.elements() / count;
        if size == 0 || size * count != tensor.elements() {
            return Self::None(items);
        }
        if tensor.datatype() == DataType::Fp32 {
            let floats = tensor.data().as_chunks::<4>().0;
            return Self::each(floats.chunks_exact(size), |item| {
                largest(item.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes))))
            });
        }
        let is_float =
            matches!(tensor.datatype(), DataType::Fp16 | DataType::Bf16 | DataType::Fp64);
        let numbers = numbers::to_f64(tensor);
        if numbers.is_empty() || (!is_float && size != 1) {
            return Self::None(items);
        }
        Self::each(numbers.chunks_exact(size), |item| match is_float {
            true => largest(item.iter().copied()),
            false => whole(item[0]),
        })
    }

    fn each<T>(items: impl ExactSizeIterator<Item = T>, class: impl Fn(T) -> u32) -> Self {
        if items.len() == 1 {
            return items.map(class).next().map_or(Self::None(1), Self::One);
        }
        Self::Several(items.map(class).collect())
    }

    pub(super) fn items(&self) -> u32 {
        match self {
            Self::None(items) => *items,
            Self::One(_) => 1,
            Self::Several(classes) => u32::try_from(classes.len()).unwrap_or(u32::MAX),
        }
    }

    /// The class of an item, if any was said.
    pub(super) fn at(&self, item: u32) -> Option<u32> {
        let class = match self {
            Self::None(_) => None,
            Self::One(class) => (item == 0).then_some(*class),
            Self::Several(classes) => classes.get(item as usize).copied(),
        };
        class.filter(|class| *class != u32::MAX)
    }
}

/// The index of the largest element, of several the first; `u32::MAX` where none is a number.
fn largest(elements: impl Iterator<Item = f64>) -> u32 {
    let numbers = (0..).zip(elements).filter(|(_, element)| !element.is_nan());
    let best = numbers.reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(u32::MAX, |(index, _)| index)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is a whole number of that range"
)]
fn whole(number: f64) -> u32 {
    if (0.0..f64::from(u32::MAX)).contains(&number) { number as u32 } else { u32::MAX }
}
