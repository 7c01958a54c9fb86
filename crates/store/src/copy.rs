use std::fs::{self, File};
use std::path::Path;

use crate::StoreError;

/// How a file that is taken over unchanged gets into the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyMode {
    /// Independent bytes; shared copy-on-write blocks where the file system offers them (reflink).
    #[default]
    Copy,
    /// A hard link: no bytes are copied, and both names stay one file. Same file system only.
    Link,
}

/// Copies or links `from` to the new file `to`.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`], also when `to` exists.
pub fn copy_file(from: &Path, to: &Path, mode: CopyMode) -> Result<(), StoreError> {
    if mode == CopyMode::Link {
        // Resolve symbolic links first (the Hugging Face cache is made of them): the link must be to the data.
        let real = fs::canonicalize(from).map_err(StoreError::io("find", from))?;
        return fs::hard_link(real, to).map_err(StoreError::io("link", to));
    }
    let mut source = File::open(from).map_err(StoreError::io("open", from))?;
    let len_bytes = source.metadata().map_err(StoreError::io("inspect", from))?.len();
    let mut target = File::create_new(to).map_err(StoreError::io("create", to))?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        // `io::copy` between files is copy_file_range in the kernel where that works.
        std::io::copy(&mut source, &mut target).map_err(StoreError::write(to, len_bytes))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn copies_are_independent_and_links_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), b"weights").unwrap();
        std::os::unix::fs::symlink(at("a"), at("alias")).unwrap();
        copy_file(&at("alias"), &at("copy"), CopyMode::Copy).unwrap();
        copy_file(&at("alias"), &at("link"), CopyMode::Link).unwrap();
        fs::write(at("a"), b"changed").unwrap();
        assert_eq!(fs::read(at("copy")).unwrap(), b"weights");
        assert_eq!(fs::metadata(at("link")).unwrap().ino(), fs::metadata(at("a")).unwrap().ino());
        assert!(!fs::symlink_metadata(at("link")).unwrap().is_symlink());
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), b"new").unwrap();
        fs::write(dir.path().join("b"), b"old").unwrap();
        let error = copy_file(&dir.path().join("a"), &dir.path().join("b"), CopyMode::Copy).unwrap_err();
        assert!(error.to_string().starts_with("cannot create"), "{error}");
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"old");
    }
}
