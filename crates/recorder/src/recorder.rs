use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::atomic::{Pending, make_folder};
#[cfg(feature = "mp4")]
use crate::encoder;
use crate::episode::{self, NewFrame, OpenEpisode, Place};
use crate::episode_file::{self, EpisodeRow, VideoPart};
use crate::folder::{self, NextFiles};
use crate::info::Info;
#[cfg(feature = "mp4")]
use crate::journal::Track;
use crate::spec::Spec;
use crate::statistics::{self, FeatureStatistics};
use crate::{RecorderError, data_file, journal, layout, task_file};

/// Frames that may wait to be encoded: two seconds at 30 a second, about 120 MB with two cameras of 640 × 480.
const QUEUE_FRAMES: usize = 64;
/// Bytes of images that may wait, where that is less: 21 frames of two cameras of 1920 × 1080. One frame may always.
const QUEUE_BYTES: usize = 256 << 20;

const NOT_OPEN: RecorderError = RecorderError::State("no episode is open: start one first");

/// Records episodes into a dataset.
///
/// An episode is open from [`start_episode`](Self::start_episode) to [`save_episode`](Self::save_episode) or
/// [`discard_episode`](Self::discard_episode). A saved episode is on the disk; if the program or the machine dies, at most
/// the open one is lost. Each has files of its own, which come into their places complete, and `meta/info.json` counts it
/// last: what is not counted there is removed when the dataset is resumed.
pub struct Recorder {
    folder: PathBuf,
    spec: Spec,
    info: Info,
    tasks: Vec<String>,
    statistics: FeatureStatistics,
    next: NextFiles,
    open: Option<OpenEpisode>,
    leftovers: Vec<PathBuf>,
    /// The folder, locked against other recorders.
    _lock: File,
}

/// What has been saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// The episode's number, from 0.
    pub episode: usize,
    /// Its frames.
    pub frames: usize,
    /// Frames that [`RecorderError::Behind`] kept out of it.
    pub refused: usize,
}

/// What a dataset has when its recorder ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Saved episodes, all in all.
    pub episodes: usize,
    /// Their frames.
    pub frames: usize,
    /// Frames of an episode that was open and has been discarded.
    pub discarded: usize,
}

impl Recorder {
    /// Begins a dataset in a folder that is not there yet, or empty. ffmpeg, which makes the videos of [`Spec::video`], is not looked
    /// for before the first episode is saved: [`Spec::check`] does.
    ///
    /// # Errors
    /// [`RecorderError::Spec`], [`RecorderError::NotEmpty`], [`RecorderError::Busy`], or what the disk says.
    pub fn create(path: &Path, spec: Spec) -> Result<Self, RecorderError> {
        spec.validate()?;
        make_folder(path)?;
        let lock = folder::lock(path)?;
        if !folder::is_free(path)? {
            return Err(RecorderError::NotEmpty(path.to_owned()));
        }
        let info = Info::new(&spec);
        let tasks = spec.tasks.clone();
        if !tasks.is_empty() {
            task_file::write(&layout::tasks(path), &tasks)?.commit()?;
        }
        Pending::write(&layout::info(path), &info.to_json()?)?.commit()?;
        let next = NextFiles::after(&info, std::iter::empty());
        Ok(Self {
            folder: path.to_owned(),
            spec,
            info,
            tasks,
            statistics: FeatureStatistics::new(),
            next,
            open: None,
            leftovers: Vec::new(),
            _lock: lock,
        })
    }

    /// Goes on with a dataset: new episodes follow on those that are there. What an interrupted recording has left of an
    /// episode that was not saved is removed; [`leftovers`](Self::leftovers) says what it was.
    ///
    /// # Errors
    /// [`RecorderError::Differs`] when features or frame rate are not those of `spec`, [`RecorderError::Damaged`] when the
    /// dataset is at odds with itself, [`RecorderError::Busy`], or what the disk says.
    pub fn resume(path: &Path, spec: Spec) -> Result<Self, RecorderError> {
        spec.validate()?;
        let info = Info::read(path)?;
        info.same_kind(&spec)?;
        let lock = folder::lock(path)?;
        // Read again: whoever had the lock may have saved meanwhile.
        let info = Info::read(path)?;
        let mut tasks = if info.total_tasks > 0 || layout::tasks(path).exists() {
            task_file::read(&layout::tasks(path))?
        } else {
            Vec::new()
        };
        let mut rows = episode_file::read_all(path, true)?;
        let next = NextFiles::after(&info, rows.iter().map(|(row, _)| row));
        // An interrupted save leaves one row that is not counted. More than that is no accident of ours, and stays.
        rows.retain(|(row, _)| (row.index, row.file) != (info.total_episodes, next.episodes));
        folder::check_rows(path, &info, rows.iter().map(|(row, _)| row))?;
        let leftovers = folder::remove_leftovers(path, &next)?;
        let mut statistics = FeatureStatistics::new();
        for (_, episode) in &rows {
            statistics::add(&mut statistics, episode);
        }
        if !leftovers.is_empty() && !rows.is_empty() {
            // They may count the episode that was not saved.
            Pending::write(&layout::stats(path), &statistics::to_json(&statistics))?.commit()?;
        }
        let known = tasks.clone();
        tasks.extend(spec.tasks.iter().filter(|task| !known.contains(task)).cloned());
        Ok(Self {
            folder: path.to_owned(),
            spec,
            info,
            tasks,
            statistics,
            next,
            open: None,
            leftovers,
            _lock: lock,
        })
    }

