//! What is kept of answers holds nothing that is not counted.

use bytes::Bytes;

use super::*;
use crate::shadow::{detached, detached_large};

/// A batch of two calls with so many bytes each, and the outputs of the second one.
fn second(bytes: usize) -> (Bytes, Vec<Tensor>) {
    let values = (0..2 * bytes).map(|index| u8::try_from(index % 251).unwrap());
    let batch: Bytes = values.collect::<Vec<_>>().into();
    let whole = Tensor::new(DataType::Uint8, vec![2, bytes], batch.clone()).unwrap();
    (batch, whole.split_rows(&[1, 1]).split_off(1))
}

#[tokio::test]
async fn what_is_kept_of_an_answer_keeps_no_batch_alive() {
    for bytes in [1, 1000, 64 << 10, (64 << 10) + 1, 1 << 20] {
        let (batch, outputs) = second(bytes);
        let kept = detached_large(detached(outputs)).await;
        assert_eq!((kept[0].shape(), kept[0].data()), (&[1, bytes][..], &batch.slice(bytes..)));
        assert!(batch.is_unique(), "{bytes} bytes");
    }
}

#[test]
fn large_outputs_are_not_copied_where_callers_wait() {
    let (batch, outputs) = second(1 << 20);
    let kept = detached(outputs);
    assert_eq!(kept[0].data().as_ptr(), batch.slice(1 << 20..).as_ptr());
}
