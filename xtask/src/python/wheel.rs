//! The Python package `skillweld`: built as `pip install` builds it, without optimisation, and tested.

use std::path::Path;

use anyhow::Result;

use super::Environment;
use crate::process::{announce, command, run as run_command};

const WHEEL: Environment = Environment {
    name: "wheel-venv",
    what: "maturin, NumPy and pytest, through pip",
    described_by: &["python/tests/requirements.txt"],
    of_the_system: false,
    installs: &[&["-r", "python/tests/requirements.txt"]],
};

pub(super) fn is_installed() -> bool {
    WHEEL.is_installed()
}

pub(super) fn install() -> Result<()> {
    WHEEL.install()
}

/// `recipe` merges small models.
pub(super) fn test(recipe: &Path) -> Result<()> {
    announce("the Python package");
    let python = WHEEL.python();
    let mut pip = command(&python);
    // Without isolation pip does not look for the program `maturin` in the environment that it runs in.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let bin = WHEEL.dir().join("bin");
    pip.env("PATH", std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--force-reinstall"]);
    // maturin is in the environment already, and the profile shares what the other tests have compiled.
    pip.args(["--no-deps", "--no-build-isolation", "--config-settings=profile=dev", "./python"]);
    run_command(&mut pip)?;
    let mut pytest = command(&python);
    pytest.env("SKILLWELD_DEMO_RECIPE", recipe).env_remove("SKILLWELD_PLUGINS");
    run_command(pytest.args(["-m", "pytest", "-p", "no:cacheprovider", "--quiet", "python/tests"]))
}
