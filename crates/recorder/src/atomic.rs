//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::RecorderError;

/// A file written beside its place, in which it comes by [`commit`](Self::commit); dropped before that, it goes again.
pub(crate) struct Pending {
    partial: PathBuf,
    path: PathBuf,
}

/// The name under which `path` is written; no reader of the format looks at it.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

/// Makes a folder and those above it; what is new is on the disk when this returns.
pub(crate) fn make_folder(folder: &Path) -> Result<(), RecorderError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !is_there(folder)).collect();
    for folder in missing.into_iter().rev() {
        match fs::create_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            made => made.map_err(RecorderError::io("make", folder))?,
        }
        sync(folder.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

/// The folder above a bare name is this one.
fn is_there(folder: &Path) -> bool {
    folder.as_os_str().is_empty() || folder.is_dir()
}

/// The names in a folder are on the disk when this returns.
fn sync(folder: &Path) -> Result<(), RecorderError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|file| file.sync_all()).map_err(RecorderError::io("sync", folder))
}

impl Pending {
    /// Makes folders as needed, and the file, which can also be read. Whoever writes to it calls `sync_all` in the end.
    pub(crate) fn create(path: &Path) -> Result<(Self, File), RecorderError> {
        let partial = partial(path);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let open = File::options().read(true).write(true).create(true).truncate(true).open(&partial);
        let file = open.map_err(RecorderError::io("create", &partial))?;
        Ok((Self { partial, path: path.to_owned() }, file))
    }

    /// A small file at once, synced.
    pub(crate) fn write(path: &Path, content: &[u8]) -> Result<Self, RecorderError> {
        let (pending, mut file) = Self::create(path)?;
        file.write_all(content).and_then(|()| file.sync_all()).map_err(RecorderError::io("write", path))?;
        Ok(pending)
    }

    /// Puts the file in its place; what was there under the name is gone. It is on the disk when this returns.
    pub(crate) fn commit(self) -> Result<(), RecorderError> {
        fs::rename(&self.partial, &self.path).map_err(RecorderError::io("replace", &self.path))?;
        self.path.parent().map_or(Ok(()), sync)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // After a commit there is nothing of this name.
        let _ = fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_content_stands_until_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta/info.json");
        Pending::write(&path, b"one").unwrap().commit().unwrap();
        let second = Pending::write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(second);
        assert!(!partial(&path).exists());
        Pending::write(&path, b"three").unwrap().commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert!(!partial(&path).exists());
    }
}
