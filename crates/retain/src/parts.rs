//! Action head and projectors back into files of their own, as training leaves and expects them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use skillweld_merged::ExpertPart;
use skillweld_merged::layout::stem;
use skillweld_store::{Checkpoint, StoreError, content_hash, write_torch_zip};
use skillweld_tensor::TensorView;

use crate::contents::hex;
use crate::{Contents, RetainError};

/// Turns `action_expert.safetensors` in `dir`, if there is one, into `<part>--retained_checkpoint.pt`; gives the hash of
/// each part.
///
/// # Errors
/// Whatever the file system refuses.
pub(crate) fn write(dir: &Path) -> Result<Contents, RetainError> {
    let index = dir.join(format!("{}.safetensors.index.json", stem::ACTION_EXPERT));
    let whole = dir.join(format!("{}.safetensors", stem::ACTION_EXPERT));
    let Some(path) = [&index, &whole].into_iter().find(|path| path.is_file()) else {
        return Ok(Contents::new());
    };
    let expert = Checkpoint::open(path)?;
    let mut parts: BTreeMap<ExpertPart, Vec<(&str, TensorView<'_>)>> = BTreeMap::new();
    for key in expert.keys() {
        let (part, name) = ExpertPart::of(key);
        parts.entry(part).or_default().extend(expert.get(key).map(|view| (name, view)));
    }
    let mut contents = Contents::new();
    for (part, tensors) in parts {
        write_torch_zip(&dir.join(format!("{}--retained_checkpoint.pt", part.name())), &tensors)?;
        let hashed = tensors
            .iter()
            .map(|(name, view)| (*name, view.dtype(), view.shape(), blake3::hash(view.bytes())));
        contents.insert(part.name().to_owned(), hex(content_hash(hashed)));
    }
    let mut files: Vec<PathBuf> = expert.files().map(Path::to_owned).collect();
    drop(expert);
    files.extend(Some(index).filter(|index| index.is_file()));
    for file in files {
        fs::remove_file(&file).map_err(StoreError::io("remove", &file))?;
    }
    Ok(contents)
}
