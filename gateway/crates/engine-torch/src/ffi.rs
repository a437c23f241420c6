//! The border to C++: mirrors `shim/shim.h` and wraps each function safely.
//!
//! Handles are owned by the wrapper types and freed in `Drop`. Every status becomes a
//! [`Failure`]; the shim lets no exception through.
#![expect(unsafe_code, reason = "the one place where C++ is called")]

use std::ffi::{CStr, CString};
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::slice;

mod sys;
pub(crate) mod system;
mod tensors;

pub(crate) use tensors::{Answer, Inputs, Output};

/// The end of a text that is kept where it is longer; the reason stands last.
const LONGEST_TEXT: usize = 8192;

/// What went wrong in C++.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// libtorch threw.
    Failed,
    /// The model's own `raise` or `assert`.
    Raised,
    /// An allocation failed.
    Memory,
    /// The accelerator or its driver failed.
    Device,
    /// The model returned something that is no set of dense tensors; the text is ours.
    Answer,
}

/// A failed call. The text is libtorch's, hence for the log alone, unless the cause says else.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) text: String,
}

fn check(status: i32) -> Result<(), Failure> {
    let cause = match status {
        0 => return Ok(()),
        2 => Cause::Raised,
        3 => Cause::Memory,
        4 => Cause::Device,
        5 => Cause::Answer,
        _ => Cause::Failed,
    };
    Err(Failure { cause, text: last_error() })
}

fn last_error() -> String {
    let mut length = 0;
    // SAFETY: the pointer is valid for the write of one size.
    let text = unsafe { sys::pst_last_error(&raw mut length) };
    // SAFETY: the shim's text is `length` bytes long and unchanged until this thread's next call.
    let text = unsafe { slice::from_raw_parts(text.cast::<u8>(), length) };
    let end = &text[length.saturating_sub(LONGEST_TEXT)..];
    String::from_utf8_lossy(end).into_owned()
}

/// A count of threads for C; nobody has more than it holds.
fn count(threads: NonZeroUsize) -> i32 {
    i32::try_from(threads.get()).unwrap_or(i32::MAX)
}

/// The handle that a successful call wrote.
fn handed_out<T>(raw: *mut T) -> NonNull<T> {
    NonNull::new(raw).expect("a successful call hands out a handle")
}

// === Module ===

/// A loaded module with its forward method.
#[derive(Debug)]
pub(crate) struct Module(NonNull<sys::PstModule>);

// SAFETY: the module is reference-counted with atomics and belongs to no thread; freeing it on
// another thread than it was loaded on is what libtorch's own loaders do.
unsafe impl Send for Module {}
// SAFETY: through a shared reference the module only runs, is copied by freezing, and has its
// schema read. libtorch supports concurrent forwards on one module: each run has an interpreter
// state of its own, and the graph executor compiles its plan under a lock. A module that writes
// to its own attributes races with itself in its results, as it would in Python's threads.
unsafe impl Sync for Module {}

/// One argument of the forward method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) name: String,
    pub(crate) takes_tensor: bool,
    pub(crate) has_default: bool,
}

impl Module {
    /// Reads a module file; `cuda` is a device index, `None` stands for the CPU. Every run uses
    /// `threads` inside an operator.
    pub(crate) fn load(
        file: &[u8],
        cuda: Option<u8>,
        threads: NonZeroUsize,
    ) -> Result<Self, Failure> {
        let device = cuda.map_or(-1, i32::from);
        let threads = count(threads);
        let mut raw = ptr::null_mut();
        // SAFETY: the file is readable for the length given, and the shim keeps no reference.
        let status = unsafe {
            sys::pst_module_load(file.as_ptr(), file.len(), device, threads, &raw mut raw)
        };
        check(status)?;
        Ok(Self(handed_out(raw)))
    }

