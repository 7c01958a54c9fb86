//! Builds the plugins: Rust crates and C files below `plugins/`, all into the profile's folder of the target directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages;
use crate::process::{announce, cargo, command, root, run as run_command, target_dir};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimised, into target/release; otherwise into target/debug.
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    build(args.release, &[])
}

/// Builds every plugin, together with the packages `with` in one go of cargo.
pub(crate) fn build(release: bool, with: &[&str]) -> Result<()> {
    announce(if release { "plugins, optimised" } else { "plugins" });
    let mut build = cargo();
    build.arg("build");
    if release {
        build.arg("--release");
    }
    for name in with {
        build.args(["-p", name]);
    }
    for package in packages::members()?.iter().filter(|p| p.is_plugin()) {
        build.args(["-p", &package.name]);
    }
    run_command(&mut build)?;
    for folder in c_plugins()? {
        build_c(&folder, &profile_dir(release))?;
    }
    Ok(())
}

/// Where binaries and plugins of a profile lie.
pub(crate) fn profile_dir(release: bool) -> PathBuf {
    target_dir().join(if release { "release" } else { "debug" })
}

/// Folders of plugins in plain C: those without a manifest of cargo.
pub(crate) fn c_plugins() -> Result<Vec<PathBuf>> {
    let plugins = root().join("plugins");
    let mut folders = Vec::new();
    for entry in fs::read_dir(&plugins).with_context(|| format!("cannot list {}", plugins.display()))? {
        let folder = entry?.path();
        if folder.is_dir() && !folder.join("Cargo.toml").exists() {
            folders.push(folder);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Compiles all C files of `plugins/NAME` into `libskillweld_plugin_NAME.so`.
fn build_c(folder: &Path, into: &Path) -> Result<()> {
    let name =
        folder.file_name().context("a plugin folder without a name")?.to_string_lossy().replace('-', "_");
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    let prefix = std::env::consts::DLL_PREFIX;
    let suffix = std::env::consts::DLL_SUFFIX;
    let library = into.join(format!("{prefix}skillweld_plugin_{name}{suffix}"));
    // A loaded library keeps its old file: compile beside it, then rename over it.
    let fresh = library.with_extension("new");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut compile = command(compiler);
    compile.args(["-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]);
    // Contracted products would give other bits than the Rust plugins on processors with fused multiply-add.
    compile.args(["-ffp-contract=off", "-I", "crates/plugin-abi/include", "-o"]).arg(&fresh);
    run_command(compile.args(&sources).arg("-lm"))?;
    fs::rename(&fresh, &library).with_context(|| format!("cannot place {}", library.display()))
}
