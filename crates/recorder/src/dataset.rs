use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::episode_file::{self, EpisodeRow, VideoPart};
use crate::image::RecordedImage;
use crate::info::{
    ACTION, EPISODE_INDEX, FRAME_INDEX, IMAGES, INDEX, Info, RESERVED, STATE, TASK_INDEX, TIMESTAMP,
};
use crate::layout::{self, FileNumber};
use crate::spec::{ExtraValue, INTERVENTION};
use crate::table::{self, Table, Tables};
use crate::{RecorderError, folder, task_file};

/// Frames that are read at once.
const BATCH: usize = 16;

/// A LeRobotDataset v3.0 on the disk: what is in it, and its frames.
///
/// Episodes that `meta/info.json` counts are there; the files of one that is just being saved are not looked at.
#[derive(Debug, Clone)]
pub struct Dataset {
    folder: PathBuf,
    info: Info,
    tasks: Vec<String>,
    episodes: Vec<Episode>,
}

/// An episode of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// Its number, from 0.
    pub index: usize,
    /// What the robot does in it.
    pub tasks: Vec<String>,
    /// How many frames it has.
    pub frames: usize,
    /// The number of its first frame in the dataset.
    pub first_frame: usize,
    data: FileNumber,
    pub(crate) videos: Vec<VideoPart>,
    /// Rows of the data file before its own.
    offset: usize,
}

/// A frame of an episode.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordedFrame {
    /// Its number in the dataset.
    pub index: i64,
    /// Its episode's number.
    pub episode_index: i64,
    /// Its number in the episode.
    pub frame_index: i64,
    /// Its task's number.
    pub task_index: i64,
    /// Seconds since the episode began.
    pub timestamp: f64,
    /// What the robot felt.
    pub state: Vec<f32>,
    /// What it was told.
    pub action: Vec<f32>,
    /// Columns of one flag or number each, with their names.
    pub extras: Vec<(String, ExtraValue)>,
    /// Images, as they lie in the file; none of cameras that are kept as videos.
    pub images: Vec<RecordedImage>,
}

impl RecordedFrame {
    /// Whether a person moved the robot; not, where nobody noted it.
    pub fn intervention(&self) -> bool {
        self.extras.iter().any(|(name, value)| name == INTERVENTION && *value == ExtraValue::Bool(true))
    }
}

