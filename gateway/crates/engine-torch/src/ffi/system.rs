//! Calls that concern the process or a thread rather than one module.

use std::ffi::{CStr, CString, c_char};
use std::num::NonZeroUsize;
use std::time::Duration;
use std::{ptr, slice};

use engine::DeviceMemory;

use super::{Failure, check, count, sys};

/// The version of libtorch's headers that the shim was compiled with.
pub(crate) fn version_built() -> String {
    // SAFETY: the shim returns a string literal.
    let text = unsafe { CStr::from_ptr(sys::pst_version_built()) };
    text.to_string_lossy().into_owned()
}

/// The version of the libtorch that the dynamic linker found.
pub(crate) fn version_loaded() -> Result<String, Failure> {
    let mut text = ptr::null();
    // SAFETY: the pointer is valid for the write of one pointer.
    let status = unsafe { sys::pst_version_loaded(&raw mut text) };
    check(status)?;
    // SAFETY: the call succeeded, and the text stays until this thread's next call.
    let text = unsafe { CStr::from_ptr(text) };
    Ok(text.to_string_lossy().into_owned())
}

/// How many threads serve a model's own `fork`; works once a process.
pub(crate) fn set_interop_threads(count: i32) -> Result<(), Failure> {
    check(sys::pst_set_interop_threads(count))
}

/// How many threads work inside an operator that the calling thread runs.
pub(crate) fn set_threads(threads: NonZeroUsize) -> Result<(), Failure> {
    check(sys::pst_set_threads(count(threads)))
}

/// The calling thread's settings that tch does not know.
pub(crate) fn prepare_thread() {
    sys::pst_prepare_thread();
}

/// Sends what models `print` to the log, at debug level; libtorch would write it to stdout.
pub(crate) fn log_prints() {
    extern "C" fn log(text: *const c_char, length: usize) {
        // SAFETY: the shim passes a text and its length, both valid during the call.
        let text = unsafe { slice::from_raw_parts(text.cast::<u8>(), length) };
        let text = String::from_utf8_lossy(text);
        // A panic of the log must not unwind into C++.
        drop(std::panic::catch_unwind(|| {
            tracing::debug!(target: "engine_torch::print", "{}", text.trim_end());
        }));
    }
    sys::pst_set_print_handler(log);
}

/// Usable CUDA devices. Must not be asked before [`open_library`] has had its chance: libtorch
/// remembers for good that there is no CUDA.
pub(crate) fn cuda_devices() -> Result<i32, Failure> {
    let mut count = 0;
    // SAFETY: the pointer is valid for the write of one number.
    let status = unsafe { sys::pst_cuda_devices(&raw mut count) };
    check(status)?;
    Ok(count)
}

/// Processor time that the calling thread has had so far.
pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is valid for the write of one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether a CUDA device answers now.
pub(crate) fn probe_device(index: u8) -> Result<(), Failure> {
    check(sys::pst_device_probe(i32::from(index)))
}

/// Memory of a CUDA device that was used before.
pub(crate) fn device_memory(index: u8) -> Result<DeviceMemory, Failure> {
    let mut raw = sys::PstDeviceMemory::default();
    // SAFETY: the pointer is valid for the write of one struct.
    let status = unsafe { sys::pst_device_memory(i32::from(index), &raw mut raw) };
    check(status)?;
    let sys::PstDeviceMemory { allocated, reserved, free, total } = raw;
    Ok(DeviceMemory { allocated, reserved, free, total })
}

/// Loads a library for the rest of the process, with all its symbols visible.
pub(crate) fn open_library(path: &CStr) -> Result<(), String> {
    // SAFETY: the path ends with a zero byte; the library's own start-up code is libtorch's.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !library.is_null() {
        return Ok(());
    }
    // SAFETY: takes no argument, and the text belongs to this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return Err("unknown reason".to_owned());
    }
    // SAFETY: not null, ends with a zero byte and stays until this thread's next dl call.
    let text = unsafe { CStr::from_ptr(text) };
    Err(text.to_string_lossy().into_owned())
}

/// Sets an environment variable unless it is set already.
///
/// Does nothing where other threads run, because they may be reading the environment.
pub(crate) fn default_variable(name: &CStr, value: &CStr) {
    let threads = std::fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count);
    if threads == 1 {
        // SAFETY: both texts end with a zero byte, and no other thread exists to read or write.
        unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 0) };
    }
}

/// Gives free memory back to the system.
pub(crate) fn trim_memory() {
    // SAFETY: takes the allocator's own locks; touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// A text for C; inner zero bytes end it early.
pub(crate) fn c_text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).expect("cut before the first zero byte")
}
