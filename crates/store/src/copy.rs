use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::StoreError;

/// What [`link_file`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A hard link: both names are the same file, which stays until both are removed.
    Hard,
    /// A symbolic link: it leads nowhere once the file is moved or removed.
    Symbolic,
}

/// Copies `from` to the new file `to`: independent bytes, on shared copy-on-write blocks where the file system offers
/// them.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`], also when `to` exists.
pub fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    if reflink_file(from, to)? {
        return Ok(());
    }
    let mut source = File::open(from).map_err(StoreError::io("open", from))?;
    let len_bytes = source.metadata().map_err(StoreError::io("inspect", from))?.len();
    let mut target = File::create_new(to).map_err(StoreError::io("create", to))?;
    // `io::copy` between files is copy_file_range in the kernel where that works.
    io::copy(&mut source, &mut target).map_err(StoreError::write(to, len_bytes))?;
    Ok(())
}

/// Makes the new file `to` of the blocks of `from`, shared until one of them is written to (a reflink). False, with
/// nothing left behind, where the file system cannot: most can do so only within themselves, many not at all.
///
/// # Errors
/// [`StoreError::Io`], also when `to` exists.
pub fn reflink_file(from: &Path, to: &Path) -> Result<bool, StoreError> {
    let source = File::open(from).map_err(StoreError::io("open", from))?;
    let target = File::create_new(to).map_err(StoreError::io("create", to))?;
    let shared = rustix::fs::ioctl_ficlone(&target, &source).is_ok();
    if !shared {
        fs::remove_file(to).map_err(StoreError::io("remove", to))?;
    }
    Ok(shared)
}

/// Gives the file `from` the new name `to` as well, without copying: a hard link, or a symbolic one where there can be
/// no hard link (another file system, a file of another user).
///
/// # Errors
/// [`StoreError::Io`], also when `to` exists.
pub fn link_file(from: &Path, to: &Path) -> Result<Link, StoreError> {
    // Resolve symbolic links first (the Hugging Face cache is made of them): the link must be to the data.
    let real = fs::canonicalize(from).map_err(StoreError::io("find", from))?;
    match fs::hard_link(&real, to) {
        Ok(()) => Ok(Link::Hard),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StoreError::io("link", to)(error)),
        Err(_) => {
            std::os::unix::fs::symlink(real, to).map_err(StoreError::io("link", to))?;
            Ok(Link::Symbolic)
        }
    }
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
        copy_file(&at("alias"), &at("copy")).unwrap();
        assert_eq!(link_file(&at("alias"), &at("link")).unwrap(), Link::Hard);
        if reflink_file(&at("alias"), &at("reflink")).unwrap() {
            assert_eq!(fs::read(at("reflink")).unwrap(), b"weights");
            assert_ne!(fs::metadata(at("reflink")).unwrap().ino(), fs::metadata(at("a")).unwrap().ino());
        } else {
            assert!(!at("reflink").exists());
        }
        fs::write(at("a"), b"changed").unwrap();
        assert_eq!(fs::read(at("copy")).unwrap(), b"weights");
        assert_eq!(fs::metadata(at("link")).unwrap().ino(), fs::metadata(at("a")).unwrap().ino());
        assert!(!fs::symlink_metadata(at("link")).unwrap().is_symlink());
    }

    #[test]
    fn what_cannot_be_linked_hard_is_linked_symbolically() {
        let dir = tempfile::tempdir().unwrap();
        // A file system of the kernel: nothing else can be on it.
        let (elsewhere, link) = (Path::new("/proc/version"), dir.path().join("link"));
        assert_eq!(link_file(elsewhere, &link).unwrap(), Link::Symbolic);
        assert_eq!(fs::read_link(link).unwrap(), elsewhere);
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&new, b"new").unwrap();
        fs::write(&old, b"old").unwrap();
        let refused = |result: Result<(), StoreError>| result.unwrap_err().to_string();
        assert!(refused(copy_file(&new, &old)).starts_with("cannot create"));
        assert!(refused(reflink_file(&new, &old).map(drop)).starts_with("cannot create"));
        assert!(refused(link_file(&new, &old).map(drop)).starts_with("cannot link"));
        assert_eq!(fs::read(old).unwrap(), b"old");
    }
}
