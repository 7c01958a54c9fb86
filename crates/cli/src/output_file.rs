//! One file as a command's output: complete under its name or not there at all.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use skillweld_store::replace_file;

/// Refuses a `path` that [`write()`] would refuse: before the work, not after it.
pub(crate) fn check(path: &Path, ending: &str, force: bool) -> Result<()> {
    let named = path.extension().is_some_and(|found| found == ending);
    ensure!(named, "{} must be named OUT.{ending}", path.display());
    ensure!(!path.is_dir(), "{} is a directory; name a file in it", path.display());
    ensure!(
        force || !path.exists(),
        "{} already exists; choose another name, or pass --force to replace it",
        path.display()
    );
    Ok(())
}

/// Writes `path`; folders above it that are missing are made. What is there already is replaced in one step.
pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    Ok(replace_file(path, bytes.as_ref())?)
}

/// Refuses a folder in which nothing can be made, and one that cannot be made itself: before the work, not after it. Nothing is
/// left there.
pub(crate) fn check_folder(folder: &Path) -> Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    ensure!(there.is_dir(), "{} is a file; name another folder", there.display());
    let probe = there.join(format!(".skillweld-{}", std::process::id()));
    let made = fs::File::create_new(&probe).and_then(|_| fs::remove_file(&probe));
    made.with_context(|| format!("nothing can be written in {}; name another folder", there.display()))
}
