use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::StoreError;

/// A directory that appears under its final name complete or not at all.
///
/// Everything is written into a hidden sibling, `.<name>.partial-<pid>-<n>`; [`OutputDir::commit`] syncs it and renames
/// it. Killed at any instant, either the old output or the new one stands under the final name. Dropping without
/// a commit removes the sibling; what a killed process left behind is removed by the next [`OutputDir::create`] of the
/// same output (a lock held by its owner tells the living from the dead).
#[derive(Debug)]
pub struct OutputDir {
    final_path: PathBuf,
    partial: PathBuf,
    /// Locked for as long as this process works in `partial`.
    _lock: File,
    replace: bool,
    /// Folders above the output that were missing, innermost first.
    made: Vec<PathBuf>,
}

impl OutputDir {
    /// Prepares to write the directory `final_path`. An existing one is refused, unless it is empty or `force` is set;
    /// then it is replaced, but only by [`OutputDir::commit`]. Missing directories above it are made, as `git clone` does,
    /// and removed again if nothing comes into them.
    ///
    /// # Errors
    /// [`StoreError::OutputExists`], [`StoreError::BadOutput`] for a file or a path without a name, [`StoreError::Io`].
    pub fn create(final_path: &Path, force: bool) -> Result<Self, StoreError> {
        let (final_path, replace) = Self::check(final_path, force)?;
        let name = final_path.file_name().unwrap_or_default();
        let parent = match final_path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let missing = parent.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let made = missing.map(Path::to_owned).collect();
        fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
        let prefix = concat(&[OsStr::new("."), name, OsStr::new(".partial-")]);
        remove_stale(parent, &prefix);
        let (partial, lock) = create_locked(parent, &prefix)?;
        Ok(Self { final_path, partial, _lock: lock, replace, made })
    }

    /// Refuses what [`OutputDir::create`] would refuse, and makes nothing. Gives the directory behind a symbolic link, so
    /// that it is replaced and not the link, and whether there is something to replace.
    ///
    /// # Errors
    /// [`StoreError::OutputExists`], [`StoreError::BadOutput`] for a file or a path without a name, [`StoreError::Io`].
    pub fn check(final_path: &Path, force: bool) -> Result<(PathBuf, bool), StoreError> {
        let final_path = fs::canonicalize(final_path).unwrap_or_else(|_| final_path.to_owned());
        let bad = |reason| StoreError::BadOutput { path: final_path.clone(), reason };
        if final_path.file_name().is_none() {
            return Err(bad("it has no name of its own"));
        }
        let replace = match fs::read_dir(&final_path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Err(bad("it is a file")),
            Err(error) => return Err(StoreError::io("read", &final_path)(error)),
        };
        if replace && !force {
            return Err(StoreError::OutputExists { path: final_path });
        }
        Ok((final_path, replace))
    }

    /// Where to write until the commit.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Where the output will stand.
    pub fn final_path(&self) -> &Path {
        &self.final_path
    }

    /// Syncs every file and directory, then puts the output under its final name in one step.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the old output, if any, is then untouched. [`StoreError::OutputExists`] when something has
    /// appeared under the final name since [`OutputDir::create`].
    pub fn commit(self) -> Result<PathBuf, StoreError> {
        sync_tree(&self.partial)?;
        self.put_in_place()?;
        let parent = self.partial.parent().unwrap_or(Path::new("."));
        sync(parent)?;
        for dir in &self.made {
            let holder = dir.parent().filter(|holder| !holder.as_os_str().is_empty());
            sync(holder.unwrap_or(Path::new(".")))?;
        }
        // Drop now removes whatever lies under the partial name: nothing, or the old output.
        Ok(self.final_path.clone())
    }

    /// As [`commit`](Self::commit), for an output that will soon be removed: nothing waits for the disk, and a loss of
    /// power may take any part of it.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_unsynced(self) -> Result<PathBuf, StoreError> {
        self.put_in_place()?;
        Ok(self.final_path.clone())
    }

    fn put_in_place(&self) -> Result<(), StoreError> {
        if self.replace { self.exchange() } else { self.rename() }
    }

    fn rename(&self) -> Result<(), StoreError> {
        match fs::rename(&self.partial, &self.final_path) {
            // A directory takes the place of an empty one only, so nothing can be lost here.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(StoreError::OutputExists { path: self.final_path.clone() })
            }
            other => other.map_err(StoreError::io("rename the finished output to", &self.final_path)),
        }
    }

    fn exchange(&self) -> Result<(), StoreError> {
        let fail = StoreError::io::<io::Error>;
        match renameat_with(CWD, &self.partial, CWD, &self.final_path, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(()),
            // The old output was removed meanwhile.
            Err(Errno::NOENT) => return self.rename(),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(fail("replace", &self.final_path)(error.into())),
        }
        // No exchange on this file system: for an instant the old output stands aside, complete, as
        // `.<name>.previous`, which nothing cleans up.
        let aside = self.partial.with_extension("previous");
        fs::rename(&self.final_path, &aside).map_err(fail("set aside", &self.final_path))?;
        if let Err(error) = self.rename() {
            fs::rename(&aside, &self.final_path).map_err(fail("restore", &self.final_path))?;
            return Err(error);
        }
        fs::remove_dir_all(&aside).map_err(fail("remove", &aside))
    }
}

impl Drop for OutputDir {
    fn drop(&mut self) {
        // Nothing to tell anyone: what cannot be removed now is removed by the next `create`.
        let _ = fs::remove_dir_all(&self.partial);
        for dir in &self.made {
            // Fails where something lies in it: the output.
            let _ = fs::remove_dir(dir);
        }
    }
}

fn concat(parts: &[&OsStr]) -> OsString {
    parts.iter().fold(OsString::new(), |mut name, part| {
        name.push(part);
        name
    })
}