impl Dataset {
    /// Reads what the metadata say.
    ///
    /// # Errors
    /// [`RecorderError::Damaged`] when the folder is no dataset, of another version, or at odds with itself;
    /// [`RecorderError::Io`] when a file cannot be read.
    pub fn open(path: &Path) -> Result<Self, RecorderError> {
        let info = Info::read(path)?;
        let tasks = if info.total_tasks > 0 { task_file::read(&layout::tasks(path))? } else { Vec::new() };
        let mut rows: Vec<_> = episode_file::read_all(path, false)?.into_iter().map(|(row, _)| row).collect();
        rows.retain(|row| row.index < info.total_episodes);
        folder::check_rows(path, &info, rows.iter())?;
        Ok(Self { folder: path.to_owned(), info, tasks, episodes: episodes(&rows) })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Robot, frame rate, features, totals.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Texts of tasks, by their numbers.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// All episodes, by their numbers.
    pub fn episodes(&self) -> &[Episode] {
        &self.episodes
    }

    /// Names of a state's numbers, and of an action's; none where the dataset does not say.
    pub fn names(&self) -> (Vec<String>, Vec<String>) {
        let of = |feature: &str| -> Vec<String> {
            let names = self.info.features.get(feature).and_then(|feature| feature.names.as_array());
            names.into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
        };
        (of(STATE), of(ACTION))
    }

    /// The frames of an episode, in order. Images are not decoded before [`RecordedImage::decode`] is called.
    ///
    /// # Errors
    /// [`RecorderError::NoSuchEpisode`]; [`RecorderError::Io`] or [`RecorderError::Damaged`] for its file, now or with a frame.
    pub fn frames(&self, episode: usize) -> Result<Frames, RecorderError> {
        let total = self.episodes.len();
        let episode = self.episodes.get(episode).ok_or(RecorderError::NoSuchEpisode { episode, total })?;
        let path = self.data_path(episode);
        let mut columns = Columns::default();
        for (name, feature) in &self.info.features {
            let scalar = feature.shape == [1] && !RESERVED.contains(&name.as_str());
            match feature.dtype.as_str() {
                "image" => columns.images.push(name.clone()),
                "bool" | "float32" | "int64" if scalar => {
                    columns.extras.push((name.clone(), feature.dtype.clone()));
                }
                _ => {}
            }
        }
        let tables = table::open(&path, episode.offset, episode.frames, BATCH)?;
        Ok(Frames { path, tables, columns, table: None, row: 0, left: episode.frames })
    }

    pub(crate) fn data_path(&self, episode: &Episode) -> PathBuf {
        layout::data(&self.folder, episode.data)
    }
}

/// Episodes lie in a file one after the other: where each begins follows from the first one there.
fn episodes(rows: &[EpisodeRow]) -> Vec<Episode> {
    let mut begins: HashMap<(usize, usize), usize> = HashMap::new();
    let episode = |row: &EpisodeRow| {
        let begin = *begins.entry((row.data.chunk, row.data.file)).or_insert(row.begin);
        Episode {
            index: row.index,
            tasks: row.tasks.clone(),
            frames: row.frames,
            first_frame: row.begin,
            data: row.data,
            videos: row.videos.clone(),
            offset: row.begin - begin,
        }
    };
    rows.iter().map(episode).collect()
}

#[derive(Default)]
struct Columns {
    images: Vec<String>,
    /// With their dtypes.
    extras: Vec<(String, String)>,
}

/// Frames of an episode; see [`Dataset::frames`].
pub struct Frames {
    path: PathBuf,
    tables: Tables,
    columns: Columns,
    table: Option<Table>,
    row: usize,
    left: usize,
}

impl Iterator for Frames {
    type Item = Result<RecordedFrame, RecorderError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let frame = self.read();
        // After an error there is nothing more.
        self.left = if frame.is_ok() { self.left - 1 } else { 0 };
        Some(frame)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

impl Frames {
    fn read(&mut self) -> Result<RecordedFrame, RecorderError> {
        if self.table.as_ref().is_none_or(|table| self.row == table.rows()) {
            let missing = || {
                let problem = format!("{} frames fewer than meta/episodes says: restore the file", self.left);
                RecorderError::damaged(&self.path, problem)
            };
            self.table = Some(self.tables.next().ok_or_else(missing)??);
            self.row = 0;
        }
        let Some(table) = &self.table else { return Err(RecorderError::State("no rows to read")) };
        if table.rows() == 0 {
            return Err(RecorderError::damaged(&self.path, "an empty batch of rows: restore the file"));
        }
        let frame = self.columns.frame(table, self.row);
        self.row += 1;
        frame
    }
}

impl Columns {
    fn frame(&self, table: &Table, row: usize) -> Result<RecordedFrame, RecorderError> {
        let vector = |name: &str| -> Result<Vec<f32>, RecorderError> {
            Ok(table.numbers(name, row)?.into_iter().map(|value| value as f32).collect())
        };
        let number = |name: &str| match table.numbers(name, row)?[..] {
            [value] => Ok(value),
            _ => Err(table.damaged(format!("{name} is no single number in row {row}"))),
        };
        let extra = |(name, dtype): &(String, String)| {
            let value = match dtype.as_str() {
                "bool" => ExtraValue::Bool(table.flag(name, row)?),
                "int64" => ExtraValue::I64(table.integer(name, row)?),
                _ => ExtraValue::F32(number(name)? as f32),
            };
            Ok((name.clone(), value))
        };
        let image = |name: &String| {
            let camera = name.strip_prefix(IMAGES).unwrap_or(name).to_owned();
            Ok(RecordedImage { camera, png: table.image(name, row)? })
        };
        Ok(RecordedFrame {
            index: table.integer(INDEX, row)?,
            episode_index: table.integer(EPISODE_INDEX, row)?,
            frame_index: table.integer(FRAME_INDEX, row)?,
            task_index: table.integer(TASK_INDEX, row)?,
            timestamp: number(TIMESTAMP)?,
            state: vector(STATE)?,
            action: vector(ACTION)?,
            extras: self.extras.iter().map(extra).collect::<Result<_, RecorderError>>()?,
            images: self.images.iter().map(image).collect::<Result<_, RecorderError>>()?,
        })
    }
}
