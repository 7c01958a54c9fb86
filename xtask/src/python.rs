//! What is tested in Python: the examples, the package, and what PyTorch reads. Each in an environment of its own.

pub(crate) mod robots;
pub(crate) mod torch;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use skillweld_synth::write_observation;

use crate::process::{announce, cargo, command, output, root, run as run_command, target_dir};
use crate::{plugins, random_experts, setup, test};

/// A virtual environment below the target directory.
pub(crate) struct Environment {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Files that say what belongs into it: it is made anew when they change.
    pub(crate) described_by: &'static [&'static str],
    /// Made of the system's Python, whose packages it sees.
    pub(crate) of_the_system: bool,
    /// Arguments of `pip install`, one call each.
    pub(crate) installs: &'static [&'static [&'static str]],
}

const EXAMPLES: Environment = Environment {
    name: "examples-venv",
    what: "the examples, gym-pusht and pytest, through pip",
    described_by: &["examples/client/pyproject.toml", "examples/tests/requirements.txt"],
    of_the_system: false,
    installs: &[
        &["--editable", "examples/client", "-r", "examples/tests/requirements.txt"],
        &["--no-deps", "gym-pusht==0.1.8"],
    ],
};

/// openpi's client wants a NumPy that the examples have left behind.
const OPENPI: Environment = Environment {
    name: "openpi-venv",
    what: "openpi's own client, through pip",
    described_by: &["examples/tests/openpi-requirements.txt"],
    of_the_system: false,
    installs: &[&["-r", "examples/tests/openpi-requirements.txt"]],
};

/// The Python that Debian's packages belong to.
const SYSTEM_PYTHON: &str = "/usr/bin/python3";

impl Environment {
    fn dir(&self) -> PathBuf {
        target_dir().join(self.name)
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.dir().join("bin/python")
    }

    /// Written once everything is installed; holds what was.
    fn receipt(&self) -> PathBuf {
        self.dir().join("installed")
    }

    fn wanted(&self) -> Result<String> {
        let read = |path: &&str| fs::read_to_string(root().join(path)).with_context(|| (*path).to_owned());
        let described = self.described_by.iter().map(read).collect::<Result<String>>()?;
        Ok(format!("{described}{:?}\n", self.installs))
    }

    fn is_installed(&self) -> bool {
        let had = fs::read_to_string(self.receipt());
        had.is_ok_and(|had| self.wanted().is_ok_and(|wanted| had == wanted))
    }

    pub(crate) fn install(&self) -> Result<()> {
        if self.is_installed() {
            return Ok(());
        }
        announce(self.what);
        let (python, more) = match self.of_the_system {
            true => (SYSTEM_PYTHON, &["--system-site-packages"][..]),
            false => ("python3", &[][..]),
        };
        run_command(command(python).args(["-m", "venv", "--clear"]).args(more).arg(self.dir()))?;
        for arguments in self.installs {
            let mut pip = command(self.python());
            let options = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            run_command(pip.args(options).args(*arguments))?;
        }
        fs::write(self.receipt(), self.wanted()?)
            .with_context(|| format!("cannot write into {}", self.dir().display()))
    }
}

/// Makes sure that openpi's client is there and returns the path of its Python.
pub(crate) fn install_openpi() -> Result<PathBuf> {
    OPENPI.install()?;
    Ok(OPENPI.python())
}

/// Whether the examples and the package can be tested.
pub(crate) fn is_installed() -> bool {
    EXAMPLES.is_installed() && OPENPI.is_installed() && wheel::is_installed()
}

/// Makes sure that their environments are there.
pub(crate) fn install() -> Result<()> {
    if is_installed() {
        return Ok(());
    }
    // Debian has a Python without what makes virtual environments.
    let usable = || {
        let probe = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))";
        output(command("python3").args(["-c", probe]))
    };
    if usable().is_err() && std::env::var_os("CI").is_some() {
        announce("Python, through apt");
        setup::install_packages(&["python3", "python3-venv"])?;
    }
    let found = usable().map(drop);
    found.context(
        "the Python parts are tested with Python 3.10 or newer and its module venv: install python3-venv",
    )?;
    EXAMPLES.install()?;
    OPENPI.install()?;
    wheel::install()
}

/// Tests the examples against `skillweld serve`, the package, and exports. Where they cannot be installed, says so and goes on; an error on CI.
pub(crate) fn test(skillweld: &Path) -> Result<()> {
    announce("tests in Python");
    if let Err(error) = install() {
        ensure!(std::env::var_os("CI").is_none(), "{error:#}");
        println!(
            "skipped: what they need cannot be installed ({error}); `cargo xtask setup python` tries again"
        );
        return Ok(());
    }
    let dir = target_dir().join("examples-demo");
    let (inputs, recipe) = random_experts::write_inputs(&dir)?;
    let merged = dir.join("merged");
    output(command(skillweld).arg("merge").arg(&recipe).arg(&merged))?;
    write_observation(&dir.join("observation.safetensors"), "put the red block in the drawer", 0)?;
    // A policy of any shape, and GR00T's port, which `skillweld` has only on request.
    run_command(cargo().args(["build", "--workspace", "--example", "zero_cost"]).args(test::ZMQ))?;
    let mut pytest = command(EXAMPLES.python());
    pytest
        .env("SKILLWELD_BIN", skillweld)
        .env("SKILLWELD_DEMO_MERGED", &merged)
        .env("SKILLWELD_ZERO_COST", plugins::profile_dir(false).join("examples/zero_cost"))
        .env("SKILLWELD_OPENPI_PYTHON", OPENPI.python());
    run_command(pytest.args(["-m", "pytest", "-p", "no:cacheprovider", "--quiet", "examples/tests"]))?;
    wheel::test(&recipe)?;
    torch::test(skillweld, &merged, &inputs.base)
}
