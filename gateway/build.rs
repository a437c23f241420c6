//! Lets the binary find libtorch without LD_LIBRARY_PATH, beside itself first (`make dist`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PENSTOCK_RELOCATABLE");
    if std::env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    // A relocatable build must not know where this machine keeps its libtorch.
    if std::env::var_os("PENSTOCK_RELOCATABLE").is_none()
        && let Some(lib) = std::env::var_os("DEP_PENSTOCK_TORCH_LIB")
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    }
    // libtorch.so stays NEEDED: on a GPU machine it is what pulls CUDA in.
    println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch,--pop-state");
}