    /// A copy with BF16 for floating-point numbers, or with channels last. This module stays as
    /// it is.
    pub(crate) fn convert(&self, reduced: bool, channels_last: bool) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: the handle is valid while `self` lives.
        let status = unsafe {
            sys::pst_module_convert(self.0.as_ptr(), reduced, channels_last, &raw mut raw)
        };
        check(status)?;
        Ok(Self(handed_out(raw)))
    }

    /// A frozen copy, on request rewritten for inference too. This module stays as it is.
    pub(crate) fn transform(&self, optimize: bool) -> Result<Self, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: the handle is valid while `self` lives.
        let status = unsafe { sys::pst_module_transform(self.0.as_ptr(), optimize, &raw mut raw) };
        check(status)?;
        Ok(Self(handed_out(raw)))
    }

    /// The arguments of forward, without `self`.
    pub(crate) fn arguments(&self) -> Vec<Argument> {
        // SAFETY: the handle is valid while `self` lives.
        let count = unsafe { sys::pst_module_arguments(self.0.as_ptr()) };
        (0..count).map(|index| self.argument(index)).collect()
    }

    fn argument(&self, index: usize) -> Argument {
        let mut raw = sys::PstArgument::default();
        // SAFETY: the handle is valid and the only caller keeps `index` below the count.
        unsafe { sys::pst_module_argument(self.0.as_ptr(), index, &raw mut raw) };
        // SAFETY: the name belongs to the module's schema, which lives as long as the module.
        let name = unsafe { slice::from_raw_parts(raw.name.cast::<u8>(), raw.name_length) };
        Argument {
            name: String::from_utf8_lossy(name).into_owned(),
            takes_tensor: raw.takes_tensor,
            has_default: raw.has_default,
        }
    }

    /// Runs forward on the calling thread.
    pub(crate) fn forward(&self, inputs: Inputs) -> Result<Answer, Failure> {
        let mut raw = ptr::null_mut();
        // SAFETY: both handles are valid; `inputs` is used by this thread alone.
        let status =
            unsafe { sys::pst_module_forward(self.0.as_ptr(), inputs.0.as_ptr(), &raw mut raw) };
        check(status)?;
        Ok(Answer(handed_out(raw)))
    }

    /// Runs forward `times` over on the same inputs, without anything around it.
    pub(crate) fn repeat(&self, inputs: &Inputs, times: usize) -> Result<(), Failure> {
        // SAFETY: both handles are valid; `inputs` is used by this thread alone.
        let status = unsafe { sys::pst_module_repeat(self.0.as_ptr(), inputs.0.as_ptr(), times) };
        check(status)
    }

    /// Whether inputs are best filled in memory that a device can read by itself.
    pub(super) fn wants_pinned(&self) -> bool {
        // SAFETY: the handle is valid while `self` lives.
        unsafe { sys::pst_module_wants_pinned(self.0.as_ptr()) }
    }

    /// After memory ran out: gives back what the device's allocator keeps for later.
    pub(crate) fn relieve(&self) {
        // SAFETY: the handle is valid while `self` lives.
        unsafe { sys::pst_module_relieve(self.0.as_ptr()) };
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: the handle is valid and given back here only.
        unsafe { sys::pst_module_free(self.0.as_ptr()) };
    }
}

// === test modules ===

/// FP32 values that a test module holds as a buffer.
pub(crate) struct Buffer<'a> {
    pub(crate) name: &'a CStr,
    pub(crate) shape: &'a [i64],
    pub(crate) values: &'a [f32],
}

/// Compiles TorchScript source and saves it as a module file.
///
/// # Panics
/// When a buffer's values do not fill its shape.
pub(crate) fn write_module(
    source: &CString,
    buffers: &[Buffer<'_>],
    path: &CString,
) -> Result<(), Failure> {
    let raw: Vec<_> = buffers
        .iter()
        .map(|buffer| {
            let elements: i64 = buffer.shape.iter().product();
            let fits = usize::try_from(elements) == Ok(buffer.values.len());
            assert!(fits, "a buffer's values fill its shape");
            sys::PstBuffer {
                name: buffer.name.as_ptr(),
                values: buffer.values.as_ptr(),
                shape: buffer.shape.as_ptr(),
                rank: buffer.shape.len(),
            }
        })
        .collect();
    // SAFETY: all texts end with a zero byte, and every buffer holds the values its shape needs.
    let status =
        unsafe { sys::pst_write_module(source.as_ptr(), raw.as_ptr(), raw.len(), path.as_ptr()) };
    check(status)
}
