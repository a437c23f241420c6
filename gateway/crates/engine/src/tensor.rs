//! A tensor as it travels through the gateway: a type, a shape and shared bytes.
//!
//! Construction proves that the bytes fit the shape, so no engine has to ask again.

use bytes::Bytes;

use crate::datatype::DataType;

/// A dense row-major tensor; elements are little-endian, BOOL is one byte 0 or 1, and BYTES
/// elements are each a `u32` length followed by that many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    datatype: DataType,
    shape: Vec<usize>,
    data: Bytes,
}

/// Why bytes do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("shape {0:?} has more elements than fit in memory")]
    Overflow(Vec<usize>),
    #[error("shape {shape:?} of {datatype} needs {expected} bytes, got {actual}")]
    Length { datatype: DataType, shape: Vec<usize>, expected: usize, actual: usize },
    #[error("shape {shape:?} needs {expected} BYTES elements, got {actual}")]
    Elements { shape: Vec<usize>, expected: usize, actual: usize },
    #[error("BYTES element {index} claims {claimed} bytes, only {left} are left")]
    Framing { index: usize, claimed: usize, left: usize },
    #[error("BOOL element {index} is {value}, only 0 and 1 are valid")]
    Bool { index: usize, value: u8 },
}

impl Tensor {
    /// Checks `data` against `datatype` and `shape` and takes it, without copying.
    ///
    /// # Errors
    /// When the element count overflows, the byte length does not match, a BYTES element
    /// overruns the data, or a BOOL byte is neither 0 nor 1.
    pub fn new(datatype: DataType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        let elements = element_count(&shape)?;
        match datatype.size() {
            Some(size) => {
                let expected = elements
                    .checked_mul(size)
                    .ok_or_else(|| TensorError::Overflow(shape.clone()))?;
                if expected != data.len() {
                    let actual = data.len();
                    return Err(TensorError::Length { datatype, shape, expected, actual });
                }
                if datatype == DataType::Bool {
                    check_bools(&data)?;
                }
            }
            None => {
                let actual = check_framing(&data)?;
                if actual != elements {
                    return Err(TensorError::Elements { shape, expected: elements, actual });
                }
            }
        }
        Ok(Self { datatype, shape, data })
    }

    /// Makes a BYTES tensor out of its elements.
    ///
    /// # Errors
    /// When the number of elements does not match `shape`.
    pub fn from_strings<T: AsRef<[u8]>>(
        shape: Vec<usize>,
        elements: &[T],
    ) -> Result<Self, TensorError> {
        Self::new(DataType::Bytes, shape, frame_strings(elements))
    }

    #[must_use]
    pub fn datatype(&self) -> DataType {
        self.datatype
    }

