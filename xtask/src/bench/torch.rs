//! The kernels on a GPU against PyTorch there: `benches/peers/torch_gpu/run.py` from the bundle of `cargo xtask dist --gpu`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::dist;
use crate::process::{announce, command, output, root, run as run_command, target_dir};

/// What `run.py` writes.
const RESULTS: [&str; 3] = ["gpu.json", "gpu.md", "roofline.svg"];

pub(crate) fn run() -> Result<()> {
    let python = python()?;
    let bundle = dist::bundle(true)?;
    let results = target_dir().join("bench-gpu");
    announce("kernels, and PyTorch, on the GPU");
    run_command(command(&python).arg(bundle.join("run.py")).arg("--output").arg(&results))?;
    let text = fs::read_to_string(results.join("gpu.json")).context("run.py left no gpu.json")?;
    let result: Value = serde_json::from_str(&text).context("gpu.json")?;
    let (Some(gpu), Some(date)) = (result["machine"]["gpu"].as_str(), result["date"].as_str()) else {
        bail!("no GPU was measured: {} says why", results.join("tests.txt").display());
    };
    let folder = format!("{date}-{}", gpu.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let folder = root().join("benches/runs").join(folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for name in RESULTS {
        if results.join(name).exists() {
            fs::copy(results.join(name), folder.join(name)).with_context(|| format!("cannot keep {name}"))?;
        }
    }
    println!("kept in {}", folder.display());
    Ok(())
}

/// A Python that has a PyTorch with CUDA: the one of this machine. Some gigabytes that fit its driver are its owner's to choose.
fn python() -> Result<PathBuf> {
    let probe = "import torch, sys; sys.exit(not torch.cuda.is_available())";
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    match output(command(&python).args(["-c", probe])) {
        Ok(_) => Ok(python.into()),
        Err(_) => bail!(
            "`--peer torch` needs a GPU and a Python whose PyTorch sees it: `pip install torch`, or set PYTHON to one that has it"
        ),
    }
}
