use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::StoreError;

/// Writes a small file so that it holds its old content or the new one, never a part: into a hidden sibling, synced and
/// renamed. For one writer at a time.
///
/// # Errors
/// [`StoreError::DiskFull`] or [`StoreError::Io`]; what was there is then untouched.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let written = write_synced(&partial, content)
        .and_then(|()| fs::rename(&partial, path).map_err(StoreError::io("replace", path)))
        .and_then(|()| sync_folder(path));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_synced(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let fail = || StoreError::write(path, content.len() as u64);
    let mut file = File::create(path).map_err(fail())?;
    file.write_all(content).map_err(fail())?;
    file.sync_all().map_err(fail())
}

/// The new name is on the disk when its folder is.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_content_stands_until_the_new_one_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        // A folder in the partial file's place: it cannot be written.
        fs::create_dir(folder.path().join(".state.json.partial")).unwrap();
        assert!(replace_file(&path, b"three").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"two");
    }
}
