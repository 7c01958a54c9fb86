use std::fmt;
use std::path::PathBuf;

use crate::dataset::{Dataset, Episode, RecordedFrame};
use crate::info::{ACTION, IMAGES, STATE};
use crate::spec::ExtraValue;
use crate::{RecorderError, folder, layout};

mod videos;

use videos::Videos;

/// How far a timestamp may be from frame number ÷ frame rate, in seconds: what `lerobot` takes.
pub const TOLERANCE_S: f64 = 1e-4;

/// How images are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Their heads: sizes.
    Heads,
    /// Every pixel is decoded.
    Pixels,
}

/// What [`Dataset::check`] has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Frames looked at.
    pub frames: usize,
    /// Frames in which a person moved the robot.
    pub interventions: usize,
    /// What is wrong; of each kind the first in an episode.
    pub problems: Vec<Problem>,
    /// Files of an episode that was never saved. Harmless; resuming the dataset removes them.
    pub leftovers: Vec<PathBuf>,
}

/// Something that is wrong with an episode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The episode's number.
    pub episode: usize,
    /// The frame's number in it, where it is one frame's.
    pub frame: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "episode {}", self.episode)?;
        if let Some(frame) = self.frame {
            write!(f, ", frame {frame}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Dataset {
    /// Reads every frame: numbers without gaps, timestamps within `tolerance_s` seconds of frame number ÷ frame rate, finite
    /// numbers, shapes and image sizes as the features say, known tasks; of videos the files' heads, with size and length. Columns
    /// of other kinds are not looked at.
    ///
    /// # Errors
    /// Only what stops the check as a whole: the folder cannot be listed. Files that cannot be read are problems.
    pub fn check(&self, tolerance_s: f64, images: Images) -> Result<Report, RecorderError> {
        let leftovers = self.leftovers()?;
        let mut videos = Videos::default();
        let mut report = Report { frames: 0, interventions: 0, problems: Vec::new(), leftovers };
        for episode in self.episodes() {
            let mut found = Findings { episode: episode.index, kinds: Vec::new(), problems: Vec::new() };
            if episode.tasks.iter().any(|task| !self.tasks().contains(task)) {
                found.add("task", None, || "a task that meta/tasks.parquet does not have".into());
            }
            match self.frames(episode.index) {
                Err(error) => found.add("file", None, || error.to_string()),
                Ok(frames) => {
                    for (number, frame) in frames.enumerate() {
                        match frame {
                            Err(error) => found.add("file", Some(number), || error.to_string()),
                            Ok(frame) => {
                                report.frames += 1;
                                report.interventions += usize::from(frame.intervention());
                                self.check_frame(episode, number, &frame, tolerance_s, images, &mut found);
                            }
                        }
                    }
                }
            }
            videos.check(self, episode, &mut found);
            report.problems.extend(found.problems);
        }
        Ok(report)
    }

    fn check_frame(
        &self,
        episode: &Episode,
        number: usize,
        frame: &RecordedFrame,
        tolerance_s: f64,
        images: Images,
        found: &mut Findings,
    ) {
        let mut numbered = |name: &'static str, value: i64, expected: usize| {
            if value != expected as i64 {
                found.add(name, Some(number), || format!("{name} is {value}, not {expected}"));
            }
        };
        numbered("index", frame.index, episode.first_frame + number);
        numbered("frame_index", frame.frame_index, number);
        numbered("episode_index", frame.episode_index, episode.index);
        let task = usize::try_from(frame.task_index).ok().and_then(|index| self.tasks().get(index));
        if task.is_none_or(|task| !episode.tasks.contains(task)) {
            let index = frame.task_index;
            found.add("task_index", Some(number), || {
                format!("task_index {index} is none of the episode's tasks")
            });
        }
        let expected_s = number as f64 / f64::from(self.info().fps);
        // Stored as f32: that rounding is nobody's fault.
        let rounding_s = expected_s * f64::from(f32::EPSILON);
        let distance_s = (frame.timestamp - expected_s).abs();
        if distance_s.is_nan() || distance_s > tolerance_s + rounding_s {
            let timestamp = frame.timestamp;
            found.add("timestamp", Some(number), || format!("timestamp {timestamp} s, not {expected_s} s"));
        }
        for (name, values) in [(STATE, &frame.state), (ACTION, &frame.action)] {
            let expected = self
                .info()
                .features
                .get(name)
                .map(|feature| feature.shape.iter().fold(1usize, |n, &length| n.saturating_mul(length)));
            if expected.is_some_and(|length| length != values.len()) {
                found.add(name, Some(number), || format!("{name} has {} numbers", values.len()));
            }
            if values.iter().any(|value| !value.is_finite()) {
                found.add(name, Some(number), || format!("{name} has a NaN or an infinity"));
            }
        }
        for (name, value) in &frame.extras {
            if matches!(value, ExtraValue::F32(value) if !value.is_finite()) {
                found.add("extra", Some(number), || format!("{name} is no finite number"));
            }
        }
        for image in &frame.images {
            let size = match images {
                Images::Heads => image.size(),
                Images::Pixels => image.decode().map(|rgb| (rgb.height, rgb.width)),
            };
            let features = &self.info().features;
            let feature = features.get(&format!("{IMAGES}{}", image.camera)).or(features.get(&image.camera));
            let expected =
                feature.and_then(|feature| Some((*feature.shape.first()?, *feature.shape.get(1)?)));
            match size {
                Err(problem) => found.add("image", Some(number), || format!("{}: {problem}", image.camera)),
                Ok((height, width)) if expected.is_some_and(|expected| expected != (height, width)) => {
                    found.add("image", Some(number), || {
                        format!("{}: {height} × {width} pixels, not what the features say", image.camera)
                    });
                }
                Ok(_) => {}
            }
        }
    }

    /// What an interrupted recording has left, and a recording that goes on at this moment has there.
    fn leftovers(&self) -> Result<Vec<PathBuf>, RecorderError> {
        let uncounted = folder::uncounted(self.folder(), self.info())?;
        let recording = std::fs::read_dir(layout::recording(self.folder()));
        let images = recording.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        Ok(images.chain(uncounted).filter(|path| path.exists()).collect())
    }
}

/// Problems of one episode, the first of each kind.
struct Findings {
    episode: usize,
    kinds: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Findings {
    fn add(&mut self, kind: &'static str, frame: Option<usize>, what: impl FnOnce() -> String) {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
            self.problems.push(Problem { episode: self.episode, frame, what: what() });
        }
    }
}
