//! Input contracts: what the values of a call have to be like, as a model's `model.toml` says.
//! Checked after the signature and before the queue; a call that breaks a rule is refused, mended
//! or flagged.
//!
//! Values are first compared in blocks without a branch, `numeric` and `text` look at
//! single ones only where a block holds something wrong. `terms` is what the file says.

mod columns;
mod element;
mod numeric;
mod tally;
mod terms;
mod text;

use std::sync::Arc;

use engine::{DataType, Tensor, TensorSpec};

use self::numeric::numeric;
use self::tally::{Counters, Labels, Tally};
use self::text::text;
use crate::error::Rejection;
use crate::types::{Inputs, OrderedInputs, Signature};

pub use tally::Flags;
pub use terms::{FeatureTerms, InputTerms, Report, Terms};

/// Most memory that the stand-ins for the optional inputs of a call take while they are made, in
/// bytes: their size follows from the call's rows, which need not have data behind them.
const LARGEST_FILL: usize = 16 << 20;

/// What a rule asks of a value. A value breaks at most one: the first in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// There is one: no NaN, no empty BYTES element, no absent input.
    Missing,
    Finite,
    Range,
    Category,
    Length,
}

/// What happens to a value that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call is refused.
    Reject,
    /// The value is replaced by the nearest allowed one, or the default.
    Impute,
    /// The value passes, and the answer says so.
    Flag,
}

impl Rule {
    pub const COUNT: usize = 5;

    /// Its word in metrics and flags.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Finite => "finite",
            Self::Range => "range",
            Self::Category => "category",
            Self::Length => "length",
        }
    }
}

impl Action {
    pub const NAMES: [(&str, Self); 3] =
        [("reject", Self::Reject), ("impute", Self::Impute), ("flag", Self::Flag)];

    /// Its word in files and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        Self::NAMES[self as usize].0
    }
}

/// The contracts of all inputs of a model. Two are equal when they say the same.
#[derive(Debug)]
pub struct Contract {
    inputs: Vec<Option<InputContract>>,
    labels: Labels,
    batches: bool,
}

/// The contract of one input.
#[derive(Debug)]
struct InputContract {
    spec: TensorSpec,
    terms: InputTerms,
    values: Box<dyn Check>,
    /// The label of what is not about one feature.
    label: usize,
}

/// The rules for the values of one input.
trait Check: std::fmt::Debug + Send + Sync {
    /// Counts what breaks a rule; gives the mended tensor where values had to be replaced.
    fn apply(&self, tensor: &Tensor, tally: &mut Tally) -> Result<Option<Tensor>, Offence>;

    /// The data of a tensor of this shape that holds nothing but defaults.
    fn filled(&self, shape: &[usize]) -> Vec<u8>;

    /// Most memory that one value of it takes while it is made, in bytes.
    fn fill_cost(&self) -> usize;
}

/// The first value that a rule rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offence {
    label: usize,
    rule: Rule,
    /// Among all values; `None` where it is about the shape.
    position: Option<usize>,
    /// The feature, where it is about one.
    place: String,
    /// What the caller reads about it; never text that was sent.
    text: String,
}

/// The contract of a version that serves, with its counters.
#[derive(Debug)]
pub struct Checker {
    contract: Arc<Contract>,
    counters: Counters,
}

impl Contract {
    /// Makes the contract of a model out of what its file says about each input. `None` where
    /// that is nothing.
    pub fn build(
        signature: &Signature,
        terms: Vec<Option<InputTerms>>,
        mut report: impl FnMut(usize, &str, String),
    ) -> Option<Self> {
        let batches = signature.max_batch_size > 0;
        if terms.iter().all(Option::is_none) {
            return None;
        }
        let mut labels = Labels::default();
        let mut inputs = Vec::with_capacity(terms.len());
        for (index, (spec, terms)) in signature.inputs.iter().zip(terms).enumerate() {
            let contract = terms.map(|terms| {
                let mut problems = Report::default();
                let contract =
                    InputContract::build(spec, terms, batches, (&mut labels, &mut problems));
                for (key, text) in problems.0 {
                    report(index, &key, text);
                }
                contract
            });
            inputs.push(contract);
        }
        let contract = Self { inputs, labels, batches };
        let is_optional = |index| contract.is_optional(index);
        if (0..signature.inputs.len()).all(is_optional) {
            let text = "cannot be true of every input: a call must bring something";
            report(0, "optional", text.to_owned());
        }
        Some(contract)
    }

