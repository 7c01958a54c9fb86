//! Installs what optional parts need. Nothing here is needed to build, test or merge.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::process::{announce, command, output, run as run_command, target_dir};
use crate::python;

/// The peer that results and speed are compared with.
const MERGEKIT: &str = "mergekit==0.1.5";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to install; without any, says what is there.
    #[arg(value_enum)]
    parts: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// OpenBLAS, through apt: for the feature `lapack` of skillweld-linalg.
    Lapack,
    /// mergekit, through pip into target/peer-venv: for `bench --peer mergekit`.
    Peer,
    /// What the Python package and the Python examples are tested in, through pip into environments below target.
    Python,
    /// Chromium, through apt: the pages of `skillweld report` are tested in it.
    Chromium,
    /// PyTorch through apt and peft through pip into target/torch-venv: for the tests of what they read.
    Torch,
    /// Feetech's SDK, lerobot and an ffmpeg, through pip into environments below target, and torchvision, through apt: for
    /// the tests of the robots' crates.
    Robots,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for part in &args.parts {
        match part {
            Part::Lapack => install_openblas()?,
            Part::Peer => drop(install_mergekit()?),
            Part::Python => python::install()?,
            Part::Chromium => install_chromium()?,
            Part::Torch => python::torch::install()?,
            Part::Robots => python::robots::install()?,
        }
    }
    announce("optional parts");
    let state = |there| if there { "there" } else { "not installed" };
    println!("lapack: {} (OpenBLAS)", state(has_openblas()));
    println!("peer:   {} ({MERGEKIT})", state(mergekit().exists()));
    println!("python: {} (gym-pusht, openpi-client, maturin)", state(python::is_installed()));
    println!("torch:  {} (PyTorch of the system, peft)", state(python::torch::is_installed()));
    println!("robots: {} (feetech-servo-sdk, lerobot, ffmpeg)", state(python::robots::is_installed()));
    println!("chromium: {}", state(has_chromium()));
    Ok(())
}

/// Whether the linker finds OpenBLAS: what `ndarray-linalg` with `openblas-system` asks for.
pub(crate) fn has_openblas() -> bool {
    // Prints the whole path of a library that it finds, the bare name of one that it does not.
    output(command("cc").arg("-print-file-name=libopenblas.so")).is_ok_and(|path| path.contains('/'))
}

pub(crate) fn install_openblas() -> Result<()> {
    if has_openblas() {
        return Ok(());
    }
    announce("OpenBLAS, through apt");
    install_packages(&["libopenblas-dev", "pkg-config"])
}

/// Whether pages can be looked at.
pub(crate) fn has_chromium() -> bool {
    output(command("chromium").arg("--version")).is_ok()
}

pub(crate) fn install_chromium() -> Result<()> {
    if has_chromium() {
        return Ok(());
    }
    announce("Chromium, through apt");
    install_packages(&["chromium"])
}

/// Installs packages of the system, through apt.
pub(crate) fn install_packages(names: &[&str]) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("installing packages needs root: run `sudo apt-get install {}`", names.join(" "));
    }
    let mut update = command("apt-get");
    run_command(update.args(["update", "-q"]))?;
    let mut install = command("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run_command(install.args(["install", "-q", "-y", "--no-install-recommends"]).args(names))
}

fn mergekit() -> PathBuf {
    target_dir().join("peer-venv/bin/mergekit-yaml")
}

/// Makes sure that mergekit is there and returns the path of its program `mergekit-yaml`.
pub(crate) fn install_mergekit() -> Result<PathBuf> {
    if !mergekit().exists() {
        announce("mergekit, through pip (PyTorch comes along: some gigabytes)");
        let venv = target_dir().join("peer-venv");
        run_command(command("python3").args(["-m", "venv"]).arg(&venv))?;
        run_command(command(venv.join("bin/pip")).args(["install", "--quiet", MERGEKIT]))?;
    }
    Ok(mergekit())
}

/// FusionBench, and of what it asks for as much as its merging functions import.
const FUSIONBENCH: [&str; 8] = [
    "fusion-bench==0.2.33",
    "omegaconf==2.3.0",
    "antlr4-python3-runtime==4.9.3",
    "hydra-core",
    "bidict",
    "lightning",
    "lightning-utilities",
    "torchmetrics",
];

/// Makes sure that FusionBench is there, in a folder of its own beside PyTorch's environment. The Python, and that folder.
pub(crate) fn install_fusionbench() -> Result<(PathBuf, PathBuf)> {
    let python = install_pytorch()?;
    let site = target_dir().join("peer-fusionbench");
    if !site.join("fusion_bench").exists() {
        announce("FusionBench, through pip");
        let mut install = command(&python);
        install
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
            .arg(&site)
            .args(FUSIONBENCH);
        run_command(&mut install)?;
    }
    Ok((python, site))
}

/// Makes sure that PyTorch is there, which comes with mergekit, and returns the path of its Python.
pub(crate) fn install_pytorch() -> Result<PathBuf> {
    install_mergekit()?;
    Ok(target_dir().join("peer-venv/bin/python"))
}
