//! The tensors that go into a forward and those that come out of it.

use std::ffi::c_char;
use std::ptr::{self, NonNull};
use std::slice;

use bytes::Bytes;
use engine::BatchInput;

use super::{Cause, Failure, Module, check, handed_out, sys};

/// Outputs below this many bytes are copied: it costs less than keeping their tensor alive.
const COPY_BELOW: usize = 4096;

// === Inputs ===

/// The arguments of one forward.
#[derive(Debug)]
pub(crate) struct Inputs(pub(super) NonNull<sys::PstInputs>);

impl Inputs {
    pub(crate) fn with_capacity(count: usize) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is valid for the write of one handle.
        let status = unsafe { sys::pst_inputs_new(count, &raw mut raw) };
        check(status)?;
        Ok(Self(handed_out(raw)))
    }

    /// Appends a tensor that holds the whole input, where `module` can best take it from.
    pub(crate) fn push(
        &mut self,
        scalar_type: i8,
        input: &BatchInput,
        module: &Module,
    ) -> Result<(), Failure> {
        self.add(scalar_type, input, module.wants_pinned())
    }

    fn add(&mut self, scalar_type: i8, input: &BatchInput, pinned: bool) -> Result<(), Failure> {
        let shape = input.shape();
        let mut memory = ptr::null_mut();
        let mut size = 0;
        // SAFETY: the handle is valid, the shape readable for its rank, both pointers writable.
        let status = unsafe {
            sys::pst_inputs_add(
                self.0.as_ptr(),
                scalar_type,
                pinned,
                shape.as_ptr(),
                shape.len(),
                &raw mut memory,
                &raw mut size,
            )
        };
        check(status)?;
        let given = input.byte_len();
        if given != size {
            let text = format!("{given} bytes were given for a tensor of {size}");
            return Err(Failure { cause: Cause::Failed, text });
        }
        let mut offset = 0;
        input.write(|slice| {
            assert!(slice.len() <= size - offset, "the slices are as long as the input");
            // SAFETY: `offset` is at most `size`, the length of the tensor's memory.
            let target = unsafe { memory.add(offset) };
            // SAFETY: the tensor has just been allocated with `size` bytes, which nothing else
            // refers to, and the slice ends within them.
            unsafe { ptr::copy_nonoverlapping(slice.as_ptr(), target, slice.len()) };
            offset += slice.len();
        });
        // Memory that nobody wrote must not reach a model, whose outputs a caller reads.
        assert_eq!(offset, size, "the slices are as long as the input");
        Ok(())
    }

    /// Brings all tensors to where and how the module takes them.
    pub(crate) fn move_to(&mut self, module: &Module) -> Result<(), Failure> {
        // SAFETY: both handles are valid.
        let status = unsafe { sys::pst_inputs_move(self.0.as_ptr(), module.0.as_ptr()) };
        check(status)
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // SAFETY: the handle is valid and given back here only.
        unsafe { sys::pst_inputs_free(self.0.as_ptr()) };
    }
}

// === Answer ===

/// What one forward returned.
#[derive(Debug)]
pub(crate) struct Answer(pub(super) NonNull<sys::PstAnswer>);

/// One output, on the CPU.
#[derive(Debug)]
pub(crate) struct Output {
    /// libtorch's number of the element type.
    pub(crate) scalar_type: i8,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Bytes,
}

