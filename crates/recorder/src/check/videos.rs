//! Videos of episodes: whether their files are there, and have the size and the length that the metadata say.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::Findings;
use crate::dataset::{Dataset, Episode};
use crate::episode_file::VideoPart;
use crate::info::IMAGES;
use crate::layout;
use crate::mp4::Head;

/// What files said: one may have many episodes.
#[derive(Default)]
pub(super) struct Videos {
    heads: HashMap<PathBuf, Result<Head, String>>,
}

impl Videos {
    pub(super) fn check(&mut self, dataset: &Dataset, episode: &Episode, found: &mut Findings) {
        let info = dataset.info();
        for video in &episode.videos {
            let Some(feature) = info.features.get(&video.key).filter(|feature| feature.is_video()) else {
                continue;
            };
            let known = info.video_path.as_deref() == Some(layout::VIDEO_PATH);
            let problem = if known {
                let path = layout::video(dataset.folder(), &video.key, video.file);
                let head = self.heads.entry(path).or_insert_with_key(|path| read(path));
                match head {
                    Ok(head) => wrong(head, video, &feature.shape, (episode.frames, info.fps)),
                    Err(problem) => Some(problem.clone()),
                }
            } else {
                let there = info.video_path.as_deref().unwrap_or("nothing");
                Some(format!("video_path is {there}; only videos in {} are found", layout::VIDEO_PATH))
            };
            if let Some(problem) = problem {
                let camera = video.key.strip_prefix(IMAGES).unwrap_or(&video.key);
                found.add("video", None, || format!("{camera}: {problem}"));
            }
        }
    }
}

fn read(path: &Path) -> Result<Head, String> {
    let named = |problem: String| format!("{}: {problem}", path.display());
    let mut file = File::open(path).map_err(|error| named(format!("cannot be opened: {error}")))?;
    Head::read(&mut file).map_err(named)
}

/// What of the file does not fit the episode.
fn wrong(head: &Head, video: &VideoPart, shape: &[usize], (frames, fps): (usize, u32)) -> Option<String> {
    // Channels stand last, or first.
    if !shape.windows(2).any(|sides| *sides == [head.height, head.width]) {
        return Some(format!("{} × {} pixels, not what the features say", head.height, head.width));
    }
    let frame_s = 1.0 / f64::from(fps);
    let expected_s = frames as f64 * frame_s;
    let span_s = video.to_s - video.from_s;
    // Some encoders give the last frame no time. What is not a number is not near either.
    if !((span_s - expected_s).abs() < 1.5 * frame_s && video.from_s > -frame_s / 2.0) {
        return Some(format!(
            "{frames} frames take {expected_s} s, meta/episodes has {} to {} s of the video for them",
            video.from_s, video.to_s
        ));
    }
    let length = head.length?;
    let last = (video.from_s / frame_s).round() + frames as f64;
    if length.duration_s < video.to_s - 1.5 * frame_s || (length.frames as f64) < last {
        return Some(format!(
            "its file has {} frames in {} s; the episode ends at {} s",
            length.frames, length.duration_s, video.to_s
        ));
    }
    None
}