    /// Whether calls may leave this input out.
    #[must_use]
    pub fn is_optional(&self, index: usize) -> bool {
        self.inputs.get(index).and_then(Option::as_ref).is_some_and(|input| input.terms.optional)
    }

    /// Checks inputs against the signature, and fills in the optional ones that a call leaves out.
    fn complete(
        &self,
        signature: &Signature,
        inputs: Inputs,
        tally: &mut Tally,
    ) -> Result<OrderedInputs, Rejection> {
        let Inputs::Named(given) = inputs else { return signature.check(inputs) };
        // A call that brings nothing has no rows to go by.
        if given.is_empty() {
            return signature.order(given);
        }
        let mut room = LARGEST_FILL;
        signature.complete(given, |index, rows| {
            let input = self.inputs.get(index).and_then(Option::as_ref);
            let Some(input) = input.filter(|input| input.terms.optional) else { return Ok(None) };
            let tensor = input.fill(self.batches.then_some(rows), &mut room)?;
            tally.add(input.label, Rule::Missing, Action::Impute);
            Ok(Some(tensor))
        })
    }

    fn apply(&self, tensors: &mut [Tensor], tally: &mut Tally) -> Result<(), (usize, Offence)> {
        for (index, (tensor, input)) in tensors.iter_mut().zip(&self.inputs).enumerate() {
            let Some(input) = input else { continue };
            input.check_lengths(tensor, self.batches, tally).map_err(|offence| (index, offence))?;
            let mended = input.values.apply(tensor, tally).map_err(|offence| (index, offence))?;
            if let Some(mended) = mended {
                *tensor = mended;
            }
        }
        Ok(())
    }
}

impl PartialEq for Contract {
    fn eq(&self, other: &Self) -> bool {
        let said = |input: &Option<InputContract>| {
            input.as_ref().map(|input| (input.spec.clone(), input.terms.clone()))
        };
        self.batches == other.batches
            && self.inputs.iter().map(said).eq(other.inputs.iter().map(said))
    }
}

impl InputContract {
    fn build(
        spec: &TensorSpec,
        terms: InputTerms,
        batches: bool,
        (labels, report): (&mut Labels, &mut Report),
    ) -> Self {
        terms.check(spec, batches, report);
        let label = labels.add(&spec.name, "");
        let values = match spec.datatype {
            DataType::Bool => numeric::<element::Bool, 1>(spec, &terms, labels, report),
            DataType::Uint8 => numeric::<u8, 1>(spec, &terms, labels, report),
            DataType::Uint16 => numeric::<u16, 2>(spec, &terms, labels, report),
            DataType::Uint32 => numeric::<u32, 4>(spec, &terms, labels, report),
            DataType::Uint64 => numeric::<u64, 8>(spec, &terms, labels, report),
            DataType::Int8 => numeric::<i8, 1>(spec, &terms, labels, report),
            DataType::Int16 => numeric::<i16, 2>(spec, &terms, labels, report),
            DataType::Int32 => numeric::<i32, 4>(spec, &terms, labels, report),
            DataType::Int64 => numeric::<i64, 8>(spec, &terms, labels, report),
            DataType::Fp16 => numeric::<element::Half, 2>(spec, &terms, labels, report),
            DataType::Bf16 => numeric::<element::Brain, 2>(spec, &terms, labels, report),
            DataType::Fp32 => numeric::<f32, 4>(spec, &terms, labels, report),
            DataType::Fp64 => numeric::<f64, 8>(spec, &terms, labels, report),
            DataType::Bytes => text(&spec.name, &terms, labels, report),
        };
        Self { spec: spec.clone(), terms, values, label }
    }

