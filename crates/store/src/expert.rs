use std::path::{Path, PathBuf};

use crate::locate::{self, SIDE_PARTS};
use crate::{Checkpoint, StoreError};

/// What lies in the directory of an expert besides the weights of its vision-language model.
///
/// MergeVLA, VLA-Adapter and OpenVLA-OFT save the parts that they train from scratch as PyTorch files of their own:
/// `action_head--<step>_checkpoint.pt`, `proprio_projector--<step>_checkpoint.pt` and
/// `noisy_action_projector--<step>_checkpoint.pt`, their keys under `module.` when trained in parallel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertFiles {
    dir: PathBuf,
    parts: [Option<PathBuf>; SIDE_PARTS.len()],
    lora_adapter: Option<PathBuf>,
    companions: Vec<String>,
}

impl ExpertFiles {
    /// Looks through `dir`. Nothing is opened.
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`] when a part is there more than once, as after several training steps;
    /// [`StoreError::Io`].
    pub fn discover(dir: &Path) -> Result<Self, StoreError> {
        let names = locate::file_names(dir)?;
        let mut parts = [const { None }; SIDE_PARTS.len()];
        for (slot, part) in parts.iter_mut().zip(SIDE_PARTS) {
            let found: Vec<String> =
                names.iter().filter(|name| locate::is_part(name, part)).cloned().collect();
            match &found[..] {
                [] => {}
                [only] => *slot = Some(dir.join(only)),
                _ => {
                    return Err(StoreError::Ambiguous { dir: dir.to_owned(), what: part, candidates: found });
                }
            }
        }
        let lora_adapter = dir.join("lora_adapter");
        let has = |name: &str| lora_adapter.join(name).is_file();
        if !has("adapter_config.json") && (has("adapter_model.safetensors") || has("adapter_model.bin")) {
            return Err(StoreError::NoAdapterConfig { dir: lora_adapter });
        }
        let lora_adapter = has("adapter_config.json").then_some(lora_adapter);
        let companions = names.into_iter().filter(|name| is_companion(name)).collect();
        Ok(Self { dir: dir.to_owned(), parts, lora_adapter, companions })
    }

    /// The directory looked through.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The action expert, its keys without `module.` (`model.fc1.weight`, …); `None` when there is no such file.
    ///
    /// # Errors
    /// Any error of [`Checkpoint::open`].
    pub fn action_head(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.open(0)
    }

    /// The projector of the robot's own state, as [`ExpertFiles::action_head`].
    ///
    /// # Errors
    /// Any error of [`Checkpoint::open`].
    pub fn proprio_projector(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.open(1)
    }

    /// The projector of noisy actions (diffusion heads only), as [`ExpertFiles::action_head`].
    ///
    /// # Errors
    /// Any error of [`Checkpoint::open`].
    pub fn noisy_action_projector(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.open(2)
    }

    fn open(&self, part: usize) -> Result<Option<Checkpoint>, StoreError> {
        self.parts[part].as_ref().map(Checkpoint::open).transpose()
    }

    /// The side files found, as (`action_head`, its path) and so on.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        SIDE_PARTS.into_iter().zip(&self.parts).filter_map(|(part, path)| Some((part, path.as_deref()?)))
    }

    /// The adapter directory `lora_adapter/`, which some trainers leave beside the merged weights.
    pub fn lora_adapter(&self) -> Option<&Path> {
        self.lora_adapter.as_deref()
    }

    /// The path of a file in this directory, if it is there: `config.json`, `dataset_statistics.json`.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        self.companions.iter().any(|companion| companion == name).then(|| self.dir.join(name))
    }

    /// Names of the files to be copied along with a model, sorted: config, tokenizer, statistics, code; no weights, no
    /// hidden files, no leftovers of training.
    pub fn companions(&self) -> impl ExactSizeIterator<Item = &str> {
        self.companions.iter().map(String::as_str)
    }
}

fn is_companion(name: &str) -> bool {
    const WEIGHTS: [&str; 11] = [
        ".safetensors",
        ".safetensors.index.json",
        ".bin",
        ".bin.index.json",
        ".pt",
        ".pth",
        ".ckpt",
        ".h5",
        ".msgpack",
        ".onnx",
        ".gguf",
    ];
    let leftover = name == "adapter_config.json" || name == "trainer_state.json";
    !(name.starts_with('.') || leftover || WEIGHTS.iter().any(|ending| name.ends_with(ending)))
}
