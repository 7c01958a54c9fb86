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

/// Where an episode's files lie that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextFiles {
    pub(crate) data: FileNumber,
    pub(crate) episodes: FileNumber,
    /// With the names of their features.
    pub(crate) videos: Vec<(String, FileNumber)>,
}

impl NextFiles {
    /// After the last counted one of `rows`.
    pub(crate) fn after<'a>(info: &Info, rows: impl Iterator<Item = &'a EpisodeRow>) -> Self {
        let last = rows.filter(|row| row.index < info.total_episodes).max_by_key(|row| row.index);
        let after =
            |number: Option<FileNumber>| number.map_or(FileNumber::FIRST, |n| n.next(info.chunks_size));
        let video = |key: &String| {
            let part = last.and_then(|row| row.videos.iter().find(|video| video.key == *key));
            (key.clone(), after(part.map(|video| video.file)))
        };
        Self {
            data: after(last.map(|row| row.data)),
            episodes: after(last.map(|row| row.file)),
            videos: info.videos().map(video).collect(),
        }
    }

    /// After these.
    pub(crate) fn advance(&mut self, chunks_size: usize) {
        let videos = self.videos.iter_mut().map(|(_, number)| number);
        for number in videos.chain([&mut self.data, &mut self.episodes]) {
            *number = number.next(chunks_size);
        }
    }

    /// In the order in which they go: what says that there is an episode first.
    pub(crate) fn paths(&self, folder: &Path) -> Vec<PathBuf> {
        let videos = self.videos.iter().map(|(key, number)| layout::video(folder, key, *number));
        [layout::episodes(folder, self.episodes), layout::data(folder, self.data)]
            .into_iter()
            .chain(videos)
            .collect()
    }
}

/// Removes what a recording leaves that ends without notice, and says what it was: images of the open episode, files that
/// were not complete, and those of an episode that `info.json` does not count, which are the next in turn.
pub(crate) fn remove_leftovers(folder: &Path, next: &NextFiles) -> Result<Vec<PathBuf>, RecorderError> {
    let mut removed = journal::remove_tracks(&layout::recording(folder))?;
    for path in leftovers(folder, next) {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(RecorderError::io("remove", &path)(error)),
        }
    }
    Ok(removed)
}

/// What an interrupted save of the episode `next` may have left, beside the images in the recording folder.
fn leftovers(folder: &Path, next: &NextFiles) -> Vec<PathBuf> {
    let finals = next.paths(folder);
    let meta = [layout::info(folder), layout::stats(folder), layout::tasks(folder)];
    let partials: Vec<_> = meta.iter().chain(&finals).map(|path| atomic::partial(path)).collect();
    partials.into_iter().chain(finals).collect()
}

/// The files of an episode which is just being saved, or was not saved to the end; they need not be there.
pub(crate) fn uncounted(folder: &Path, info: &Info) -> Result<Vec<PathBuf>, RecorderError> {
    let rows = episode_file::read_all(folder, false)?;
    Ok(leftovers(folder, &NextFiles::after(info, rows.iter().map(|(row, _)| row))))
}

/// Rows are those of episodes 0, 1, 2, … and as many as `info.json` counts, and say where each video lies.
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
        if let Some(key) = info.videos().find(|key| !row.videos.iter().any(|video| video.key == **key)) {
            return damaged(format!("does not say where {key} of episode {count} lies: restore the folder"));
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
