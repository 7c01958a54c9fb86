use std::collections::BTreeSet;

use skillweld_robot::{CameraStream, MAX_SIDE};

use crate::RecorderError;
use crate::info::RESERVED;

/// What a dataset holds: known before the first frame, the same for all episodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// The kind of robot, for example `so101_follower`; `robot_type` in the dataset.
    pub robot: String,
    /// Frames a second.
    pub fps: u32,
    /// Names of a state's numbers, for example `shoulder_pan.pos`; `observation.state`, f32.
    pub state: Vec<String>,
    /// Names of an action's numbers; `action`, f32.
    pub action: Vec<String>,
    /// Units of a state's and an action's numbers, such as `degrees`; empty where nobody knows. `units` in `meta/info.json`,
    /// which `lerobot` has no place for and leaves alone.
    pub units: Vec<String>,
    /// The images of a frame; `observation.images.NAME`, height × width × 3.
    pub cameras: Vec<CameraStream>,
    /// Whether images are kept as mp4 files, which take a small part of the room and lose a little; else they are PNG. Needs the
    /// feature `mp4` and the program ffmpeg, for which [`check`](Self::check) looks.
    pub video: bool,
    /// One more number or flag a frame each.
    pub extras: Vec<Extra>,
    /// Texts of tasks, numbered in this order. Others get the next numbers when an episode of them is saved.
    pub tasks: Vec<String>,
}

/// A column beside state, action and images, with one value a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// The column's name.
    pub name: String,
    /// What its values are.
    pub kind: ExtraKind,
}

impl Extra {
    /// `intervention`: whether a person moved the robot instead of the policy.
    pub fn intervention() -> Self {
        Self { name: INTERVENTION.into(), kind: ExtraKind::Bool }
    }
}

/// The column that tells a person's frames from a policy's.
pub(crate) const INTERVENTION: &str = "intervention";

/// What an extra column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtraKind {
    /// A flag.
    Bool,
    /// A number.
    F32,
    /// A whole number.
    I64,
}

/// One value of an extra column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ExtraValue {
    /// Of a column of [`ExtraKind::Bool`].
    Bool(bool),
    /// Of a column of [`ExtraKind::F32`].
    F32(f32),
    /// Of a column of [`ExtraKind::I64`].
    I64(i64),
}

impl ExtraValue {
    /// The kind of columns that it fits.
    pub fn kind(self) -> ExtraKind {
        match self {
            Self::Bool(_) => ExtraKind::Bool,
            Self::F32(_) => ExtraKind::F32,
            Self::I64(_) => ExtraKind::I64,
        }
    }
}

impl Spec {
    /// Whether such a dataset can be recorded, for asking before a robot moves. Of videos it has ffmpeg make one image of each
    /// size, about a tenth of a second each, and keeps nothing.
    ///
    /// # Errors
    /// [`RecorderError::Spec`] for what no dataset can have, [`RecorderError::Encoder`] when ffmpeg is not there or makes no videos.
    pub fn check(&self) -> Result<(), RecorderError> {
        self.validate()?;
        #[cfg(feature = "mp4")]
        if self.video {
            crate::encoder::check(self)?;
        }
        Ok(())
    }

    /// # Errors
    /// [`RecorderError::Spec`] for what no reader of the format would take.
    pub(crate) fn validate(&self) -> Result<(), RecorderError> {
        let refuse = |problem: String| Err(RecorderError::Spec(problem));
        if self.fps == 0 || self.fps > 1000 {
            return refuse(format!("{} frames a second: give 1 to 1000", self.fps));
        }
        if self.state.is_empty() || self.action.is_empty() {
            return refuse("state and action need at least one number each".into());
        }
        for camera in &self.cameras {
            let (height, width) = (camera.height, camera.width);
            if height == 0 || width == 0 || height.max(width) > MAX_SIDE {
                return refuse(format!(
                    "camera {}: {height} × {width} pixels; each side may have 1 to {MAX_SIDE}",
                    camera.name
                ));
            }
        }
        if self.video {
            self.validate_video()?;
        }
        for names in [&self.state, &self.action, &self.tasks] {
            distinct(names.iter())?;
        }
        let columns: Vec<_> =
            self.cameras.iter().map(|c| &c.name).chain(self.extras.iter().map(|e| &e.name)).collect();
        if let Some(name) = columns.iter().find(|name| name.contains('/')) {
            return refuse(format!("{name}: a column's name must not contain '/'; rename it"));
        }
        distinct(columns.into_iter())?;
        match self.extras.iter().find(|extra| {
            RESERVED.contains(&extra.name.as_str()) || extra.name.starts_with("observation.images.")
        }) {
            Some(extra) => {
                refuse(format!("{}: the format has a column of this name; rename yours", extra.name))
            }
            None => Ok(()),
        }
    }
}

impl Spec {
    fn validate_video(&self) -> Result<(), RecorderError> {
        let refuse = |problem: String| Err(RecorderError::Spec(problem));
        if !cfg!(feature = "mp4") {
            return refuse("this program was built without mp4; build it with --features mp4".into());
        }
        if self.cameras.is_empty() {
            return refuse(
                "no camera, of which a video could be made: name one, or record without videos".into(),
            );
        }
        // Colours are stored at half resolution.
        match self.cameras.iter().find(|camera| camera.height % 2 + camera.width % 2 > 0) {
            Some(camera) => refuse(format!(
                "camera {}: {} × {} pixels; videos have even numbers of rows and columns: choose another size, or record PNG",
                camera.name, camera.height, camera.width
            )),
            None => Ok(()),
        }
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), RecorderError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.trim().is_empty() {
            return Err(RecorderError::Spec("an empty name; give every number, camera and task one".into()));
        }
        if !seen.insert(name) {
            return Err(RecorderError::Spec(format!("{name} is there twice; names must differ")));
        }
    }
    Ok(())
}
