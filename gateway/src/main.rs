//! The gateway process; everything it does is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // CUDA's library, the allocator and OpenMP are settled before any thread or query exists.
    #[cfg(feature = "torch")]
    let libtorch = Some(engine_torch::prepare_process());
    #[cfg(not(feature = "torch"))]
    let libtorch = None;
    penstock::cli::main(libtorch)
}
