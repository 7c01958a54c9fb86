//! `meta/info.json`.

use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use skillweld_robot::CameraStream;

use crate::spec::{ExtraKind, Spec};
use crate::{RecorderError, layout};

/// The version of the format that is written and read.
pub(crate) const CODEBASE_VERSION: &str = "v3.0";
pub(crate) const STATE: &str = "observation.state";
pub(crate) const ACTION: &str = "action";
pub(crate) const IMAGES: &str = "observation.images.";

/// Columns that every dataset has, whatever is recorded.
pub(crate) const TIMESTAMP: &str = "timestamp";
pub(crate) const FRAME_INDEX: &str = "frame_index";
pub(crate) const EPISODE_INDEX: &str = "episode_index";
pub(crate) const INDEX: &str = "index";
pub(crate) const TASK_INDEX: &str = "task_index";
pub(crate) const RESERVED: [&str; 7] =
    [STATE, ACTION, TIMESTAMP, FRAME_INDEX, EPISODE_INDEX, INDEX, TASK_INDEX];

/// What numbers mean; not in lerobot's format.
const UNITS: &str = "units";

/// Files in a chunk folder, as `lerobot` has it. One episode is one file here.
const CHUNKS_SIZE: usize = 1000;

/// What `meta/info.json` says of a dataset. Fields that are not known here are kept as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// The format's version, for example `v3.0`.
    pub codebase_version: String,
    /// The kind of robot.
    pub robot_type: Option<String>,
    /// Saved episodes.
    pub total_episodes: usize,
    /// Frames of all saved episodes.
    pub total_frames: usize,
    /// Texts in `meta/tasks.parquet`.
    pub total_tasks: usize,
    /// Most files in a chunk folder.
    pub chunks_size: usize,
    /// Frames a second.
    pub fps: u32,
    /// Names of parts with their ranges of episodes.
    #[serde(default)]
    pub splits: IndexMap<String, String>,
    /// Where data files lie.
    pub data_path: String,
    /// Where videos lie; nothing, when images are in the data files.
    #[serde(default)]
    pub video_path: Option<String>,
    /// Every column with its kind, in order.
    pub features: IndexMap<String, Feature>,
    /// What else is there.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// `float32`, `int64`, `bool`, `image`, `video`, …
    pub dtype: String,
    /// Lengths of one frame's value.
    pub shape: Vec<usize>,
    /// Names of the value's numbers, or nothing.
    #[serde(default)]
    pub names: Value,
    /// What else is there.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Feature {
    fn new(dtype: &str, shape: Vec<usize>, names: Value) -> Self {
        Self { dtype: dtype.into(), shape, names, rest: Map::new() }
    }

    pub(crate) fn is_image(&self) -> bool {
        self.dtype == "image"
    }

    pub(crate) fn is_video(&self) -> bool {
        self.dtype == "video"
    }

    /// What a camera sees, however it is kept.
    pub(crate) fn is_camera(&self) -> bool {
        self.is_image() || self.is_video()
    }

    /// Of a video, as `lerobot` reads it from the first file.
    fn codec(&self) -> Option<&str> {
        self.rest.get("info")?.get("video.codec")?.as_str()
    }
}

impl Info {
    /// Of a dataset without episodes.
    pub(crate) fn new(spec: &Spec) -> Self {
        let rest = [("data_files_size_in_mb", 100), ("video_files_size_in_mb", 200)];
        Self {
            codebase_version: CODEBASE_VERSION.into(),
            robot_type: Some(spec.robot.clone()),
            total_episodes: 0,
            total_frames: 0,
            total_tasks: spec.tasks.len(),
            chunks_size: CHUNKS_SIZE,
            fps: spec.fps,
            splits: IndexMap::new(),
            data_path: layout::DATA_PATH.into(),
            video_path: spec.video.then(|| layout::VIDEO_PATH.to_owned()),
            features: features(spec),
            rest: rest
                .into_iter()
                .map(|(key, value)| (key.to_owned(), json!(value)))
                .chain((!spec.units.is_empty()).then(|| (UNITS.to_owned(), json!(spec.units))))
                .collect(),
        }
    }

    /// Units of a state's and an action's numbers, if the dataset says them.
    pub fn units(&self) -> Option<Vec<String>> {
        let units = self.rest.get(UNITS)?.as_array()?;
        units.iter().map(|unit| unit.as_str().map(str::to_owned)).collect()
    }

    /// Names of the features that are kept as videos.
    pub(crate) fn videos(&self) -> impl Iterator<Item = &String> {
        self.features.iter().filter(|(_, feature)| feature.is_video()).map(|(name, _)| name)
    }

