//! Compiles every kernel as C++ for the emulation, those of the plugins too. nvcc is not asked for: `cargo xtask kernels`
//! runs it, and its images are committed.

use std::path::{Path, PathBuf};

fn main() {
    let mut sources = cuda_files(Path::new("src"));
    let plugins = std::fs::read_dir("../plugins").expect("the folder of the plugins");
    for device in plugins.filter_map(|plugin| Some(plugin.ok()?.path().join("device"))) {
        if device.is_dir() {
            sources.extend(cuda_files(&device));
            println!("cargo:rerun-if-changed={}", device.display());
        }
    }
    sources.sort();
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // `-x c++`: the compiler does not know what a .cu is. No contraction: kernels round each product where they say so.
        .flag("-xc++")
        .flag("-ffp-contract=off")
        .flag("-Wno-unknown-pragmas")
        .define("SKILLWELD_EMULATED", None)
        // Plugins include one header of the boundary and know nothing of the emulation: it goes before them.
        .flag("-include")
        .flag("emulation/shim.h")
        .include("../crates/plugin-abi/include")
        .opt_level(2)
        .debug(false)
        .files(&sources)
        .file("emulation/shim.cc")
        .link_lib_modifier("+whole-archive") // kernels register themselves; nothing refers to them by symbol
        .compile("skillweld_emulated_kernels");
    for folder in ["src", "include", "emulation", "../crates/plugin-abi/include"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}

fn cuda_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder of kernels");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "cu")).collect()
}
