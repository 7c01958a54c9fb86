//! PyTorch and peft read what Skillweld writes for them. PyTorch is Debian's, for processors alone: pip's brings gigabytes of
//! CUDA along.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Environment, SYSTEM_PYTHON};
use crate::process::{announce, command, output, run as run_command};
use crate::setup;

const TORCH: Environment = Environment {
    name: "torch-venv",
    what: "peft and pytest, through pip",
    described_by: &["crates/interchange/tests/python/requirements.txt"],
    of_the_system: true,
    installs: &[
        &["-r", "crates/interchange/tests/python/requirements.txt"],
        // They ask for a version of PyTorch in a way that Debian's own does not answer to.
        &["--no-deps", "peft==0.12.0", "accelerate==0.27.2"],
    ],
};

/// Whether what they read can be tested.
pub(crate) fn is_installed() -> bool {
    has_torch() && TORCH.is_installed()
}

fn has_torch() -> bool {
    output(command(SYSTEM_PYTHON).args(["-c", "import torch"])).is_ok()
}

/// Makes sure that both are there.
pub(crate) fn install() -> Result<()> {
    if !has_torch() {
        announce("PyTorch, through apt");
        setup::install_packages(&["python3-torch", "python3-venv"])?;
        output(command(SYSTEM_PYTHON).args(["-c", "import torch"]))
            .context("PyTorch is there and does not work")?;
    }
    TORCH.install()
}

/// `merged` and `base` are what the demo makes. Where PyTorch cannot be installed, says so; an error on CI.
pub(super) fn test(skillweld: &Path, merged: &Path, base: &Path) -> Result<()> {
    announce("PyTorch and peft read exports, and what PyTorch trains runs in Skillweld");
    if let Err(error) = install() {
        ensure!(std::env::var_os("CI").is_none(), "{error:#}");
        println!(
            "skipped: what they need cannot be installed ({error}); `cargo xtask setup torch` tries again"
        );
        return Ok(());
    }
    let mut pytest = command(TORCH.python());
    pytest
        .env("SKILLWELD_BIN", skillweld)
        .env("SKILLWELD_DEMO_MERGED", merged)
        .env("SKILLWELD_DEMO_BASE", base)
        .env("PYTHONPATH", "examples/train");
    let folders = ["crates/interchange/tests/python", "examples/train/tests"];
    run_command(pytest.args(["-m", "pytest", "-p", "no:cacheprovider", "--quiet"]).args(folders))
}
