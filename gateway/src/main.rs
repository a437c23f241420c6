//! The gateway process; everything it does is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Chosen by measurement (`ARCHITECTURE.md`, decisions); libtorch keeps the system's. What is
/// free goes back to the system after a second: `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // CUDA's library, the allocator and OpenMP are settled before any thread or query exists.
    #[cfg(feature = "torch")]
    let libtorch = Some(engine_torch::prepare_process());
    #[cfg(not(feature = "torch"))]
    let libtorch = None;
    penstock::cli::main(libtorch)
}
