//! What a model takes and gives, and the check of a call against it.

use bytes::Bytes;
use engine::tensor::frame_strings;
use engine::{DataType, Tensor, TensorSpec};

use super::{Inputs, NamedTensor};
use crate::error::{Kind, Rejection};

/// Inputs and outputs of one model version.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<OutputSpec>,
    /// 0: the model does not batch and dimension 0 means nothing special.
    pub max_batch_size: usize,
    /// Whether calls with more items than that are run in parts.
    pub splits: bool,
}

/// One output and what is known about its values.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSpec {
    pub spec: TensorSpec,
    /// Class names by index, for the classification extension.
    pub labels: Vec<String>,
    /// Relative difference that batching or a rewritten graph may cause.
    pub tolerance: f64,
    /// Whether an answer with NaN or an infinity is a failure.
    pub finite: bool,
}

/// Inputs in the order of the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedInputs {
    pub tensors: Vec<Tensor>,
    /// Items in the call: dimension 0 where the model batches, else 1.
    pub rows: usize,
}

impl Signature {
    /// Checks the inputs of a call.
    ///
    /// # Errors
    /// As [`Signature::order`] and [`Signature::raw`].
    pub fn check(&self, inputs: Inputs) -> Result<OrderedInputs, Rejection> {
        match inputs {
            Inputs::Named(given) => self.order(given),
            Inputs::Raw(data) => self.raw(data),
        }
    }

    /// Makes the only input out of bare bytes: one item, at most one variable dimension, whose
    /// size follows from the length. A BYTES input is one element, without a length before it.
    ///
    /// # Errors
    /// `InvalidInput` when the model's signature or the length does not allow it.
    pub fn raw(&self, data: Bytes) -> Result<OrderedInputs, Rejection> {
        let [spec] = self.inputs.as_slice() else {
            return Err(Rejection::invalid(format!(
                "a raw binary request needs a model with one input, this one takes {}",
                self.input_names()
            )));
        };
        let refuse = |text: String| Rejection::invalid(format!("input '{}': {text}", spec.name));
        let mut shape: Vec<i64> = spec.shape.clone();
        if self.max_batch_size > 0 {
            shape[0] = 1;
        }
        let data = match spec.datatype {
            DataType::Bytes => frame_strings(&[&data]),
            _ => data,
        };
        let variable = shape.iter().filter(|&&dimension| dimension == -1).count();
        let size = spec.datatype.size();
        let fixed: i64 = shape.iter().filter(|&&dimension| dimension != -1).product();
        let row = usize::try_from(fixed).unwrap_or(1).max(1).saturating_mul(size.unwrap_or(1));
        let inferred = match (variable, size) {
            (0, _) => 1,
            (1, None) => 1,
            (1, Some(_)) if data.len() % row == 0 => data.len() / row,
            (1, Some(_)) => {
                return Err(refuse(format!("{} bytes are no multiple of {row}", data.len())));
            }
            _ => return Err(refuse("a raw binary request needs at most one variable size".into())),
        };
        let shape = shape.iter().map(|&size| usize::try_from(size).unwrap_or(inferred)).collect();
        let tensor = Tensor::new(spec.datatype, shape, data).map_err(|e| refuse(e.to_string()))?;
        Ok(OrderedInputs { tensors: vec![tensor], rows: 1 })
    }

    /// Checks named inputs and puts them into the signature's order.
    ///
    /// # Errors
    /// `InvalidInput`, naming the input, for anything missing, extra, given twice, of another
    /// type or shape, or of a batch size out of bounds.
    pub fn order(&self, given: Vec<NamedTensor>) -> Result<OrderedInputs, Rejection> {
        self.complete(given, |_, _| Ok(None))
    }

