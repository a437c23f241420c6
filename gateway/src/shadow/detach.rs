//! What is kept of answers until they are compared, without the memory that others share. An
//! answer is a piece of its batch's outputs, and the smallest piece keeps all of them alive: what
//! counts against a shadow's budget would be a small part of what it holds.

use bytes::Bytes;
use engine::Tensor;

use crate::tasks;

/// Outputs of so many bytes are copied at once: a few microseconds.
const SMALL: usize = 64 << 10;

/// Gives small outputs memory of their own; larger ones stay as they are.
#[must_use]
pub fn detached(outputs: Vec<Tensor>) -> Vec<Tensor> {
    if is_small(&outputs) { outputs.iter().map(own).collect() } else { outputs }
}

/// Gives large outputs memory of their own, away from the event loop; smaller ones stay as they
/// are.
pub async fn detached_large(outputs: Vec<Tensor>) -> Vec<Tensor> {
    if is_small(&outputs) {
        return outputs;
    }
    tasks::blocking(move || outputs.iter().map(own).collect()).await
}

fn is_small(outputs: &[Tensor]) -> bool {
    outputs.iter().map(|tensor| tensor.data().len()).sum::<usize>() <= SMALL
}

fn own(tensor: &Tensor) -> Tensor {
    let data = Bytes::copy_from_slice(tensor.data());
    let same = Tensor::new(tensor.datatype(), tensor.shape().to_vec(), data);
    same.unwrap_or_else(|_| tensor.clone())
}