/// Makes a new directory and locks it. The lock dies with the process, unlike a file that names its pid.
fn create_locked(parent: &Path, prefix: &OsStr) -> Result<(PathBuf, File), StoreError> {
    let mut attempt = 0u32;
    loop {
        let suffix = format!("{}-{attempt}", std::process::id());
        let path = parent.join(concat(&[prefix, OsStr::new(&suffix)]));
        attempt += 1;
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other.map_err(StoreError::io("create", &path))?,
        }
        let lock = File::open(&path).map_err(StoreError::io("open", &path))?;
        // Between creation and lock another process may have taken it for stale and removed it: then try again.
        let held = !matches!(flock(&lock, FlockOperation::NonBlockingLockExclusive), Err(Errno::WOULDBLOCK));
        if held && path.is_dir() {
            return Ok((path, lock));
        }
    }
}

/// Removes partial outputs whose owner is dead. Failures only leave them for next time.
fn remove_stale(parent: &Path, prefix: &OsStr) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            continue;
        }
        let Ok(dir) = File::open(entry.path()) else { continue };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::write(path, 0))
}

/// Syncs files first, then the directories that name them.
fn sync_tree(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("read", dir))? {
        let entry = entry.map_err(StoreError::io("read", dir))?;
        let kind = entry.file_type().map_err(StoreError::io("inspect", &entry.path()))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            sync(&entry.path())?;
        }
    }
    sync(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn appears_only_at_commit() {
        let root = tempfile::tempdir().unwrap();
        let out = OutputDir::create(&root.path().join("a/merged"), false).unwrap();
        fs::create_dir(out.path().join("sub")).unwrap();
        fs::write(out.path().join("sub/file"), b"new").unwrap();
        assert!(!root.path().join("a/merged").exists());
        let path = out.commit().unwrap();
        assert_eq!(fs::read(path.join("sub/file")).unwrap(), b"new");
        assert_eq!(names(&root.path().join("a")), ["merged"]);
    }

    #[test]
    fn dropped_without_commit_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let out = OutputDir::create(&root.path().join("merged"), false).unwrap();
        fs::write(out.path().join("file"), b"half").unwrap();
        drop(out);
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[test]
    fn folders_made_above_the_output_go_unless_something_is_in_them() {
        let root = tempfile::tempdir().unwrap();
        let out = OutputDir::create(&root.path().join("a/b/merged"), false).unwrap();
        assert!(root.path().join("a/b").is_dir());
        drop(out);
        assert_eq!(names(root.path()), [""; 0]);
        let out = OutputDir::create(&root.path().join("a/b/merged"), false).unwrap();
        fs::write(root.path().join("a/mine"), b"precious").unwrap();
        drop(out);
        assert_eq!(names(&root.path().join("a")), ["mine"]);
        OutputDir::create(&root.path().join("a/b/merged"), false).unwrap().commit().unwrap();
        assert_eq!(names(&root.path().join("a")), ["b", "mine"]);
    }

    #[test]
    fn existing_output_is_refused_unless_forced_and_stands_until_commit() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("merged");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("file"), b"old").unwrap();
        assert!(matches!(OutputDir::create(&path, false), Err(StoreError::OutputExists { .. })));

        let abandoned = OutputDir::create(&path, true).unwrap();
        drop(abandoned);
        assert_eq!(fs::read(path.join("file")).unwrap(), b"old");

        let out = OutputDir::create(&path, true).unwrap();
        fs::write(out.path().join("other"), b"new").unwrap();
        assert_eq!(fs::read(path.join("file")).unwrap(), b"old");
        out.commit().unwrap();
        assert_eq!(names(&path), ["other"]);
        assert_eq!(names(root.path()), ["merged"]);
    }

    #[test]
    fn a_rival_that_finished_first_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("merged");
        let (one, two) = (OutputDir::create(&path, false).unwrap(), OutputDir::create(&path, false).unwrap());
        fs::write(one.path().join("file"), b"one").unwrap();
        fs::write(two.path().join("file"), b"two").unwrap();
        one.commit().unwrap();
        assert!(matches!(two.commit(), Err(StoreError::OutputExists { .. })));
        assert_eq!(fs::read(path.join("file")).unwrap(), b"one");
    }

    #[test]
    fn leavings_of_the_dead_are_removed_and_those_of_the_living_kept() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("merged");
        fs::create_dir(root.path().join(".merged.partial-1-0")).unwrap();
        fs::write(root.path().join(".merged.partial-1-0/file"), b"half").unwrap();
        fs::create_dir(root.path().join(".merged2.partial-1-0")).unwrap();
        let living = OutputDir::create(&path, false).unwrap();
        let second = OutputDir::create(&path, false).unwrap();
        assert!(living.path().is_dir() && second.path().is_dir());
        assert!(!root.path().join(".merged.partial-1-0").exists());
        assert!(root.path().join(".merged2.partial-1-0").exists(), "another output's");
    }

    #[test]
    fn a_file_is_never_replaced_by_a_directory() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("merged"), b"precious").unwrap();
        assert!(matches!(
            OutputDir::create(&root.path().join("merged"), true),
            Err(StoreError::BadOutput { .. })
        ));
    }

    #[test]
    fn a_symbolic_link_keeps_pointing_at_the_output() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        std::os::unix::fs::symlink(root.path().join("real"), root.path().join("link")).unwrap();
        let out = OutputDir::create(&root.path().join("link"), false).unwrap();
        fs::write(out.path().join("file"), b"new").unwrap();
        out.commit().unwrap();
        assert_eq!(fs::read(root.path().join("real/file")).unwrap(), b"new");
        assert!(fs::symlink_metadata(root.path().join("link")).unwrap().is_symlink());
    }
}
