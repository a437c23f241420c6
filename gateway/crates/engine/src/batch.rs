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
    pieces: Vec<Piece>,
    padding: Option<Padding>,
}

/// The bytes of one call.
#[derive(Debug, Clone)]
struct Piece {
    data: Bytes,
    /// How many runs of consecutive bytes lie apart once the piece is padded.
    runs: usize,
}

/// How the runs of an input are laid out.
#[derive(Debug, Clone)]
struct Padding {
    /// As many bytes as lie from the start of one run to that of the next, all of them fill.
    blank: Vec<u8>,
}

/// Makes the pieces of one input equally long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pad {
    /// The dimension that differs between calls; never dimension 0.
    pub axis: usize,
    /// Its size in the batch, at least that of every call.
    pub size: usize,
    /// The bytes of the element that fills the rest.
    pub fill: Vec<u8>,
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
                pieces: vec![Piece { data: tensor.data().clone(), runs: 1 }],
                padding: None,
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
        Self::stack_padded(calls, &[])
    }

    /// Stacks several calls along dimension 0 and pads the inputs that `pads` names, by position.
    ///
    /// # Panics
    /// When the calls differ in anything but dimension 0 and the padded dimension, or are longer
    /// than it, or an input to be padded has elements of no fixed size.
    #[must_use]
    pub fn stack_padded(calls: &[&[Tensor]], pads: &[Option<Pad>]) -> Self {
        let first = calls.first().expect("a batch has at least one call");
        let inputs: Vec<BatchInput> = (0..first.len())
            .map(|index| {
                let pad = pads.get(index).and_then(Option::as_ref);
                BatchInput::stack(calls.iter().map(|call| &call[index]), pad)
            })
            .collect();
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
    fn stack<'a>(tensors: impl ExactSizeIterator<Item = &'a Tensor>, pad: Option<&Pad>) -> Self {
        let mut pieces = Vec::with_capacity(tensors.len());
        let mut whole: Option<(DataType, Vec<usize>)> = None;
        for tensor in tensors {
            let (datatype, shape) = whole.get_or_insert_with(|| {
                let mut shape = tensor.shape().to_vec();
                shape[0] = 0;
                if let Some(pad) = pad {
                    shape[pad.axis] = pad.size;
                }
                (tensor.datatype(), shape)
            });
            assert_eq!(*datatype, tensor.datatype(), "only equal types are stacked");
            let same = tensor.shape().len() == shape.len()
                && (1..shape.len()).all(|axis| match pad {
                    Some(pad) if pad.axis == axis => tensor.shape()[axis] <= pad.size,
                    _ => tensor.shape()[axis] == shape[axis],
                });
            assert!(same, "only equal shapes are stacked");
            shape[0] += tensor.rows();
            let runs = pad.map_or(1, |pad| tensor.shape()[..pad.axis].iter().product());
            pieces.push(Piece { data: tensor.data().clone(), runs });
        }
        let (datatype, shape) = whole.expect("a batch has at least one call");
        let padding = pad.map(|pad| {
            let size = datatype.size().expect("elements to be padded have a fixed size");
            assert_eq!(pad.fill.len(), size, "the fill is one element");
            Padding { blank: pad.fill.repeat(shape[pad.axis..].iter().product()) }
        });
        Self { datatype, shape, pieces, padding }
    }

    #[must_use]
    pub fn datatype(&self) -> DataType {
        self.datatype
    }

    /// Shape of all pieces together, padding included.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The callers' bytes, in call order, without padding.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter().map(|piece| &piece.data)
    }

    /// Bytes of the whole input, padding included.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        let of = |piece: &Piece| match &self.padding {
            Some(padding) => piece.runs * padding.blank.len(),
            None => piece.data.len(),
        };
        self.pieces.iter().map(of).sum()
    }

    /// Gives the whole input from its first byte to its last, in slices, so that an engine copies
    /// each caller's bytes once. Together they are [`byte_len`](Self::byte_len) long.
    pub fn write(&self, mut to: impl FnMut(&[u8])) {
        for piece in &self.pieces {
            let Some(Padding { blank }) = &self.padding else {
                to(&piece.data);
                continue;
            };
            let length = piece.data.len().checked_div(piece.runs).unwrap_or(0);
            for run in 0..piece.runs {
                to(&piece.data[run * length..(run + 1) * length]);
                to(&blank[length..]);
            }
        }
    }

    /// The pieces joined into one tensor; copies unless there is only one without padding.
    ///
    /// # Errors
    /// Never for a batch made of valid tensors; the check is repeated because it is cheap.
    pub fn joined(&self) -> Result<Tensor, TensorError> {
        let data = match (self.pieces.as_slice(), &self.padding) {
            ([only], None) => only.data.clone(),
            _ => {
                let mut bytes = Vec::with_capacity(self.byte_len());
                self.write(|slice| bytes.extend_from_slice(slice));
                bytes.into()
            }
        };
        Tensor::new(self.datatype, self.shape.clone(), data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(rows: usize, length: usize, width: usize, first: u16) -> Tensor {
        let count = u16::try_from(rows * length * width).unwrap();
        let data: Vec<u8> = (first..first + count).flat_map(u16::to_le_bytes).collect();
        Tensor::new(DataType::Uint16, vec![rows, length, width], data.into()).unwrap()
    }

    /// Element by element, the slow way.
    fn expected(calls: &[Tensor], size: usize, fill: u16) -> Vec<u16> {
        let mut all = Vec::new();
        for call in calls {
            let &[rows, length, width] = call.shape() else { unreachable!("rank 3") };
            let value = |row, at, column| {
                let start = ((row * length + at) * width + column) * 2;
                u16::from_le_bytes([call.data()[start], call.data()[start + 1]])
            };
            for row in 0..rows {
                for at in 0..size {
                    for column in 0..width {
                        all.push(if at < length { value(row, at, column) } else { fill });
                    }
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn padded_pieces_stand_where_their_indices_say(
            calls in prop::collection::vec((0_usize..4, 0_usize..5), 1..5),
            width in 1_usize..3, room in 0_usize..3, fill in any::<u16>(),
        ) {
            let longest = calls.iter().map(|call| call.1).max().unwrap();
            let size = longest + room;
            let calls: Vec<Tensor> =
                calls.iter().map(|&(rows, length)| call(rows, length, width, 7)).collect();
            let views: Vec<&[Tensor]> = calls.iter().map(std::slice::from_ref).collect();
            let pad = Pad { axis: 1, size, fill: fill.to_le_bytes().to_vec() };
            let batch = Batch::stack_padded(&views, &[Some(pad)]);
            let whole = batch.inputs()[0].joined().unwrap();
            let got: Vec<u16> =
                whole.data().as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
            prop_assert_eq!(whole.shape(), &[batch.rows(), size, width]);
            prop_assert_eq!(got, expected(&calls, size, fill));
        }
    }

    #[test]
    #[should_panic(expected = "only equal shapes are stacked")]
    fn calls_longer_than_the_padding_are_never_cut() {
        let pad = Pad { axis: 1, size: 2, fill: vec![0, 0] };
        let _ = Batch::stack_padded(&[&[call(1, 3, 1, 0)]], &[Some(pad)]);
    }
}