    /// The same, with a stand-in for each input that is not given: `absent` is told its index and
    /// the call's rows, once all that was given is checked.
    ///
    /// # Errors
    /// As [`Signature::order`], and those of `absent`.
    pub fn complete(
        &self,
        given: Vec<NamedTensor>,
        mut absent: impl FnMut(usize, usize) -> Result<Option<Tensor>, Rejection>,
    ) -> Result<OrderedInputs, Rejection> {
        let mut slots: Vec<Option<Tensor>> = vec![None; self.inputs.len()];
        for NamedTensor { name, tensor } in given {
            let Some(index) = self.inputs.iter().position(|spec| spec.name == name) else {
                return Err(Rejection::invalid(format!(
                    "unexpected input '{}': the model takes {}",
                    shorten(&name),
                    self.input_names()
                )));
            };
            self.check_input(&self.inputs[index], &tensor)?;
            if slots[index].replace(tensor).is_some() {
                return Err(Rejection::invalid(format!("input '{name}' is given twice")));
            }
        }
        let rows = self.batch_rows(&slots)?;
        let mut tensors = Vec::with_capacity(slots.len());
        for (index, slot) in slots.into_iter().enumerate() {
            let tensor = match slot {
                Some(tensor) => Some(tensor),
                None => absent(index, rows)?,
            };
            tensors.push(tensor.ok_or_else(|| {
                Rejection::invalid(format!(
                    "input '{}' is missing: the model takes {}",
                    self.inputs[index].name,
                    self.input_names()
                ))
            })?);
        }
        Ok(OrderedInputs { tensors, rows })
    }

    /// Index of an output by its name.
    ///
    /// # Errors
    /// `InvalidInput` when the model has no such output.
    pub fn output_index(&self, name: &str) -> Result<usize, Rejection> {
        self.outputs.iter().position(|output| output.spec.name == name).ok_or_else(|| {
            let known: Vec<_> = self.outputs.iter().map(|o| format!("'{}'", o.spec.name)).collect();
            Rejection::invalid(format!(
                "unexpected output '{}': the model gives {}",
                shorten(name),
                known.join(", ")
            ))
        })
    }

    fn check_input(&self, spec: &TensorSpec, tensor: &Tensor) -> Result<(), Rejection> {
        if spec.datatype != tensor.datatype() {
            return Err(Rejection::invalid(format!(
                "input '{}' is {}, the model takes {}",
                spec.name,
                tensor.datatype(),
                spec.datatype
            )));
        }
        let shape = tensor.shape();
        if !spec.fits(shape) {
            return Err(Rejection::invalid(format!(
                "input '{}' has shape {shape:?}, the model takes {:?}",
                spec.name, spec.shape
            )));
        }
        Ok(())
    }

    /// The rows that all given inputs have.
    fn batch_rows(&self, slots: &[Option<Tensor>]) -> Result<usize, Rejection> {
        if self.max_batch_size == 0 {
            return Ok(1);
        }
        let mut given = slots.iter().zip(&self.inputs).filter_map(|(slot, spec)| {
            slot.as_ref().map(|tensor| (spec.name.as_str(), tensor.rows()))
        });
        let Some((first, rows)) = given.next() else { return Ok(1) };
        if let Some((name, other)) = given.find(|&(_, other)| other != rows) {
            return Err(Rejection::invalid(format!(
                "input '{name}' has batch size {other}, input '{first}' has {rows}"
            )));
        }
        if rows == 0 {
            return Err(Rejection::invalid(format!("input '{first}' has batch size 0")));
        }
        if rows > self.max_batch_size && !self.splits {
            return Err(Rejection::invalid(format!(
                "input '{first}' has batch size {rows}, the model takes at most {}",
                self.max_batch_size
            )));
        }
        Ok(rows)
    }

    /// Whether a call chooses nothing about its shapes but how many items it has.
    #[must_use]
    pub fn has_fixed_shapes(&self) -> bool {
        self.inputs.iter().all(|spec| !spec.shape.iter().skip(1).any(|&size| size == -1))
    }