    /// Compares the variable sizes of a numeric input with its longest length.
    fn check_lengths(
        &self,
        tensor: &Tensor,
        batches: bool,
        tally: &mut Tally,
    ) -> Result<(), Offence> {
        let Some((longest, action)) = self.terms.wide.max_length else { return Ok(()) };
        if self.spec.datatype == DataType::Bytes {
            return Ok(());
        }
        let sizes = self.spec.shape.iter().zip(tensor.shape()).enumerate();
        for (axis, (&declared, &size)) in sizes.skip(usize::from(batches)) {
            if declared != -1 || size <= longest {
                continue;
            }
            if action == Action::Reject {
                let text =
                    format!("dimension {axis} has size {size}, at most {longest} is allowed");
                let (label, place) = (self.label, String::new());
                return Err(Offence { label, rule: Rule::Length, position: None, place, text });
            }
            tally.add(self.label, Rule::Length, action);
        }
        Ok(())
    }

    /// A tensor of defaults with so many rows; a model that does not batch has none.
    fn fill(&self, rows: Option<usize>, room: &mut usize) -> Result<Tensor, Rejection> {
        let refuse = |text| Rejection::invalid(format!("input '{}' {text}", self.spec.name));
        let mut shape: Vec<usize> =
            self.spec.shape.iter().map(|&size| usize::try_from(size).unwrap_or(1)).collect();
        if let (Some(rows), Some(first)) = (rows, shape.first_mut()) {
            *first = rows;
        }
        let count = engine::tensor::element_count(&shape).ok();
        let bytes = count.and_then(|count| count.checked_mul(self.values.fill_cost()));
        let Some(left) = bytes.and_then(|bytes| room.checked_sub(bytes)) else {
            return Err(refuse("is left out of a call that is too large to fill it in"));
        };
        *room = left;
        let data = self.values.filled(&shape).into();
        Tensor::new(self.spec.datatype, shape, data)
            .map_err(|_| refuse("is left out and cannot be filled in"))
    }

    fn explain(&self, offence: &Offence, shape: &[usize]) -> String {
        let Offence { place, text, .. } = offence;
        let position = offence
            .position
            .map_or_else(String::new, |position| format!(" at {:?}", indices(position, shape)));
        format!("input '{}'{place}: {text}{position}", self.spec.name)
    }
}

/// The index of a value in each dimension.
fn indices(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut found = vec![0; shape.len()];
    for (index, &size) in found.iter_mut().zip(shape).rev() {
        *index = position % size.max(1);
        position /= size.max(1);
    }
    found
}

impl Checker {
    #[must_use]
    pub fn new(contract: Arc<Contract>, model: &str, version: &str) -> Self {
        let counters = Counters::new(model, version, &contract.labels);
        Self { contract, counters }
    }

    /// Checks the inputs of a call against the signature and the contract, and mends them where
    /// the contract says so.
    ///
    /// # Errors
    /// As [`Signature::check`], and `InvalidInput` for the first value that a rule rejects.
    pub fn check(
        &self,
        signature: &Signature,
        inputs: Inputs,
    ) -> Result<(OrderedInputs, Option<Flags>), Rejection> {
        let mut tally = Tally::default();
        let mut inputs = self.contract.complete(signature, inputs, &mut tally)?;
        if let Err((index, offence)) = self.contract.apply(&mut inputs.tensors, &mut tally) {
            let mut tally = Tally::default();
            tally.add(offence.label, offence.rule, Action::Reject);
            drop(tally.settle(&self.contract.labels, &self.counters));
            return Err(self.refuse(index, &offence, inputs.tensors[index].shape()));
        }
        Ok((inputs, tally.settle(&self.contract.labels, &self.counters)))
    }

    fn refuse(&self, index: usize, offence: &Offence, shape: &[usize]) -> Rejection {
        let text = self.contract.inputs[index]
            .as_ref()
            .map_or_else(String::new, |input| input.explain(offence, shape));
        Rejection::invalid(text)
    }
}

#[cfg(test)]
mod tests;