    /// Dimensions, outermost first.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as the wire's binary form.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size of dimension 0, or 1 for a scalar.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The elements of a BYTES tensor; empty for every other type.
    pub fn strings(&self) -> Strings<'_> {
        let data: &[u8] = if self.datatype == DataType::Bytes { &self.data } else { &[] };
        Strings { data }
    }

    /// Cuts the tensor along dimension 0 into consecutive pieces of the given row counts.
    /// The pieces share the memory of the whole.
    ///
    /// # Panics
    /// When `rows` does not add up to dimension 0; callers hold counts that they batched.
    #[must_use]
    pub fn split_rows(&self, rows: &[usize]) -> Vec<Self> {
        assert_eq!(rows.iter().sum::<usize>(), self.rows(), "pieces cover the batch exactly");
        let per_row: usize = self.shape.iter().skip(1).product();
        let mut rest = self.data.clone();
        rows.iter()
            .map(|&count| {
                let length = match self.datatype.size() {
                    Some(size) => count * per_row * size,
                    None => framed_length(&rest, count * per_row),
                };
                let mut shape = self.shape.clone();
                if let Some(first) = shape.first_mut() {
                    *first = count;
                }
                Self { datatype: self.datatype, shape, data: rest.split_to(length) }
            })
            .collect()
    }

    /// Joins tensors along dimension 0, in their order.
    ///
    /// # Panics
    /// When there is none, or they differ in type or in anything but dimension 0.
    #[must_use]
    pub fn concat_rows(pieces: &[Self]) -> Self {
        let first = pieces.first().expect("there is something to join");
        let mut shape = first.shape.clone();
        shape[0] = 0;
        let mut data = Vec::with_capacity(pieces.iter().map(|piece| piece.data.len()).sum());
        for piece in pieces {
            assert_eq!(piece.datatype, first.datatype, "only equal types are joined");
            assert_eq!(piece.shape[1..], first.shape[1..], "only equal shapes are joined");
            shape[0] += piece.shape[0];
            data.extend_from_slice(&piece.data);
        }
        Self { datatype: first.datatype, shape, data: data.into() }
    }

    /// Keeps the first `size` entries along `axis`; copies unless that is all of them.
    ///
    /// # Panics
    /// When there are fewer, or the elements have no fixed size.
    #[must_use]
    pub fn trimmed(&self, axis: usize, size: usize) -> Self {
        let whole = self.shape[axis];
        assert!(size <= whole, "there is enough to keep");
        if size == whole {
            return self.clone();
        }
        let element = self.datatype.size().expect("elements to be trimmed have a fixed size");
        let inner = self.shape[axis + 1..].iter().product::<usize>() * element;
        let mut shape = self.shape.clone();
        shape[axis] = size;
        let mut data = Vec::with_capacity(shape.iter().product::<usize>() * element);
        if whole * inner > 0 {
            for block in self.data.chunks_exact(whole * inner) {
                data.extend_from_slice(&block[..size * inner]);
            }
        }
        Self { datatype: self.datatype, shape, data: data.into() }
    }
}

/// Iterator over the elements of a BYTES tensor.
#[derive(Debug, Clone)]
pub struct Strings<'a> {
    data: &'a [u8],
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.data.split_first_chunk::<4>()?;
        let (element, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.data = rest;
        Some(element)
    }
}

/// Product of the dimensions.
///
/// # Errors
/// [`TensorError::Overflow`] when it does not fit `usize`. A zero dimension makes the tensor
/// empty whatever the others say, but the others must still be sane.
pub fn element_count(shape: &[usize]) -> Result<usize, TensorError> {
    let nonzero = shape
        .iter()
        .filter(|&&dimension| dimension != 0)
        .try_fold(1_usize, |product, &dimension| product.checked_mul(dimension))
        .ok_or_else(|| TensorError::Overflow(shape.to_vec()))?;
    Ok(if shape.contains(&0) { 0 } else { nonzero })
}

/// Writes elements in the BYTES wire form.
pub fn frame_strings<T: AsRef<[u8]>>(elements: &[T]) -> Bytes {
    let total = elements.iter().map(|element| element.as_ref().len() + 4).sum();
    let mut data = Vec::with_capacity(total);
    for element in elements {
        let element = element.as_ref();
        let length = u32::try_from(element.len()).expect("a message is smaller than 4 GiB");
        data.extend_from_slice(&length.to_le_bytes());
        data.extend_from_slice(element);
    }
    data.into()
}

fn check_bools(data: &[u8]) -> Result<(), TensorError> {
    match data.iter().position(|&value| value > 1) {
        Some(index) => Err(TensorError::Bool { index, value: data[index] }),
        None => Ok(()),
    }
}

/// Counts BYTES elements, checking each length against what is left.
fn check_framing(data: &[u8]) -> Result<usize, TensorError> {
    let mut rest = data;
    let mut index = 0;
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_first_chunk::<4>() else {
            return Err(TensorError::Framing { index, claimed: 4, left: rest.len() });
        };
        let claimed = u32::from_le_bytes(*length) as usize;
        let Some((_, after)) = after.split_at_checked(claimed) else {
            return Err(TensorError::Framing { index, claimed, left: after.len() });
        };
        rest = after;
        index += 1;
    }
    Ok(index)
}