    /// Episodes that are saved.
    pub fn episodes(&self) -> usize {
        self.info.total_episodes
    }

    /// Files of an episode that was never saved, which [`resume`](Self::resume) has removed.
    pub fn leftovers(&self) -> &[PathBuf] {
        &self.leftovers
    }

    /// Frames of the open episode so far; 0 without one.
    pub fn frames(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.frames)
    }

    /// Opens an episode, in which the robot does `task`.
    ///
    /// # Errors
    /// [`RecorderError::State`] when one is open, or what the disk says.
    pub fn start_episode(&mut self, task: &str) -> Result<(), RecorderError> {
        if self.open.is_some() {
            return Err(RecorderError::State("an episode is open: save or discard it first"));
        }
        if task.trim().is_empty() {
            return Err(RecorderError::Spec("an episode's task needs a text that says what to do".into()));
        }
        let recording = layout::recording(&self.folder);
        fs::create_dir_all(&recording).map_err(RecorderError::io("make", &recording))?;
        let place = Place {
            episode: self.info.total_episodes,
            first_frame: self.info.total_frames,
            task: self.tasks.iter().position(|known| known == task).unwrap_or(self.tasks.len()),
        };
        let room = room(&self.spec);
        let open = OpenEpisode::start(&recording, &self.spec, &self.info, task, place, room)?;
        self.open = Some(open);
        Ok(())
    }

    /// Adds a frame to the open episode. Images are handed to a thread that encodes them; this never waits for it.
    ///
    /// # Errors
    /// [`RecorderError::Frame`] for a frame that does not fit, [`RecorderError::Behind`] when the thread cannot keep up:
    /// the frame is not recorded then, and the next may be. [`RecorderError::DiskFull`] and [`RecorderError::EpisodeLost`]
    /// when the episode can only be discarded.
    pub fn add_frame(&mut self, frame: &NewFrame<'_>) -> Result<(), RecorderError> {
        let open = self.open.as_mut().ok_or(NOT_OPEN)?;
        open.add(&self.spec, frame)
    }

    /// Makes the open episode part of the dataset: it is on the disk when this returns. Waits for images and videos to be
    /// encoded.
    ///
    /// # Errors
    /// [`RecorderError::DiskFull`], [`RecorderError::Encoder`], [`RecorderError::EncoderHung`] and other errors of the disk: the
    /// dataset is as before and the episode still open, so that this may be tried again; but for what the encoder of images met, after which it can only be discarded, as another
    /// try says by [`RecorderError::EpisodeLost`].
    pub fn save_episode(&mut self) -> Result<Saved, RecorderError> {
        let open = self.open.as_mut().ok_or(NOT_OPEN)?;
        if open.frames == 0 {
            return Err(RecorderError::State("the open episode has no frames: add some, or discard it"));
        }
        open.finish()?;
        let (frames, refused) = (open.frames, open.refused);
        let saved = Saved { episode: self.info.total_episodes, frames, refused };
        if let Err(error) = self.write_episode() {
            // Where info.json does not count them, nothing reads the files, and the next try writes them anew.
            if Info::read(&self.folder).is_ok_and(|info| info.total_episodes == saved.episode) {
                for path in self.next.paths(&self.folder) {
                    let _ = fs::remove_file(path);
                }
            }
            return Err(error);
        }
        self.next.advance(self.info.chunks_size);
        self.discard_episode()?;
        Ok(saved)
    }

    /// Forgets the open episode, and is content with none: the next one is recorded in its place.
    ///
    /// # Errors
    /// What the disk says.
    pub fn discard_episode(&mut self) -> Result<(), RecorderError> {
        self.open = None;
        journal::remove_tracks(&layout::recording(&self.folder)).map(|_| ())
    }

    /// Ends recording. An open episode is discarded.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self) -> Result<Finished, RecorderError> {
        let discarded = self.frames();
        self.discard_episode()?;
        Ok(Finished { episodes: self.info.total_episodes, frames: self.info.total_frames, discarded })
    }

    /// Writes all files beside their places, and only then lets them come into those, `info.json` last.
    fn write_episode(&mut self) -> Result<(), RecorderError> {
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let (frames, task) = (open.frames, open.task.clone());
        let (columns, tracks) = open.finish()?;
        let features = &self.info.features;
        let numbers = episode::statistics(&self.info, columns, tracks, frames)?;
        let duration_s = frames as f64 / f64::from(self.info.fps);
        let videos = self.next.videos.iter();
        let row = EpisodeRow {
            index: self.info.total_episodes,
            tasks: vec![task.clone()],
            frames,
            begin: self.info.total_frames,
            data: self.next.data,
            videos: videos
                .map(|(key, file)| VideoPart { key: key.clone(), file: *file, from_s: 0.0, to_s: duration_s })
                .collect(),
            file: self.next.episodes,
        };
        #[cfg(feature = "mp4")]
        let videos = write_videos(&self.folder, &self.spec, &row.videos, tracks)?;
        #[cfg(not(feature = "mp4"))]
        let videos = Vec::new();
        let images = if self.spec.video { &tracks[..0] } else { tracks };
        let data = data_file::write(&layout::data(&self.folder, row.data), features, columns, images)?;
        let episodes = episode_file::write(&layout::episodes(&self.folder, row.file), &row, &numbers)?;
        let mut tasks = self.tasks.clone();
        if !tasks.contains(&task) {
            tasks.push(task);
        }
        let changed = tasks.len() != self.info.total_tasks;
        let task_file =
            changed.then(|| task_file::write(&layout::tasks(&self.folder), &tasks)).transpose()?;
        let mut statistics = self.statistics.clone();
        statistics::add(&mut statistics, &numbers);
        let stats = Pending::write(&layout::stats(&self.folder), &statistics::to_json(&statistics))?;
        let mut info = self.info.clone();
        info.total_episodes += 1;
        info.total_frames += frames;
        info.total_tasks = tasks.len();
        info.splits.insert("train".into(), format!("0:{}", info.total_episodes));
        let counted = Pending::write(&layout::info(&self.folder), &info.to_json()?)?;
        for pending in videos.into_iter().chain(task_file).chain([data, episodes, stats, counted]) {
            pending.commit()?;
        }
        (self.tasks, self.statistics, self.info) = (tasks, statistics, info);
        Ok(())
    }
}