    /// # Errors
    /// [`RecorderError::Io`] or [`RecorderError::Damaged`], which name the file.
    pub(crate) fn read(folder: &Path) -> Result<Self, RecorderError> {
        let path = layout::info(folder);
        let text = fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => {
                RecorderError::damaged(&path, "is not there: this folder is no LeRobotDataset v3.0")
            }
            _ => RecorderError::io("read", &path)(source),
        })?;
        let info: Self = serde_json::from_slice(&text)
            .map_err(|error| RecorderError::damaged(&path, format!("not what v3.0 has there: {error}")))?;
        let refuse = |problem: String| Err(RecorderError::damaged(&path, problem));
        if info.codebase_version != CODEBASE_VERSION {
            return refuse(format!(
                "version {}; only {CODEBASE_VERSION} is read: convert the dataset with lerobot",
                info.codebase_version
            ));
        }
        if info.data_path != layout::DATA_PATH {
            return refuse(format!("data_path is {}; only {} is read", info.data_path, layout::DATA_PATH));
        }
        if info.fps == 0 || info.chunks_size == 0 {
            return refuse("fps and chunks_size must be above 0; mend the file".into());
        }
        Ok(info)
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, RecorderError> {
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|error| RecorderError::Spec(error.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }

    /// # Errors
    /// [`RecorderError::Differs`], which names what differs and both sides.
    pub(crate) fn same_kind(&self, spec: &Spec) -> Result<(), RecorderError> {
        let differs = |what: &str, dataset: String, recording: String| {
            Err(RecorderError::Differs { what: what.into(), dataset, recording })
        };
        if self.fps != spec.fps {
            return differs("fps", self.fps.to_string(), spec.fps.to_string());
        }
        if let Some(robot) = self.robot_type.as_ref().filter(|robot| **robot != spec.robot) {
            return differs("robot", robot.clone(), spec.robot.clone());
        }
        if let Some(units) = self.units().filter(|units| *units != spec.units) {
            return differs("units", units.join(", "), spec.units.join(", "));
        }
        let wanted = features(spec);
        for (name, feature) in &wanted {
            match self.features.get(name) {
                None => return differs(name, "nothing".into(), describe(feature)),
                Some(there) if describe(there) != describe(feature) => {
                    return differs(name, describe(there), describe(feature));
                }
                Some(_) => {}
            }
        }
        match self.features.iter().find(|(name, _)| !wanted.contains_key(*name)) {
            Some((name, feature)) => differs(name, describe(feature), "nothing".into()),
            None => Ok(()),
        }
    }
}

/// What two features must agree in to be one column.
fn describe(feature: &Feature) -> String {
    let shape: Vec<_> = feature.shape.iter().map(usize::to_string).collect();
    let names = match &feature.names {
        Value::Array(names) if !feature.is_camera() => {
            let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap_or("?")).collect();
            format!(" ({})", names.join(", "))
        }
        _ => String::new(),
    };
    let codec = feature.codec().map(|codec| format!("{codec} ")).unwrap_or_default();
    format!("{} {codec}{}{names}", feature.dtype, shape.join(" × "))
}

/// What `lerobot` would say of our videos.
fn video_info(camera: &CameraStream, fps: u32) -> Value {
    json!({
        "video.height": camera.height,
        "video.width": camera.width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": false,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": false,
    })
}

/// Every column of a dataset, in the order in which it is written, and its videos.
fn features(spec: &Spec) -> IndexMap<String, Feature> {
    let vector = |names: &[String]| Feature::new("float32", vec![names.len()], json!(names));
    let scalar = |dtype| Feature::new(dtype, vec![1], Value::Null);
    let mut features = IndexMap::new();
    features.insert(STATE.to_owned(), vector(&spec.state));
    features.insert(ACTION.to_owned(), vector(&spec.action));
    for camera in &spec.cameras {
        let shape = vec![camera.height, camera.width, 3];
        let names = json!(["height", "width", "channels"]);
        let mut feature = Feature::new(if spec.video { "video" } else { "image" }, shape, names);
        if spec.video {
            feature.rest.insert("info".into(), video_info(camera, spec.fps));
        }
        features.insert(format!("{IMAGES}{}", camera.name), feature);
    }
    for extra in &spec.extras {
        let dtype = match extra.kind {
            ExtraKind::Bool => "bool",
            ExtraKind::F32 => "float32",
            ExtraKind::I64 => "int64",
        };
        features.insert(extra.name.clone(), scalar(dtype));
    }
    features.insert(TIMESTAMP.to_owned(), scalar("float32"));
    for name in [FRAME_INDEX, EPISODE_INDEX, INDEX, TASK_INDEX] {
        features.insert(name.to_owned(), scalar("int64"));
    }
    features
}
