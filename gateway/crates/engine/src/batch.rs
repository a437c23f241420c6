//! What one engine run receives: for each input the pieces of one or more calls.

use bytes::Bytes;

use crate::datatype::DataType;
use crate::tensor::{Tensor, TensorError};

/// The inputs of one run, in the order of the model's signature.
#[derive(Debug, Clone)]
pub struct Batch {
    inputs: Vec<BatchInput>,
    rows: usize,
}

/// One input of a batch. The pieces stay apart so that an engine copies each of them once,
/// straight into its own memory.
#[derive(Debug, Clone)]
pub struct BatchInput {
    datatype: DataType,
    shape: Vec<usize>,
    chunks: Vec<Bytes>,
}

impl Batch {
    /// A batch of one call.
    ///
    /// `rows` is how many items the call holds: dimension 0 where the model batches, else 1.
    #[must_use]
    pub fn single(inputs: &[Tensor], rows: usize) -> Self {
        let inputs = inputs
            .iter()
            .map(|tensor| BatchInput {
                datatype: tensor.datatype(),
                shape: tensor.shape().to_vec(),
                chunks: vec![tensor.data().clone()],
            })
            .collect();
        Self { inputs, rows }
    }

    /// Stacks several calls along dimension 0.
    ///
    /// # Panics
    /// When the calls differ in anything but dimension 0; the batcher groups equal shapes only.
    #[must_use]
    pub fn stack(calls: &[&[Tensor]]) -> Self {
        let first = calls.first().expect("a batch has at least one call");
        let mut inputs: Vec<BatchInput> = first
            .iter()
            .map(|tensor| BatchInput {
                datatype: tensor.datatype(),
                shape: std::iter::once(0).chain(tensor.shape()[1..].iter().copied()).collect(),
                chunks: Vec::with_capacity(calls.len()),
            })
            .collect();
        for call in calls {
            for (input, tensor) in inputs.iter_mut().zip(*call) {
                assert_eq!(input.shape[1..], tensor.shape()[1..], "only equal shapes are stacked");
                assert_eq!(input.datatype, tensor.datatype(), "only equal types are stacked");
                input.shape[0] += tensor.rows();
                input.chunks.push(tensor.data().clone());
            }
        }
        let rows = inputs.first().map_or(1, |input| input.shape[0]);
        Self { inputs, rows }
    }

    /// Items in the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    #[must_use]
    pub fn inputs(&self) -> &[BatchInput] {
        &self.inputs
    }
}

impl BatchInput {
    #[must_use]
    pub fn datatype(&self) -> DataType {
        self.datatype
    }

    /// Shape of all pieces together.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The pieces, in call order.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The pieces joined into one tensor; copies unless there is only one.
    ///
    /// # Errors
    /// Never for a batch made of valid tensors; the check is repeated because it is cheap.
    pub fn joined(&self) -> Result<Tensor, TensorError> {
        let data = match self.chunks.as_slice() {
            [only] => only.clone(),
            chunks => chunks.concat().into(),
        };
        Tensor::new(self.datatype, self.shape.clone(), data)
    }
}