/// Frames that may wait to be encoded.
fn room(spec: &Spec) -> usize {
    let frame: usize = spec.cameras.iter().map(|camera| camera.height * camera.width * 3).sum();
    (QUEUE_BYTES / frame.max(1)).clamp(1, QUEUE_FRAMES)
}

/// Encodes the videos of an episode beside their places; none, where images are kept as PNG.
#[cfg(feature = "mp4")]
fn write_videos(
    folder: &Path,
    spec: &Spec,
    videos: &[VideoPart],
    tracks: &[Track],
) -> Result<Vec<Pending>, RecorderError> {
    let cameras = spec.cameras.iter().map(|camera| (camera.height, camera.width));
    let each = videos.iter().zip(tracks).zip(cameras);
    each.map(|((video, track), size)| {
        encoder::write(&layout::video(folder, &video.key, video.file), track, size, spec.fps)
    })
    .collect()
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.discard_episode();
        let _ = fs::remove_dir(layout::recording(&self.folder));
    }
}

#[cfg(test)]
mod tests {
    use skillweld_robot::CameraStream;

    use super::*;

    #[test]
    fn large_images_wait_in_smaller_numbers() {
        let of = |cameras: &[(usize, usize)]| {
            let camera =
                |&(height, width): &(usize, usize)| CameraStream { name: String::new(), height, width };
            room(&Spec {
                robot: String::new(),
                fps: 30,
                state: Vec::new(),
                action: Vec::new(),
                units: Vec::new(),
                cameras: cameras.iter().map(camera).collect(),
                video: false,
                extras: Vec::new(),
                tasks: Vec::new(),
            })
        };
        assert_eq!(of(&[]), 64);
        assert_eq!(of(&[(480, 640); 2]), 64);
        // 6,220,800 bytes an image.
        assert_eq!(of(&[(1080, 1920); 2]), 21);
        assert_eq!(of(&[(8192, 8192); 2]), 1);
    }
}
