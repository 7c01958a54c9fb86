//! One file of text as a command's output: complete under its name or not there at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

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
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = parent.join(format!(".{name}.partial-{}", std::process::id()));
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // Half a file is of no use to anybody.
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
