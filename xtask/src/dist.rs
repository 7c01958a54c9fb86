//! One folder with everything that runs on another machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{announce, cargo, command, output, root, run as run_command, target_dir};
use crate::{build, plugins};

/// What the folder may weigh: it travels over slow lines.
const MOST_BYTES: u64 = 64 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// With the kernels' tests and benches and the PyTorch peer, for a machine that has a GPU, a driver and Python, but no
    /// Rust: `python3 run.py` there does all of it.
    #[arg(long)]
    gpu: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = bundle(args.gpu)?;
    announce("done");
    println!("{} ({:.1} MiB)", folder.display(), bytes_below(&folder)? as f64 / f64::from(1 << 20));
    if args.gpu {
        println!("there: `python3 run.py --output DIR`; `python3 run.py --help` lists its parts");
    }
    Ok(())
}

/// Builds everything and lays it out; returns the folder.
pub(crate) fn bundle(gpu: bool) -> Result<PathBuf> {
    let binary = build::release()?;
    let folder = target_dir().join(if gpu { "dist-gpu" } else { "dist" });
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    place(&binary, &folder.join("skillweld"))?;
    for library in fs::read_dir(plugins::profile_dir(true))?.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("libskillweld_plugin_") && name.ends_with(std::env::consts::DLL_SUFFIX) {
            place(&library, &folder.join(name))?;
        }
    }
    if gpu {
        place(
            &executable(&["test", "--release", "-p", "skillweld-kernels", "--test", "device"])?,
            &folder.join("gpu-tests"),
        )?;
        place(
            &executable(&["test", "--release", "-p", "skillweld-merge", "--test", "device"])?,
            &folder.join("gpu-merge-tests"),
        )?;
        place(
            &executable(&["bench", "-p", "skillweld-kernels", "--bench", "device"])?,
            &folder.join("gpu-bench"),
        )?;
        place(
            &executable(&["build", "--release", "-p", "skillweld-synth", "--example", "published_policy"])?,
            &folder.join("published-policy"),
        )?;
        let peers = root().join("benches/peers/torch_gpu");
        for script in fs::read_dir(&peers)?.filter_map(|entry| Some(entry.ok()?.path())) {
            if script.extension().is_some_and(|extension| extension == "py") {
                fs::copy(&script, folder.join(script.file_name().unwrap_or_default()))?;
            }
        }
    }
    let bytes = bytes_below(&folder)?;
    ensure!(bytes <= MOST_BYTES, "{} is {bytes} bytes, and {MOST_BYTES} are allowed", folder.display());
    Ok(folder)
}

/// Copies a program or library without its symbols.
fn place(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    run_command(command("strip").arg("--strip-unneeded").arg(to))
}

/// Builds a test, bench or example, without running it, and returns its path.
fn executable(arguments: &[&str]) -> Result<PathBuf> {
    announce(&arguments.join(" "));
    let mut build = cargo();
    build.args(arguments).args(["--quiet", "--message-format=json"]);
    if arguments[0] != "build" {
        build.arg("--no-run");
    }
    let said = output(&mut build)?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut paths = messages.filter_map(|message| {
        let kinds = message["target"]["kind"].as_array()?;
        let of_target =
            kinds.iter().any(|kind| ["test", "bench", "example"].iter().any(|known| kind == known));
        of_target.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    paths.next().with_context(|| format!("cargo {} built no executable", arguments.join(" ")))
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
