//! Calls of different lengths in one batch: which bucket a call belongs to, how its inputs are
//! padded and how its outputs are cut back.

use engine::{Batch, Pad, Tensor};

/// Which dimension may differ between calls, and how far padding may go.
#[derive(Debug, Clone, PartialEq)]
pub struct VariableLength {
    /// The dimension, counted with the batch dimension; never 0.
    pub axis: usize,
    /// Lengths that batches are padded to, ascending. Longer calls are never padded.
    pub buckets: Vec<usize>,
    /// For each input that has the dimension, the bytes of the element it is filled with.
    pub fills: Vec<Option<Vec<u8>>>,
    /// For each output, whether it has the dimension too.
    pub outputs: Vec<bool>,
    /// Cells of a padded batch (`rows · length`) for each cell that a caller sent, at most.
    pub max_waste: f64,
    /// Cells of one batch, at most; one call may have more.
    pub max_cells: usize,
}

impl VariableLength {
    /// The length of a call, if all its padded inputs agree on one.
    pub(super) fn length(&self, inputs: &[Tensor]) -> Option<usize> {
        let mut lengths = inputs
            .iter()
            .zip(&self.fills)
            .filter(|(_, fill)| fill.is_some())
            .map(|(input, _)| input.shape().get(self.axis).copied());
        let first = lengths.next()??;
        lengths.all(|length| length == Some(first)).then_some(first)
    }

    /// The smallest bucket that holds this length.
    pub(super) fn bucket(&self, length: usize) -> Option<usize> {
        self.buckets.iter().copied().find(|&bucket| length <= bucket)
    }

    /// One batch of calls whose lengths are given, and its own length. Calls of one length need
    /// no padding.
    ///
    /// # Panics
    /// When the calls differ in more than their length.
    #[must_use]
    pub fn batch(&self, calls: &[&[Tensor]], lengths: &[usize]) -> (Batch, usize) {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if lengths.iter().all(|&length| length == longest) {
            return (Batch::stack(calls), longest);
        }
        let size = self.bucket(longest).unwrap_or(longest);
        let pads: Vec<Option<Pad>> = self
            .fills
            .iter()
            .map(|fill| Some(Pad { axis: self.axis, size, fill: fill.clone()? }))
            .collect();
        (Batch::stack_padded(calls, &pads), size)
    }

    /// Cuts a caller's outputs back to its own length.
    ///
    /// `padded` is the length of the batch; an output of another length is not the caller's
    /// tokens in another form, and stays as it is.
    #[must_use]
    pub fn cut(&self, outputs: Vec<Tensor>, padded: usize, length: usize) -> Vec<Tensor> {
        outputs
            .into_iter()
            .enumerate()
            .map(|(index, output)| {
                let cut = self.outputs.get(index).is_some_and(|&has_axis| has_axis)
                    && output.shape().get(self.axis) == Some(&padded);
                if cut { output.trimmed(self.axis, length) } else { output }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use engine::DataType;
    use proptest::prelude::*;

    use super::*;

    fn rules() -> VariableLength {
        VariableLength {
            axis: 1,
            buckets: vec![4, 8],
            fills: vec![Some(vec![0]), Some(vec![0])],
            outputs: vec![true, false],
            max_waste: 2.0,
            max_cells: 1000,
        }
    }

    fn call(rows: usize, length: usize) -> Vec<Tensor> {
        let ids = vec![7; rows * length];
        let mask = vec![1; rows * length];
        [ids, mask]
            .map(|data| Tensor::new(DataType::Uint8, vec![rows, length], data.into()).unwrap())
            .into()
    }

    #[test]
    fn inputs_that_disagree_have_no_common_length() {
        let mut inputs = call(1, 3);
        assert_eq!(rules().length(&inputs), Some(3));
        inputs[1] = call(1, 2).remove(1);
        assert_eq!(rules().length(&inputs), None);
    }

    #[test]
    fn lengths_beyond_the_last_bucket_have_none() {
        let buckets = [1, 4, 5, 8, 9].map(|length| rules().bucket(length));
        assert_eq!(buckets, [Some(4), Some(4), Some(8), Some(8), None]);
    }

    #[test]
    fn equal_lengths_are_not_padded() {
        let calls = [call(1, 3), call(2, 3)];
        let (batch, _) = rules().batch(&calls.each_ref().map(Vec::as_slice), &[3, 3]);
        assert_eq!(batch.inputs()[0].shape(), [3, 3]);
    }

    proptest! {
        #[test]
        fn padding_and_cutting_give_back_what_was_sent(
            sizes in prop::collection::vec((1_usize..3, 1_usize..9), 1..6),
        ) {
            let calls: Vec<_> = sizes.iter().map(|&(rows, length)| call(rows, length)).collect();
            let views: Vec<_> = calls.iter().map(Vec::as_slice).collect();
            let lengths: Vec<_> = sizes.iter().map(|size| size.1).collect();
            let (batch, _) = rules().batch(&views, &lengths);
            let whole: Vec<_> = batch.inputs().iter().map(|i| i.joined().unwrap()).collect();
            let rows: Vec<_> = sizes.iter().map(|size| size.0).collect();
            let padded = whole[0].shape()[1];
            let pieces: Vec<Vec<Tensor>> = whole.iter().map(|w| w.split_rows(&rows)).collect();
            for (index, call) in calls.iter().enumerate() {
                let piece = pieces.iter().map(|of| of[index].clone()).collect();
                let cut = rules().cut(piece, padded, lengths[index]);
                prop_assert_eq!(&cut[0], &call[0]);
                prop_assert_eq!(cut[1].shape()[1], padded);
            }
        }
    }
}
