//! Compiles `tests/data/probe.c`, spoilt in the way a test asks for.

#![allow(dead_code, reason = "each test file uses its share")]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use skillweld_plugin_host::{Bound, HostHooks, Method, Plugin, PluginError};
use tempfile::TempDir;

/// File name of a plugin called `name` on this system.
pub(crate) fn file_name(name: &str) -> String {
    format!("{}skillweld_plugin_{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Builds the probe into `folder` under the plugin name `name`, with macros such as `MAGIC=1`.
pub(crate) fn build(folder: &Path, name: &str, macros: &[&str]) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = folder.join(file_name(name));
    // Rust links through the C compiler, so one is there wherever these tests build.
    let output = Command::new("cc")
        .args(["-std=c11", "-O1", "-shared", "-fPIC", "-Wall", "-Werror"])
        .args(["-Wno-unused-function", "-Wno-unused-const-variable", "-Wno-unused-variable"])
        .args(macros.iter().map(|text| format!("-D{text}")))
        .arg("-I")
        .arg(package.join("../plugin-abi/include"))
        .arg(package.join("tests/data/probe.c"))
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

pub(crate) fn load(macros: &[&str]) -> Result<Plugin, PluginError> {
    let folder = TempDir::new().unwrap();
    Plugin::load(build(folder.path(), "probe", macros))
}

pub(crate) fn method(macros: &[&str]) -> Method {
    load(macros).unwrap().methods()[0].clone()
}

pub(crate) fn bound(macros: &[&str], expert_count: usize) -> Bound {
    method(macros).bind_defaults(expert_count, &HostHooks::SILENT).unwrap()
}
