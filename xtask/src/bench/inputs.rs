//! Checkpoints of Qwen2.5-0.5B's shape: a base and four fine-tunes in bf16, about 1 GB each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use skillweld_synth::{ExpertForm, Qwen2Spec};

use crate::process::{announce, target_dir};

pub(crate) const EXPERTS: usize = 4;

pub(crate) struct Inputs {
    pub(crate) dir: PathBuf,
}

impl Inputs {
    /// Writes the inputs unless they are there.
    pub(crate) fn prepare() -> Result<Self> {
        let dir = target_dir().join("bench-inputs");
        // Written last, so that an interrupted run starts anew.
        let complete = dir.join("complete");
        if !complete.exists() {
            announce("inputs: base and four experts of Qwen2.5-0.5B's shape, 5 GB");
            let forms = [ExpertForm::Full; EXPERTS];
            let written = Qwen2Spec::qwen2_5_0_5b().write_all(&dir, &forms);
            written.with_context(|| format!("cannot write inputs into {}", dir.display()))?;
            fs::write(complete, "")?;
        }
        Ok(Self { dir })
    }

    /// The weights of a model.
    pub(crate) fn weights(&self, model: &str) -> PathBuf {
        self.dir.join(model).join("model.safetensors")
    }

    /// What no merge that writes `output` gets below on this disk: read the inputs, write as much, make it durable.
    pub(crate) fn floor(&self, models: &[&str], output: &Path, copy: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"out=$1; copy=$2; shift 2; cat "$@" >/dev/null; cp "$out" "$copy"; sync "$copy""#,
            "sh",
        ]);
        command.arg(output).arg(copy).args(models.iter().map(|model| self.weights(model)));
        command
    }
}
