//! The dataset that a run is recorded into.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use skillweld_recorder::{Extra, Recorder, RecorderError, Spec};
use skillweld_robot::Description;

use crate::console::Console;
use crate::output_file;

/// A dataset for such a robot: one that is there and goes on, or one that begins with the first episode, so that a run which
/// does not come about leaves nothing behind.
pub(crate) struct Book {
    dir: PathBuf,
    spec: Spec,
    there: Option<Recorder>,
}

impl Book {
    /// What an interrupted recording has left there is removed, and said.
    pub(crate) fn open(
        dir: &Path,
        robot: &Description,
        (fps, task, video): (u32, &str, bool),
        console: Console,
    ) -> Result<Self> {
        let names: Vec<String> = robot.joints.iter().map(|joint| format!("{}.pos", joint.name)).collect();
        let spec = Spec {
            robot: robot.kind.clone(),
            fps,
            state: names.clone(),
            action: names,
            units: robot.joints.iter().map(|joint| joint.unit.to_string()).collect(),
            cameras: robot.cameras.clone(),
            video,
            extras: vec![Extra::intervention()],
            tasks: vec![task.to_owned()],
        };
        let is_there = dir.join("meta").join("info.json").exists();
        if is_there {
            same_images(dir, video)?;
        }
        spec.check()?;
        let there = is_there.then(|| Recorder::resume(dir, spec.clone())).transpose()?;
        match &there {
            Some(recorder) => recorder.leftovers().iter().for_each(|path| {
                console.note(&format!("removed {}, of an episode that was never saved", path.display()));
            }),
            None => check_new(dir)?,
        }
        Ok(Self { dir: dir.to_owned(), spec, there })
    }

    /// The recorder, which makes the dataset if it is not there: work for a disk.
    pub(super) fn recorder(self) -> Result<Recorder, RecorderError> {
        self.there.map_or_else(|| Recorder::create(&self.dir, self.spec), Ok)
    }
}

/// Refuses to go on with PNG where there is mp4, and the other way round: with the option that mends it.
fn same_images(dir: &Path, video: bool) -> Result<()> {
    let dataset = skillweld_recorder::Dataset::open(dir)?;
    let there = dataset.info().features.values().any(|feature| feature.dtype == "video");
    let cameras = dataset.info().features.values().any(|feature| feature.dtype == "image");
    ensure!(!there || video, "the images of {} are mp4: add --video", dir.display());
    ensure!(!cameras || !video, "the images of {} are PNG: leave --video out", dir.display());
    Ok(())
}

/// Refuses a folder in which no dataset can begin, before an arm has torque.
fn check_new(dir: &Path) -> Result<()> {
    output_file::check_folder(dir)?;
    let is_free = !dir.exists() || skillweld_recorder::is_free(dir)?;
    ensure!(is_free, "{} holds something that is no dataset; name another folder", dir.display());
    Ok(())
}