/// Bytes that the first `count` elements of well-framed data take.
fn framed_length(data: &[u8], count: usize) -> usize {
    Strings { data }.take(count).map(|element| element.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn length_must_match_the_shape() {
        let error = Tensor::new(DataType::Fp32, vec![2, 3], Bytes::from(vec![0; 20])).unwrap_err();
        assert_eq!(error.to_string(), "shape [2, 3] of FP32 needs 24 bytes, got 20");
    }

    #[test]
    fn overflowing_shapes_are_errors_even_beside_a_zero() {
        for shape in [vec![usize::MAX, 2], vec![1 << 62, 64], vec![0, usize::MAX, usize::MAX]] {
            let error = Tensor::new(DataType::Fp32, shape, Bytes::new()).unwrap_err();
            assert!(matches!(error, TensorError::Overflow(_)));
        }
        let error = Tensor::new(DataType::Fp64, vec![1 << 61], Bytes::new()).unwrap_err();
        assert!(matches!(error, TensorError::Overflow(_)));
    }

    #[test]
    fn bytes_elements_must_not_overrun() {
        let data = Bytes::from_static(&[9, 0, 0, 0, b'a']);
        let error = Tensor::new(DataType::Bytes, vec![1], data).unwrap_err();
        assert_eq!(error, TensorError::Framing { index: 0, claimed: 9, left: 1 });
        let data = Bytes::from_static(&[0, 0, 0, 0, 7]);
        assert!(matches!(
            Tensor::new(DataType::Bytes, vec![1], data),
            Err(TensorError::Framing { index: 1, .. })
        ));
    }

    #[test]
    fn bool_bytes_are_zero_or_one() {
        let data = Bytes::from_static(&[0, 1, 2]);
        let error = Tensor::new(DataType::Bool, vec![3], data).unwrap_err();
        assert_eq!(error, TensorError::Bool { index: 2, value: 2 });
    }

    #[test]
    fn trimming_keeps_the_first_entries_of_every_row() {
        let tensor = Tensor::new(DataType::Uint8, vec![2, 3, 2], (0..12).collect()).unwrap();
        let trimmed = tensor.trimmed(1, 2);
        assert_eq!(trimmed.shape(), [2, 2, 2]);
        assert_eq!(trimmed.data().as_ref(), [0, 1, 2, 3, 6, 7, 8, 9]);
        assert_eq!(tensor.trimmed(1, 0).data().len(), 0);
        assert_eq!(tensor.trimmed(1, 3), tensor);
    }

    proptest! {
        #[test]
        fn strings_survive_framing(elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9)) {
            let tensor = Tensor::from_strings(vec![elements.len()], &elements).unwrap();
            let read: Vec<Vec<u8>> = tensor.strings().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(read, elements);
        }

        #[test]
        fn split_pieces_concatenate_to_the_whole(
            counts in prop::collection::vec(0_usize..4, 1..5), width in 1_usize..3, strings in any::<bool>()
        ) {
            let rows: usize = counts.iter().sum();
            let tensor = if strings {
                let elements: Vec<String> = (0..rows * width).map(|i| "x".repeat(i % 5)).collect();
                Tensor::from_strings(vec![rows, width], &elements).unwrap()
            } else {
                let data: Vec<u8> = (0..=250).cycle().take(rows * width * 2).collect();
                Tensor::new(DataType::Int16, vec![rows, width], data.into()).unwrap()
            };
            let pieces = tensor.split_rows(&counts);
            for (piece, count) in pieces.iter().zip(&counts) {
                prop_assert_eq!(piece.shape(), &[*count, width]);
                prop_assert!(Tensor::new(piece.datatype(), piece.shape().to_vec(), piece.data().clone()).is_ok());
            }
            prop_assert_eq!(Tensor::concat_rows(&pieces), tensor);
        }
    }
}
