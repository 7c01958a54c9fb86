//! One safetensors file as a command's output: complete under its name or not there at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use skillweld_store::{SafetensorsWriter, TensorSpec};
use skillweld_tensor::Dtype;

/// A tensor to be written.
pub(crate) struct Tensor<'a> {
    pub(crate) name: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    /// Little-endian, row-major.
    pub(crate) bytes: &'a [u8],
}

/// Refuses a `path` that [`write()`] would refuse: before the work, not after it.
pub(crate) fn check(path: &Path, force: bool) -> Result<()> {
    ensure!(stem(path).is_some(), "{} must be named OUT.safetensors", path.display());
    ensure!(!path.is_dir(), "{} is a directory; name a file in it", path.display());
    ensure!(
        force || !path.exists(),
        "{} already exists; choose another name, or pass --force to replace it",
        path.display()
    );
    Ok(())
}

/// The name without its end; none where that is not `.safetensors`.
fn stem(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_suffix(".safetensors").filter(|stem| !stem.is_empty())
}

/// Writes `path`, whose name must end in `.safetensors`; folders above it that are missing are made. A file that is there
/// already is refused, or with `force` replaced in one step.
pub(crate) fn write(path: &Path, tensors: &[Tensor<'_>], force: bool) -> Result<()> {
    check(path, force)?;
    let stem = stem(path).unwrap_or_default();
    let name = format!("{stem}.safetensors");
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // Written in a folder of its own beside the output, then moved: nobody sees half a file.
    let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
    fs::create_dir(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let written = write_into(&partial, stem, tensors).and_then(|()| {
        fs::rename(partial.join(&name), path).with_context(|| format!("cannot write {}", path.display()))
    });
    // Empty by now, or useless.
    let _ = fs::remove_dir_all(&partial);
    written
}

fn write_into(dir: &Path, stem: &str, tensors: &[Tensor<'_>]) -> Result<()> {
    let layout = tensors.iter().map(|tensor| TensorSpec {
        name: tensor.name.to_owned(),
        dtype: tensor.dtype,
        shape: tensor.shape.to_vec(),
    });
    let writer = SafetensorsWriter::create(dir, stem, layout.collect(), &BTreeMap::new(), None)?;
    for (index, tensor) in tensors.iter().enumerate() {
        writer.write_at(index, 0, tensor.bytes)?;
    }
    writer.finish()?;
    Ok(())
}
