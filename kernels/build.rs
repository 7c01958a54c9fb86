//! Compiles every kernel as C++ for the emulation. nvcc is not asked for: `cargo xtask kernels` runs it, and its images
//! are committed.

use std::path::PathBuf;

fn main() {
    let mut sources: Vec<PathBuf> = std::fs::read_dir("src")
        .expect("the folder `src`")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    sources.sort();
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        // `-x c++`: the compiler does not know what a .cu is. No contraction: kernels round each product where they say so.
        .flag("-xc++")
        .flag("-ffp-contract=off")
        .flag("-Wno-unknown-pragmas")
        .define("SKILLWELD_EMULATED", None)
        .opt_level(2)
        .debug(false)
        .files(&sources)
        .file("emulation/shim.cc")
        .link_lib_modifier("+whole-archive") // kernels register themselves; nothing refers to them by symbol
        .compile("skillweld_emulated_kernels");
    for folder in ["src", "include", "emulation"] {
        println!("cargo:rerun-if-changed={folder}");
    }
}
