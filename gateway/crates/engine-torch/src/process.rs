//! What must happen once, before anything else in the process touches libtorch.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::ffi::system;

/// What [`prepare_process`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Version of the libtorch that is loaded.
    pub version: String,
    /// Whether models can run on CUDA; else why not, in words for an operator.
    pub cuda: Result<(), String>,
    /// Says so when the loaded libtorch is not the one this program was built for.
    pub mismatch: Option<String>,
}

static PREPARED: OnceLock<Prepared> = OnceLock::new();

/// Sets libtorch up. Call it first thing in `main`, before any thread starts; later calls only
/// return what the first one found.
///
/// It defaults `OMP_NUM_THREADS` to 1 and `OMP_WAIT_POLICY` to passive, loads the CUDA half of
/// libtorch where it is installed, and turns profiling off, which would make the first calls of
/// every model slow. Once other threads run, the environment is left alone. OpenMP has read it
/// before `main` anyway, so that it is only for what loads later; each engine thread needs
/// [`prepare_thread`](engine::Engine::prepare_thread).
///
/// It leaves malloc alone: a low, fixed mmap threshold would keep memory flattest over model
/// swaps, but every larger tensor would then be mapped and cleared anew in each run, which made
/// convolutions 5 times as slow. [`trim_memory`](engine::Engine::trim_memory) does the same after
/// the fact.
pub fn prepare_process() -> &'static Prepared {
    PREPARED.get_or_init(|| {
        system::default_variable(c"OMP_NUM_THREADS", c"1");
        system::default_variable(c"OMP_WAIT_POLICY", c"passive");
        // Before anything asks for CUDA: libtorch remembers the first answer for good.
        let opened = open_cuda();
        if let Err(failure) = system::set_threads(NonZeroUsize::MIN) {
            tracing::warn!(error = failure.text, "libtorch keeps its own count of threads");
        }
        if let Err(error) = tch::jit::f_set_profiling_mode(false) {
            tracing::warn!(%error, "libtorch keeps profiling; first calls will be slow");
        }
        if let Err(failure) = system::set_interop_threads(1) {
            tracing::debug!(error = failure.text, "libtorch's inter-op threads are set already");
        }
        system::log_prints();
        let (version, mismatch) = versions();
        Prepared { version, cuda: opened.and_then(|()| any_device()), mismatch }
    })
}

/// Whether CUDA can be used, as far as [`prepare_process`] knows.
pub(crate) fn cuda() -> Result<(), String> {
    match PREPARED.get() {
        Some(prepared) => prepared.cuda.clone(),
        None => Err("the process was not prepared for CUDA at its start".to_owned()),
    }
}

fn versions() -> (String, Option<String>) {
    let built = system::version_built();
    match system::version_loaded() {
        Ok(loaded) => {
            let mismatch = (loaded != built)
                .then(|| format!("built for libtorch {built}, but libtorch {loaded} is loaded"));
            (loaded, mismatch)
        }
        Err(_) => (built, Some("the loaded libtorch does not say its version".to_owned())),
    }
}

/// Loads `libtorch_cuda.so`, from beside the `libtorch_cpu.so` in use or else from the library
/// path. Nothing is linked against it, so that one program serves with and without CUDA.
fn open_cuda() -> Result<(), String> {
    const NAME: &str = "libtorch_cuda.so";
    let beside = loaded_library("libtorch_cpu.so").map(|library| library.with_file_name(NAME));
    if let Some(path) = beside.filter(|path| path.exists()) {
        let path = path.display().to_string();
        return system::open_library(&system::c_text(&path))
            .map_err(|reason| format!("{path} cannot be loaded: {reason}"));
    }
    system::open_library(&system::c_text(NAME)).map_err(|reason| {
        if reason.contains("cannot open shared object file") && reason.starts_with(NAME) {
            format!("this libtorch has no {NAME}, neither beside it nor on the library path")
        } else {
            format!("{NAME} cannot be loaded: {reason}")
        }
    })
}

fn any_device() -> Result<(), String> {
    match system::cuda_devices() {
        Ok(1..) => Ok(()),
        Ok(_) => Err("libtorch's CUDA library is there, but no GPU with a driver".to_owned()),
        Err(failure) => {
            let reason = failure.text.lines().next().unwrap_or_default();
            Err(format!("CUDA does not start: {reason}"))
        }
    }
}

/// Where a library that this process has loaded lies.
fn loaded_library(name: &str) -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines()
        .filter_map(|line| line.find('/').map(|start| PathBuf::from(&line[start..])))
        .find(|path| path.file_name().is_some_and(|file| file == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preparing_twice_finds_the_same() {
        let first = prepare_process();
        assert!(std::ptr::eq(first, prepare_process()));
        assert!(first.version.starts_with("2.11"), "{}", first.version);
        assert_eq!(first.mismatch, None);
    }

    #[test]
    fn a_prepared_thread_runs_operators_alone() {
        prepare_process();
        let count = std::thread::spawn(|| {
            engine::Engine::prepare_thread(&crate::TorchEngine);
            tch::get_num_threads()
        });
        assert_eq!(count.join().expect("the thread only counts"), 1);
    }

    #[test]
    fn the_library_in_use_is_found() {
        let path = loaded_library("libtorch_cpu.so").expect("the tests link it");
        assert!(path.is_absolute() && path.exists());
        assert_eq!(loaded_library("libnothing.so"), None);
    }
}
