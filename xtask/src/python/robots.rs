//! Others' programs and the robots' crates: Feetech's SDK talks to the fake servos, lerobot reads what the recorder wrote.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Environment, SYSTEM_PYTHON, torch};
use crate::process::{announce, cargo, command, output, run as run_command, target_dir};
use crate::{plugins, setup};

const SERVOS: Environment = Environment {
    name: "servos-venv",
    what: "Feetech's SDK and pytest, through pip",
    described_by: &["crates/fake-servo-bus/tests/python/requirements.txt"],
    of_the_system: false,
    installs: &[&["-r", "crates/fake-servo-bus/tests/python/requirements.txt"]],
};

/// lerobot asks for a PyTorch that brings gigabytes of CUDA along; what reads datasets works with Debian's, too.
const LEROBOT: Environment = Environment {
    name: "lerobot-venv",
    what: "lerobot and pytest, through pip",
    described_by: &["crates/recorder/tests/python/requirements.txt"],
    of_the_system: true,
    installs: &[
        &["-r", "crates/recorder/tests/python/requirements.txt"],
        &["--no-deps", "lerobot==0.4.4", "accelerate==0.27.2"],
    ],
};

/// Whether both can be tested.
pub(crate) fn is_installed() -> bool {
    SERVOS.is_installed() && has_torchvision() && LEROBOT.is_installed()
}

fn has_torchvision() -> bool {
    output(command(SYSTEM_PYTHON).args(["-c", "import torchvision"])).is_ok()
}

/// Makes sure that their environments are there.
pub(crate) fn install() -> Result<()> {
    SERVOS.install()?;
    if !has_torchvision() {
        torch::install()?;
        announce("torchvision, through apt");
        setup::install_packages(&["python3-torchvision"])?;
        output(command(SYSTEM_PYTHON).args(["-c", "import torchvision"]))
            .context("torchvision is there and does not work")?;
    }
    LEROBOT.install()
}

/// The ffmpeg that came with lerobot's environment.
fn ffmpeg() -> Result<String> {
    let path = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())";
    Ok(output(command(LEROBOT.python()).args(["-c", path]))?.trim().to_owned())
}

/// Where they cannot be installed, says so; an error on CI.
pub(crate) fn test(skillweld: &Path) -> Result<()> {
    announce("Feetech's SDK and the fake servos, lerobot and the recorder");
    if let Err(error) = install() {
        ensure!(std::env::var_os("CI").is_none(), "{error:#}");
        println!(
            "skipped: what they need cannot be installed ({error}); `cargo xtask setup robots` tries again"
        );
        return Ok(());
    }
    let ffmpeg = ffmpeg()?;
    // Of the whole workspace, as everything was built before: other features would build everything again.
    let mut videos = cargo();
    videos.env("SKILLWELD_FFMPEG", &ffmpeg).args(["test", "--workspace", "--test", "video"]);
    run_command(videos.args(["--", "--include-ignored"]))?;
    run_command(cargo().args(["build", "--workspace", "--example", "serve", "--example", "write"]))?;
    let examples = plugins::profile_dir(false).join("examples");
    let mut pytest = command(SERVOS.python());
    pytest.env("SERVE", examples.join("serve"));
    run_command(pytest.args([
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--quiet",
        "crates/fake-servo-bus/tests/python",
    ]))?;

    let dataset = |name: &str, images: Option<&str>| -> Result<PathBuf> {
        let dataset = target_dir().join(name);
        if dataset.exists() {
            fs::remove_dir_all(&dataset).with_context(|| format!("cannot remove {}", dataset.display()))?;
        }
        // Three episodes of so many frames.
        let mut write = command(examples.join("write"));
        output(write.env("SKILLWELD_FFMPEG", &ffmpeg).arg(&dataset).args(["3", "5,130,2"]).args(images))?;
        Ok(dataset)
    };
    let mut pytest = command(LEROBOT.python());
    pytest
        .env("SKILLWELD_DATASET", dataset("lerobot-dataset", None)?)
        .env("SKILLWELD_VIDEO_DATASET", dataset("lerobot-video-dataset", Some("video"))?)
        .env("SKILLWELD_BIN", skillweld)
        .env("HF_HOME", target_dir().join("lerobot-cache"));
    run_command(pytest.args([
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--quiet",
        "crates/recorder/tests/python",
    ]))
}
