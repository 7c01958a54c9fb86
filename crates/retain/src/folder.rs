//! Folders that change as a whole: apart from what is read, locked while they change.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use skillweld_store::{StoreError, link_file};

use crate::RetainError;

/// A folder that is replaced must not hold what is read, nor become a part of it.
pub(crate) fn keep_apart(dir: &Path, policy: &Path) -> Result<(), RetainError> {
    let unfit = |problem: String| Err(RetainError::Unfit { path: policy.to_owned(), problem });
    let folder = match (dir.canonicalize(), dir.parent(), dir.file_name()) {
        (Ok(real), ..) => real,
        (Err(_), Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            parent.canonicalize().unwrap_or_else(|_| parent.to_owned()).join(name)
        }
        (Err(_), ..) => dir.to_owned(),
    };
    if policy.starts_with(&folder) {
        return unfit(format!(
            "lies inside {}, which is replaced as a whole; move it elsewhere",
            dir.display()
        ));
    }
    if folder.starts_with(policy) && policy.is_dir() {
        return unfit(format!(
            "would have {} inside it, as a part of that policy; name a folder elsewhere",
            dir.display()
        ));
    }
    Ok(())
}

/// Links every file of `from` into the new folder `to`.
pub(crate) fn link_tree(from: &Path, to: &Path) -> Result<(), RetainError> {
    fs::create_dir(to).map_err(StoreError::io("create", to))?;
    for entry in fs::read_dir(from).map_err(StoreError::io("read", from))? {
        let entry = entry.map_err(StoreError::io("read", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            link_tree(&path, &target)?;
        } else {
            link_file(&path, &target)?;
        }
    }
    Ok(())
}

/// Locks the folder of a state. When a state changes, another folder takes its place: one locked before is then no longer
/// the state.
pub(crate) fn lock(dir: &Path) -> Result<File, RetainError> {
    let busy = || RetainError::Busy { path: dir.to_owned() };
    let file = File::open(dir).map_err(StoreError::io("open", dir))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy()),
        // Without locks two processes at once are the user's affair.
        Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", dir)(error).into()),
    }
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let locked = file.metadata().map(place).map_err(StoreError::io("inspect", dir))?;
    let current = fs::metadata(dir).map(place).map_err(StoreError::io("inspect", dir))?;
    if locked == current { Ok(file) } else { Err(busy()) }
}