    /// Why callers cannot take the one model for the other, as a sentence about `other`: it needs
    /// the same inputs and outputs, by name, with the same types, and shapes that differ only where
    /// one of them is of any size. Their order and `max_batch_size` may differ.
    #[must_use]
    pub fn incompatibility(&self, other: &Self) -> Option<String> {
        let batches = self.max_batch_size > 0 || other.max_batch_size > 0;
        let outputs = |signature: &Self| -> Vec<TensorSpec> {
            signature.outputs.iter().map(|output| output.spec.clone()).collect()
        };
        difference("input", &self.inputs, &other.inputs, batches)
            .or_else(|| difference("output", &outputs(self), &outputs(other), batches))
    }

    fn input_names(&self) -> String {
        let names: Vec<_> = self.inputs.iter().map(|spec| format!("'{}'", spec.name)).collect();
        names.join(", ")
    }

    /// Checks that a run gave what the signature says.
    ///
    /// # Errors
    /// `EngineFailed`, naming the output.
    pub fn check_outputs(&self, outputs: &[Tensor], rows: usize) -> Result<(), Rejection> {
        let failed = |text: String| Err(Rejection::new(Kind::EngineFailed, text));
        if outputs.len() != self.outputs.len() {
            return failed(format!(
                "the model gave {} outputs, its signature has {}",
                outputs.len(),
                self.outputs.len()
            ));
        }
        for (output, tensor) in self.outputs.iter().zip(outputs) {
            let spec = &output.spec;
            let fits = spec.datatype == tensor.datatype()
                && spec.fits(tensor.shape())
                && (self.max_batch_size == 0 || tensor.rows() == rows);
            if !fits {
                return failed(format!(
                    "output '{}' came as {} {:?} for {rows} rows, its signature says {} {:?}",
                    spec.name,
                    tensor.datatype(),
                    tensor.shape(),
                    spec.datatype,
                    spec.shape
                ));
            }
        }
        Ok(())
    }
}

fn difference(
    kind: &str,
    expected: &[TensorSpec],
    found: &[TensorSpec],
    batches: bool,
) -> Option<String> {
    let known = |spec: &&TensorSpec| expected.iter().any(|other| other.name == spec.name);
    if let Some(extra) = found.iter().find(|spec| !known(spec)) {
        return Some(format!("{kind} '{}' is unknown to the other", extra.name));
    }
    expected.iter().find_map(|one| {
        let name = &one.name;
        let Some(two) = found.iter().find(|spec| spec.name == *name) else {
            return Some(format!("{kind} '{name}' is missing"));
        };
        if one.datatype != two.datatype {
            return Some(format!(
                "{kind} '{name}' is {} instead of {}",
                two.datatype, one.datatype
            ));
        }
        let fits = |(index, (a, b)): (usize, (&i64, &i64))| {
            // The batch dimension has to be one for both.
            a == b || ((*a == -1 || *b == -1) && !(index == 0 && batches))
        };
        let same = one.shape.len() == two.shape.len()
            && one.shape.iter().zip(&two.shape).enumerate().all(fits);
        (!same).then(|| {
            format!("{kind} '{name}' has shape {:?} instead of {:?}", two.shape, one.shape)
        })
    })
}

