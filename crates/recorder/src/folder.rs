//! What lies in a dataset's folder: whether it may be recorded into, and what an interrupted recording has left there.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::episode_file::{self, EpisodeRow};
use crate::info::Info;
use crate::layout::{self, FileNumber};
use crate::{RecorderError, atomic, journal};

/// Held as long as the file is open.
pub(crate) fn lock(folder: &Path) -> Result<File, RecorderError> {
    let file = File::open(folder).map_err(RecorderError::io("open", folder))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RecorderError::Busy(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(RecorderError::io("lock", folder)(error)),
    }
}

/// Whether a dataset may begin in a folder: nothing lies there but what an interrupted
/// [`create`](crate::Recorder::create) leaves.
///
/// # Errors
/// What the disk says.
pub fn is_free(folder: &Path) -> Result<bool, RecorderError> {
    let names = |folder: &Path| -> Result<Vec<String>, RecorderError> {
        let entries = fs::read_dir(folder).map_err(RecorderError::io("list", folder))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect())
    };
    for name in names(folder)? {
        let fine = match name.as_str() {
            "meta" => names(&folder.join("meta"))?
                .iter()
                .all(|name| name == "tasks.parquet" || name.ends_with(".partial")),
            _ => false,
        };
        if !fine {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what a recording leaves that ends without notice, and says what it was: images of the open episode, files that
/// were not complete, and those of an episode that `info.json` does not count, which are the next in turn.
pub(crate) fn remove_leftovers(
    folder: &Path,
    (data, episodes): (FileNumber, FileNumber),
) -> Result<Vec<PathBuf>, RecorderError> {
    let mut removed = journal::remove_tracks(&layout::recording(folder))?;
    let (data, episodes) = (layout::data(folder, data), layout::episodes(folder, episodes));
    let finals =
        [layout::info(folder), layout::stats(folder), layout::tasks(folder), data.clone(), episodes.clone()];
    let partials = finals.iter().map(|path| atomic::partial(path));
    for path in partials.chain([episodes, data]) {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(RecorderError::io("remove", &path)(error)),
        }
    }
    Ok(removed)
}

/// Where the episode after the last counted one of `rows` has its files: frames, and metadata.
pub(crate) fn next_files<'a>(
    info: &Info,
    rows: impl Iterator<Item = &'a EpisodeRow>,
) -> (FileNumber, FileNumber) {
    let last = rows.filter(|row| row.index < info.total_episodes).max_by_key(|row| row.index);
    let after = |number: Option<FileNumber>| number.map_or(FileNumber::FIRST, |n| n.next(info.chunks_size));
    (after(last.map(|row| row.data)), after(last.map(|row| row.file)))
}

/// The files that an episode has which is just being saved, or was not saved to the end.
pub(crate) fn uncounted(folder: &Path, info: &Info) -> Result<(PathBuf, PathBuf), RecorderError> {
    let rows = episode_file::read_all(folder, false)?;
    let (data, episodes) = next_files(info, rows.iter().map(|(row, _)| row));
    Ok((layout::data(folder, data), layout::episodes(folder, episodes)))
}

/// Rows are those of episodes 0, 1, 2, … and as many as `info.json` counts.
pub(crate) fn check_rows<'a>(
    folder: &Path,
    info: &Info,
    rows: impl Iterator<Item = &'a EpisodeRow>,
) -> Result<(), RecorderError> {
    let damaged = |problem: String| Err(RecorderError::damaged(&layout::episodes_folder(folder), problem));
    let (mut count, mut frames) = (0, 0);
    for row in rows {
        if row.index != count || row.begin != frames {
            return damaged(format!(
                "episode {} from frame {} stands where episode {count} from frame {frames} should: restore the folder",
                row.index, row.begin
            ));
        }
        count += 1;
        frames += row.frames;
    }
    if (count, frames) != (info.total_episodes, info.total_frames) {
        return damaged(format!(
            "has {count} episodes with {frames} frames, meta/info.json counts {} with {}: restore the missing files",
            info.total_episodes, info.total_frames
        ));
    }
    Ok(())
}