impl Answer {
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the handle is valid while `self` lives.
        unsafe { sys::pst_answer_size(self.0.as_ptr()) }
    }

    /// Whether the outputs have names, as those of a dict have.
    pub(crate) fn is_named(&self) -> bool {
        // SAFETY: the handle is valid while `self` lives.
        unsafe { sys::pst_answer_is_named(self.0.as_ptr()) }
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let text = name.as_ptr().cast::<c_char>();
        // SAFETY: the handle is valid and the name readable for the length given.
        let index = unsafe { sys::pst_answer_find(self.0.as_ptr(), text, name.len()) };
        usize::try_from(index).ok()
    }

    /// The model's own name for an output.
    pub(crate) fn name(&self, index: usize) -> Option<String> {
        let mut length = 0;
        // SAFETY: the handle is valid, the pointer valid for the write of one size.
        let name = unsafe { sys::pst_answer_name(self.0.as_ptr(), index, &raw mut length) };
        if name.is_null() {
            return None;
        }
        // SAFETY: the name is `length` bytes long and lives as long as the answer.
        let bytes = unsafe { slice::from_raw_parts(name.cast::<u8>(), length) };
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Takes one output: large memory that is this output's alone is shared, any other copied.
    /// Asking twice for one output is an error. Where a type is wanted, a BF16 output becomes that
    /// type if it holds floating-point numbers.
    pub(crate) fn output(&mut self, index: usize, wanted: Option<i8>) -> Result<Output, Failure> {
        let mut view = sys::PstView::default();
        let wanted = wanted.unwrap_or(-1);
        // SAFETY: the handle is valid; the shim checks the index.
        let status = unsafe { sys::pst_answer_view(self.0.as_ptr(), index, wanted, &raw mut view) };
        check(status)?;
        // SAFETY: the shape belongs to the tensor, which the answer keeps alive for now.
        let shape = unsafe { slice_or_empty(view.shape, view.rank) };
        let shape = shape
            .iter()
            .map(|&size| usize::try_from(size).expect("a tensor's sizes are not negative"))
            .collect();
        let data = if view.sole_owner && view.bytes >= COPY_BELOW {
            Bytes::from_owner(self.take(index, &view)?)
        } else {
            // SAFETY: the view says how many bytes of a dense CPU tensor start there.
            Bytes::copy_from_slice(unsafe { slice_or_empty(view.data, view.bytes) })
        };
        Ok(Output { scalar_type: view.scalar_type, shape, data })
    }

    fn take(&mut self, index: usize, view: &sys::PstView) -> Result<Taken, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: the handle is valid; the shim checks the index.
        let status = unsafe { sys::pst_answer_take(self.0.as_ptr(), index, &raw mut raw) };
        check(status)?;
        Ok(Taken { tensor: handed_out(raw), data: view.data, bytes: view.bytes })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: the handle is valid and given back here only.
        unsafe { sys::pst_answer_free(self.0.as_ptr()) };
    }
}

/// # Safety
/// Unless `length` is 0, `data` is valid for reading `length` elements during `'a`.
unsafe fn slice_or_empty<'a, T>(data: *const T, length: usize) -> &'a [T] {
    if length == 0 {
        return &[]; // an empty tensor's pointer may be null
    }
    // SAFETY: as promised by the caller.
    unsafe { slice::from_raw_parts(data, length) }
}

/// An output's tensor, kept alive for its bytes.
struct Taken {
    tensor: NonNull<sys::PstTensor>,
    data: *const u8,
    bytes: usize,
}

// SAFETY: tensors are reference-counted with atomics, and libtorch frees CPU memory on any thread.
unsafe impl Send for Taken {}
// SAFETY: nothing is ever written through it; nothing else owns the memory.
unsafe impl Sync for Taken {}

impl AsRef<[u8]> for Taken {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the view was of this tensor, which lives as long as `self` and owns its memory
        // alone, so nobody writes to it.
        unsafe { slice_or_empty(self.data, self.bytes) }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: the handle is valid and given back here only.
        unsafe { sys::pst_tensor_free(self.tensor.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use engine::{Batch, DataType, Tensor};

    use super::*;

    #[test]
    fn pinned_memory_without_a_gpu_is_an_error_in_words() {
        if crate::prepare_process().cuda.is_ok() {
            return; // with one it is no error
        }
        let tensor = Tensor::new(DataType::Fp32, vec![1, 2], vec![0; 8].into()).unwrap();
        let batch = Batch::single(&[tensor], 1);
        let mut inputs = Inputs::with_capacity(1).unwrap();
        let failure = inputs.add(6, &batch.inputs()[0], true).unwrap_err();
        assert!(failure.text.to_lowercase().contains("pin"), "{failure:?}");
        inputs.add(6, &batch.inputs()[0], false).unwrap();
    }
}