/// Names come from callers: an error must not echo a megabyte.
fn shorten(name: &str) -> String {
    name.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: DataType::Uint8, shape: shape.into() }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![spec("a", &[-1, 2]), spec("b", &[-1, -1])],
            outputs: vec![OutputSpec {
                spec: spec("y", &[-1, 2]),
                labels: vec![],
                tolerance: 1e-5,
                finite: false,
            }],
            max_batch_size: 4,
            splits: false,
        }
    }

    fn input(name: &str, shape: &[usize]) -> NamedTensor {
        let data = Bytes::from(vec![1; shape.iter().product()]);
        let tensor = Tensor::new(DataType::Uint8, shape.into(), data).unwrap();
        NamedTensor { name: name.into(), tensor }
    }

    fn refusal(given: Vec<NamedTensor>) -> String {
        signature().order(given).unwrap_err().to_string()
    }

    #[test]
    fn inputs_come_out_in_the_order_of_the_signature() {
        let ordered = signature().order(vec![input("b", &[3, 7]), input("a", &[3, 2])]).unwrap();
        assert_eq!(ordered.rows, 3);
        assert_eq!(ordered.tensors[0].shape(), [3, 2]);
        assert_eq!(ordered.tensors[1].shape(), [3, 7]);
    }

    #[test]
    fn every_wrong_input_is_named() {
        let ok = || input("a", &[1, 2]);
        assert!(refusal(vec![ok()]).contains("input 'b' is missing"));
        assert!(refusal(vec![ok(), input("c", &[1])]).contains("unexpected input 'c'"));
        assert!(refusal(vec![ok(), ok()]).contains("'a' is given twice"));
        assert!(refusal(vec![input("a", &[1, 3])]).contains("'a' has shape [1, 3]"));
        assert!(refusal(vec![ok(), input("b", &[2, 1])]).contains("'b' has batch size 2"));
        assert!(refusal(vec![input("a", &[5, 2]), input("b", &[5, 1])]).contains("at most 4"));
        assert!(refusal(vec![input("a", &[0, 2]), input("b", &[0, 1])]).contains("batch size 0"));
    }

    #[test]
    fn models_that_callers_could_not_take_for_each_other_are_told_apart() {
        let one = signature();
        let other = |change: fn(&mut Signature)| {
            let mut other = signature();
            change(&mut other);
            let backwards = other.incompatibility(&one);
            let forwards = one.incompatibility(&other);
            assert_eq!(forwards.is_some(), backwards.is_some());
            forwards.unwrap_or_default()
        };
        assert_eq!(other(|_| {}), "");
        assert_eq!(other(|s| s.inputs.reverse()), "");
        assert_eq!(other(|s| s.inputs[1].shape[1] = 7), "");
        assert_eq!(other(|s| (s.max_batch_size, s.splits) = (1, true)), "");
        assert_eq!(other(|s| drop(s.inputs.pop())), "input 'b' is missing");
        assert_eq!(other(|s| s.inputs[0].name = "c".into()), "input 'c' is unknown to the other");
        assert_eq!(other(|s| s.outputs.clear()), "output 'y' is missing");
        assert_eq!(
            other(|s| s.outputs[0].spec.datatype = DataType::Fp32),
            "output 'y' is FP32 instead of UINT8"
        );
        let shape = |found| format!("input 'a' has shape {found} instead of [-1, 2]");
        assert_eq!(other(|s| s.inputs[0].shape[1] = 3), shape("[-1, 3]"));
        assert_eq!(other(|s| s.inputs[0].shape.push(1)), shape("[-1, 2, 1]"));
        // One item at a time is no batch.
        assert_eq!(
            other(|s| {
                s.max_batch_size = 0;
                s.inputs[0].shape[0] = 1;
            }),
            shape("[1, 2]")
        );
    }

    #[test]
    fn raw_bytes_become_the_only_input() {
        let mut signature = signature();
        assert!(signature.raw(Bytes::from_static(b"ab")).is_err());
        signature.inputs.remove(0);
        let ordered = signature.raw(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(ordered.tensors[0].shape(), [1, 3]);
        signature.inputs[0].shape = vec![-1, 4];
        assert!(signature.raw(Bytes::from_static(b"abc")).is_err());
    }

    #[test]
    fn a_run_that_loses_rows_is_not_passed_on() {
        let tensor = input("y", &[2, 2]).tensor;
        assert!(signature().check_outputs(std::slice::from_ref(&tensor), 2).is_ok());
        let error = signature().check_outputs(&[tensor], 3).unwrap_err();
        assert_eq!(error.kind(), Kind::EngineFailed);
    }
}
