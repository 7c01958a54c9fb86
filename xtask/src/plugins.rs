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
    /// Copy the libraries into this folder, in the place of all that lies there.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Compile nothing: copy what `cargo xtask test` has built with everything else, which cargo alone would compile once more.
    #[arg(long, requires = "into")]
    built: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.built {
        build(args.release, &[])?;
    }
    if let Some(folder) = &args.into {
        place_all(&profile_dir(args.release), folder)?;
    }
    Ok(())
}

/// Copies the library of every plugin.
fn place_all(from: &Path, into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into).with_context(|| format!("cannot empty {}", into.display()))?;
    }
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let members = packages::members()?;
    let rust = members.iter().filter(|package| package.is_plugin()).map(|package| package.folder.clone());
    for folder in rust.chain(c_plugins()?.into_iter().map(|(folder, _)| folder)) {
        let name = library_name(&folder)?;
        fs::copy(from.join(&name), into.join(&name)).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}

/// `plugins/NAME` → `libskillweld_plugin_NAME.so`.
fn library_name(folder: &Path) -> Result<String> {
    let name =
        folder.file_name().context("a plugin folder without a name")?.to_string_lossy().replace('-', "_");
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    Ok(format!("{prefix}skillweld_plugin_{name}{suffix}"))
}

/// Builds every plugin, in one go of cargo with what the arguments `also` name.
pub(crate) fn build(release: bool, also: &[&str]) -> Result<()> {
    announce(if release { "plugins, optimised" } else { "plugins" });
    let mut build = cargo();
    build.arg("build");
    if release {
        build.arg("--release");
    }
    build.args(also);
    for package in packages::members()?.iter().filter(|p| p.is_plugin()) {
        build.args(["-p", &package.name]);
    }
    run_command(&mut build)?;
    for (folder, sources) in c_plugins()? {
        build_c(&folder, &sources, &profile_dir(release))?;
    }
    Ok(())
}

/// Where binaries and plugins of a profile lie.
pub(crate) fn profile_dir(release: bool) -> PathBuf {
    target_dir().join(if release { "release" } else { "debug" })
}

/// Folders of plugins in plain C with their sources: those that hold C files and no manifest of cargo.
fn c_plugins() -> Result<Vec<(PathBuf, Vec<PathBuf>)>> {
    let plugins = root().join("plugins");
    let mut found = Vec::new();
    for folder in entries(&plugins)? {
        if folder.is_dir() && !folder.join("Cargo.toml").exists() {
            let mut sources = entries(&folder)?;
            sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
            if !sources.is_empty() {
                found.push((folder, sources));
            }
        }
    }
    Ok(found)
}

/// What lies in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = list.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Compiles the sources of `plugins/NAME` into `libskillweld_plugin_NAME.so`.
fn build_c(folder: &Path, sources: &[PathBuf], into: &Path) -> Result<()> {
    let library = into.join(library_name(folder)?);
    // A loaded library keeps its old file: compile beside it, then rename over it.
    let fresh = library.with_extension("new");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut compile = command(compiler);
    compile.args(["-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]);
    // Contracted products would give other bits than the Rust plugins on processors with fused multiply-add.
    compile.args(["-ffp-contract=off", "-I", "crates/plugin-abi/include", "-o"]).arg(&fresh);
    run_command(compile.args(sources).arg("-lm"))?;
    fs::rename(&fresh, &library).with_context(|| format!("cannot place {}", library.display()))
}
