//! The episode that is being recorded.

use std::path::Path;

use indexmap::IndexMap;
use skillweld_robot::Frame;

use crate::RecorderError;
use crate::column::Column;
use crate::info::{ACTION, EPISODE_INDEX, FRAME_INDEX, INDEX, Info, STATE, TASK_INDEX, TIMESTAMP};
use crate::journal::{Journal, Refused, Track};
use crate::spec::{ExtraValue, Spec};
use crate::statistics::{FeatureStatistics, Statistics, pixels};

/// One moment of an episode, to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct NewFrame<'a> {
    /// What the robot felt: a number for each name of [`Spec::state`].
    pub state: &'a [f64],
    /// What it was told: a number for each name of [`Spec::action`].
    pub action: &'a [f64],
    /// What it saw: an image for each of [`Spec::cameras`], of its size. Their pixels are shared, not copied.
    pub images: &'a [Frame],
    /// A value for each of [`Spec::extras`].
    pub extras: &'a [ExtraValue],
}

/// Numbers that an episode and its frames have in the dataset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) episode: usize,
    pub(crate) first_frame: usize,
    pub(crate) task: usize,
}

pub(crate) struct OpenEpisode {
    pub(crate) task: String,
    place: Place,
    columns: IndexMap<String, Column>,
    images: Images,
    pub(crate) frames: usize,
    pub(crate) refused: usize,
}

/// Where an open episode's images are.
enum Images {
    Encoding(Journal),
    Encoded(Vec<Track>),
    Lost(String),
}

impl OpenEpisode {
    pub(crate) fn start(
        recording: &Path,
        spec: &Spec,
        info: &Info,
        task: &str,
        place: Place,
        room: usize,
    ) -> Result<Self, RecorderError> {
        let numeric = info.features.iter().filter(|(_, feature)| !feature.is_camera());
        let columns = numeric
            .map(|(name, feature)| Ok((name.clone(), Column::new(feature)?)))
            .collect::<Result<_, RecorderError>>()?;
        Ok(Self {
            task: task.into(),
            place,
            columns,
            images: Images::Encoding(Journal::start(recording, spec.cameras.len(), room)?),
            frames: 0,
            refused: 0,
        })
    }

    /// All of the frame, or nothing of it.
    pub(crate) fn add(&mut self, spec: &Spec, new: &NewFrame<'_>) -> Result<(), RecorderError> {
        let frame = self.frames;
        check(spec, new).map_err(|problem| RecorderError::Frame { frame, problem })?;
        match &mut self.images {
            Images::Encoding(journal) => match journal.add(new.images.to_vec()) {
                Ok(()) => {}
                Err(Refused::Full(waiting)) => {
                    self.refused += 1;
                    return Err(RecorderError::Behind { frame, waiting });
                }
                Err(Refused::Failed(error)) => return Err(self.lose(error)),
            },
            Images::Encoded(_) => {
                return Err(RecorderError::State("saving this episode has begun: save or discard it"));
            }
            Images::Lost(why) => return Err(RecorderError::EpisodeLost(why.clone())),
        }
        self.push(spec, new);
        Ok(())
    }

    fn push(&mut self, spec: &Spec, new: &NewFrame<'_>) {
        // As `lerobot` has it: where the frame lies in a video.
        let timestamp = self.frames as f64 / f64::from(spec.fps);
        let mut with = |name: &str, push: &dyn Fn(&mut Column)| {
            if let Some(column) = self.columns.get_mut(name) {
                push(column);
            }
        };
        with(STATE, &|column| column.push_f32(new.state));
        with(ACTION, &|column| column.push_f32(new.action));
        with(TIMESTAMP, &|column| column.push_f32(&[timestamp]));
        let numbers = [
            (FRAME_INDEX, self.frames),
            (EPISODE_INDEX, self.place.episode),
            (INDEX, self.place.first_frame + self.frames),
            (TASK_INDEX, self.place.task),
        ];
        for (name, number) in numbers {
            with(name, &|column| column.push_i64(number as i64));
        }
        for (extra, &value) in spec.extras.iter().zip(new.extras) {
            with(&extra.name, &|column| column.push(value));
        }
        self.frames += 1;
    }

    /// Some images could not be kept: whatever the reason was, the episode can only be discarded.
    fn lose(&mut self, error: RecorderError) -> RecorderError {
        self.images = Images::Lost(match &error {
            RecorderError::EpisodeLost(why) => why.clone(),
            other => other.to_string(),
        });
        error
    }

    /// Waits for all images. May be asked again.
    pub(crate) fn finish(&mut self) -> Result<(&IndexMap<String, Column>, &[Track]), RecorderError> {
        if let Images::Encoding(journal) = &mut self.images {
            match journal.finish() {
                Ok(tracks) => self.images = Images::Encoded(tracks),
                Err(error) => return Err(self.lose(error)),
            }
        }
        match &self.images {
            Images::Encoded(tracks) => Ok((&self.columns, tracks)),
            Images::Lost(why) => Err(RecorderError::EpisodeLost(why.clone())),
            Images::Encoding(_) => Err(RecorderError::State("the images are still being encoded")),
        }
    }
}

/// Of all columns of an episode.
pub(crate) fn statistics(
    info: &Info,
    columns: &IndexMap<String, Column>,
    tracks: &[Track],
    frames: usize,
) -> Result<FeatureStatistics, RecorderError> {
    let sampled = pixels::sample(frames);
    let mut tracks = tracks.iter();
    let mut all = FeatureStatistics::new();
    for name in info.features.keys() {
        let statistics = match columns.get(name) {
            Some(column) => Statistics::of_column(column),
            None => match tracks.next() {
                Some(track) => Statistics::of_images(&track.counts(&sampled)?, sampled.len() as u64),
                None => continue,
            },
        };
        all.insert(name.clone(), statistics);
    }
    Ok(all)
}

/// What of a frame does not fit.
fn check(spec: &Spec, new: &NewFrame<'_>) -> Result<(), String> {
    for (what, values, names) in [("state", new.state, &spec.state), ("action", new.action, &spec.action)] {
        if values.len() != names.len() {
            return Err(format!("{what} has {} numbers, the dataset's has {}", values.len(), names.len()));
        }
        // Stored as f32: what overflows there is no number either.
        if let Some(bad) = values.iter().position(|&value| !(value as f32).is_finite()) {
            return Err(format!("{what} {} is {}: not a number that can be stored", names[bad], values[bad]));
        }
    }
    if new.images.len() != spec.cameras.len() {
        return Err(format!("{} images; the dataset has {} cameras", new.images.len(), spec.cameras.len()));
    }
    for (image, camera) in new.images.iter().zip(&spec.cameras) {
        let expected = camera.height * camera.width * 3;
        if (image.height, image.width) != (camera.height, camera.width) || image.rgb.len() != expected {
            return Err(format!(
                "camera {}: {} × {} pixels in {} bytes, the dataset's are {} × {} in {expected}",
                camera.name,
                image.height,
                image.width,
                image.rgb.len(),
                camera.height,
                camera.width
            ));
        }
    }
    if new.extras.len() != spec.extras.len() {
        return Err(format!("{} extra values; the dataset has {}", new.extras.len(), spec.extras.len()));
    }
    for (value, extra) in new.extras.iter().zip(&spec.extras) {
        if value.kind() != extra.kind || matches!(value, ExtraValue::F32(number) if !number.is_finite()) {
            return Err(format!("{} is {value:?}, the dataset's is a finite {:?}", extra.name, extra.kind));
        }
    }
    Ok(())
}
