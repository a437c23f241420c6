//! The inputs of a call as its row has them.

use std::borrow::Cow;

use engine::Tensor;
use predlog::{State, TensorRef};

use super::Notes;
use crate::predictions::schema::fits;
use crate::types::{Inputs, NamedTensor, Signature};

/// In the place of the name of an input that no signature declares.
pub(super) const UNDECLARED: &str = "undeclared";

/// Inputs by their index in a signature.
pub(super) type Given<'a> = Vec<(usize, Cow<'a, Tensor>)>;

impl Notes {
    /// The inputs that are what the signature declares, and the others. Those have no rules that
    /// would be known to be theirs, so nothing of them is kept but that they were there.
    pub(super) fn given<'a>(&'a self, signature: &'a Signature) -> (Given<'a>, Vec<TensorRef<'a>>) {
        let left_out = |name, datatype, shape| TensorRef {
            name,
            datatype,
            shape,
            data: &[],
            state: State::LeftOut,
        };
        let (mut found, mut unfit) = (Vec::new(), Vec::new());
        match &self.inputs {
            None => {}
            Some(Inputs::Named(given)) => {
                found.reserve(given.len());
                for NamedTensor { name, tensor } in given {
                    let index = signature.inputs.iter().position(|spec| spec.name == *name);
                    let is_new =
                        |index: &usize| !found.iter().any(|(known, _): &(usize, _)| known == index);
                    match index.filter(is_new) {
                        Some(index) if fits(&signature.inputs[index], tensor) => {
                            found.push((index, Cow::Borrowed(tensor)));
                        }
                        // What callers make up as a name may be a secret.
                        index => unfit.push(left_out(
                            index.map_or(UNDECLARED, |index| &signature.inputs[index].name),
                            tensor.datatype().name(),
                            tensor.shape(),
                        )),
                    }
                }
            }
            Some(Inputs::Raw(bytes)) => match signature.raw(bytes.clone()) {
                Ok(ordered) => {
                    found.extend(ordered.tensors.into_iter().map(Cow::Owned).enumerate());
                }
                Err(_) => unfit.push(left_out(UNDECLARED, "", &[])),
            },
        }
        (found, unfit)
    }
}
