//! The declarations of `shim/shim.h`, word for word.

use std::ffi::c_char;
use std::marker::{PhantomData, PhantomPinned};
use std::ptr;

/// A type that only C++ knows; lives behind pointers.
macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[repr(C)]
        #[derive(Debug)]
        pub(super) struct $name {
            data: [u8; 0],
            marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque!(PstModule, PstInputs, PstAnswer, PstTensor);

#[repr(C)]
pub(super) struct PstArgument {
    pub(super) name: *const c_char,
    pub(super) name_length: usize,
    pub(super) takes_tensor: bool,
    pub(super) has_default: bool,
}

impl Default for PstArgument {
    fn default() -> Self {
        Self { name: ptr::null(), name_length: 0, takes_tensor: false, has_default: false }
    }
}

#[repr(C)]
pub(super) struct PstView {
    pub(super) data: *const u8,
    pub(super) bytes: usize,
    pub(super) shape: *const i64,
    pub(super) rank: usize,
    pub(super) scalar_type: i8,
    pub(super) sole_owner: bool,
}

impl Default for PstView {
    fn default() -> Self {
        Self {
            data: ptr::null(),
            bytes: 0,
            shape: ptr::null(),
            rank: 0,
            scalar_type: -1,
            sole_owner: false,
        }
    }
}

#[repr(C)]
#[derive(Default)]
pub(super) struct PstDeviceMemory {
    pub(super) allocated: u64,
    pub(super) reserved: u64,
    pub(super) free: u64,
    pub(super) total: u64,
}

#[repr(C)]
pub(super) struct PstBuffer {
    pub(super) name: *const c_char,
    pub(super) values: *const f32,
    pub(super) shape: *const i64,
    pub(super) rank: usize,
}

unsafe extern "C" {
    pub(super) fn pst_last_error(length: *mut usize) -> *const c_char;

    pub(super) safe fn pst_version_built() -> *const c_char;
    pub(super) fn pst_version_loaded(text: *mut *const c_char) -> i32;
    pub(super) safe fn pst_set_interop_threads(count: i32) -> i32;
    pub(super) safe fn pst_set_threads(count: i32) -> i32;
    pub(super) safe fn pst_prepare_thread();
    pub(super) safe fn pst_set_print_handler(handler: extern "C" fn(*const c_char, usize));
    pub(super) fn pst_cuda_devices(count: *mut i32) -> i32;

    pub(super) safe fn pst_device_probe(index: i32) -> i32;
    pub(super) fn pst_device_memory(index: i32, out: *mut PstDeviceMemory) -> i32;

    pub(super) fn pst_module_load(
        data: *const u8,
        length: usize,
        device: i32,
        threads: i32,
        out: *mut *mut PstModule,
    ) -> i32;
    pub(super) fn pst_module_convert(
        module: *const PstModule,
        reduced: bool,
        channels_last: bool,
        out: *mut *mut PstModule,
    ) -> i32;
    pub(super) fn pst_module_transform(
        module: *const PstModule,
        optimize: bool,
        out: *mut *mut PstModule,
    ) -> i32;
    pub(super) fn pst_module_free(module: *mut PstModule);
    pub(super) fn pst_module_arguments(module: *const PstModule) -> usize;
    pub(super) fn pst_module_argument(
        module: *const PstModule,
        index: usize,
        out: *mut PstArgument,
    );

    pub(super) fn pst_inputs_new(count: usize, out: *mut *mut PstInputs) -> i32;
    pub(super) fn pst_inputs_free(inputs: *mut PstInputs);
    pub(super) fn pst_module_wants_pinned(module: *const PstModule) -> bool;
    pub(super) fn pst_inputs_add(
        inputs: *mut PstInputs,
        scalar_type: i8,
        pinned: bool,
        shape: *const usize,
        rank: usize,
        memory: *mut *mut u8,
        bytes: *mut usize,
    ) -> i32;
    pub(super) fn pst_inputs_move(inputs: *mut PstInputs, module: *const PstModule) -> i32;
    pub(super) fn pst_module_forward(
        module: *const PstModule,
        inputs: *mut PstInputs,
        out: *mut *mut PstAnswer,
    ) -> i32;
    pub(super) fn pst_module_repeat(
        module: *const PstModule,
        inputs: *const PstInputs,
        times: usize,
    ) -> i32;
    pub(super) fn pst_module_relieve(module: *const PstModule);
    pub(super) fn pst_answer_size(answer: *const PstAnswer) -> usize;
    pub(super) fn pst_answer_is_named(answer: *const PstAnswer) -> bool;
    pub(super) fn pst_answer_name(
        answer: *const PstAnswer,
        index: usize,
        length: *mut usize,
    ) -> *const c_char;
    pub(super) fn pst_answer_find(
        answer: *const PstAnswer,
        name: *const c_char,
        length: usize,
    ) -> i64;
    pub(super) fn pst_answer_view(
        answer: *mut PstAnswer,
        index: usize,
        wanted: i8,
        out: *mut PstView,
    ) -> i32;
    pub(super) fn pst_answer_take(
        answer: *mut PstAnswer,
        index: usize,
        out: *mut *mut PstTensor,
    ) -> i32;
    pub(super) fn pst_answer_free(answer: *mut PstAnswer);
    pub(super) fn pst_tensor_free(tensor: *mut PstTensor);

    pub(super) fn pst_write_module(
        source: *const c_char,
        buffers: *const PstBuffer,
        count: usize,
        path: *const c_char,
    ) -> i32;
}
