//! Where the files of a dataset lie.

use std::path::{Path, PathBuf};

/// As it stands in `info.json`.
pub(crate) const DATA_PATH: &str = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet";

/// As it stands in `info.json` of a dataset with videos.
pub(crate) const VIDEO_PATH: &str = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4";

/// The number of a data, episodes or video file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileNumber {
    pub(crate) chunk: usize,
    pub(crate) file: usize,
}

impl FileNumber {
    pub(crate) const FIRST: Self = Self { chunk: 0, file: 0 };

    pub(crate) fn next(self, chunks_size: usize) -> Self {
        if self.file + 1 >= chunks_size {
            Self { chunk: self.chunk + 1, file: 0 }
        } else {
            Self { file: self.file + 1, ..self }
        }
    }

    fn below(self, folder: &Path, kind: &str) -> PathBuf {
        folder.join(format!("chunk-{:03}", self.chunk)).join(format!("file-{:03}.{kind}", self.file))
    }
}

pub(crate) fn info(folder: &Path) -> PathBuf {
    folder.join("meta/info.json")
}

pub(crate) fn stats(folder: &Path) -> PathBuf {
    folder.join("meta/stats.json")
}

pub(crate) fn tasks(folder: &Path) -> PathBuf {
    folder.join("meta/tasks.parquet")
}

pub(crate) fn episodes_folder(folder: &Path) -> PathBuf {
    folder.join("meta/episodes")
}

pub(crate) fn episodes(folder: &Path, number: FileNumber) -> PathBuf {
    number.below(&episodes_folder(folder), "parquet")
}

pub(crate) fn data(folder: &Path, number: FileNumber) -> PathBuf {
    number.below(&folder.join("data"), "parquet")
}

/// `key` is the feature's name.
pub(crate) fn video(folder: &Path, key: &str, number: FileNumber) -> PathBuf {
    number.below(&folder.join("videos").join(key), "mp4")
}

/// Where the open episode's images wait: no reader of the format looks there. The lock is on the dataset's folder itself.
pub(crate) fn recording(folder: &Path) -> PathBuf {
    folder.join(".recording")
}
