//! Compiles the C++ shim against the libtorch that torch-sys found, and passes on where it is.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    for file in ["device.cc", "device.h", "guard.h", "handles.h", "shim.cc", "shim.h"] {
        println!("cargo:rerun-if-changed=shim/{file}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // torch-sys says where the libraries are, because Cargo.toml names it directly.
    let lib = env::var_os("DEP_TCH_LIBTORCH_LIB")
        .map(PathBuf::from)
        .expect("torch-sys found no libtorch; scripts/libtorch.sh fetches one into .libtorch");
    // Another libtorch may come under the same path: the set-up script marks it.
    if let Some(folder) = lib.parent() {
        println!("cargo:rerun-if-changed={}", folder.join(".complete").display());
    }
    let lib = lib.canonicalize().unwrap_or(lib);
    compile(&include_dir(&lib));

    let lib = lib.display();
    // Read as DEP_PENSTOCK_TORCH_LIB by the build scripts of packages that link a binary.
    println!("cargo:lib={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    // Nothing refers to libtorch.so itself, but with its name in the binary a full libtorch on
    // the library path brings its CUDA half along.
    println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch,--pop-state");
}

/// The folder that holds `include/`: libtorch's own layout, unless the user says otherwise.
fn include_dir(lib: &Path) -> PathBuf {
    env::var_os("LIBTORCH_INCLUDE")
        .map(PathBuf::from)
        .or_else(|| lib.parent().map(Path::to_path_buf))
        .expect("libtorch's lib folder has a parent")
        .join("include")
}

fn compile(include: &Path) {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").files(["shim/shim.cc", "shim/device.cc"]).warnings(true);
    // As system headers, so that our warnings are about our own lines.
    for folder in [include.to_path_buf(), include.join("torch/csrc/api/include")] {
        build.flag("-isystem").flag(folder.as_os_str());
    }
    // The dev profile too: unoptimised, the shim would dominate what the tests measure.
    build.opt_level(2).define("_GLIBCXX_USE_CXX11_ABI", "1").compile("penstock_torch_shim");
}
