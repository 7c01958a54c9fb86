//! Records a dataset of made-up numbers and images: `write FOLDER EPISODES FRAMES[,FRAMES…] [video]`. Goes on with the dataset
//! that is in the folder. Says what it has saved; an episode for which there is no room on the disk, or whose videos cannot be made, is
//! discarded. Tests read what it writes, kill it, and take its disk and its encoder away.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its output is what tests look at")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use skillweld_recorder::{Recorder, RecorderError, Spec};

#[path = "../tests/common/mod.rs"]
mod common;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(episodes), Some(frames)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: write FOLDER EPISODES FRAMES[,FRAMES...] [video]");
        return ExitCode::FAILURE;
    };
    let video = arguments.next().is_some_and(|word| word == "video");
    let frames: Option<Vec<usize>> = frames.split(',').map(|number| number.parse().ok()).collect();
    let (Ok(episodes), Some(frames)) = (episodes.parse(), frames) else {
        eprintln!("EPISODES and FRAMES are numbers");
        return ExitCode::FAILURE;
    };
    match write(&PathBuf::from(folder), episodes, &frames, video) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path, episodes: usize, frames: &[usize], video: bool) -> Result<(), RecorderError> {
    let spec = Spec { video, ..common::spec() };
    spec.check()?;
    let mut recorder = if folder.join("meta/info.json").exists() {
        Recorder::resume(folder, spec)?
    } else {
        Recorder::create(folder, spec)?
    };
    println!("ready {}", recorder.episodes());
    for attempt in 0..episodes {
        let episode = recorder.episodes();
        recorder.start_episode(common::task(episode))?;
        let saved = common::add_frames(&mut recorder, episode, frames[attempt % frames.len()])
            .and_then(|()| recorder.save_episode());
        match saved {
            Ok(saved) => println!("saved {}", saved.episode + 1),
            Err(
                error @ (RecorderError::DiskFull { .. }
                | RecorderError::EpisodeLost(_)
                | RecorderError::Encoder { .. }),
            ) => {
                println!("lost {error}");
                recorder.discard_episode()?;
            }
            Err(error) => return Err(error),
        }
    }
    recorder.finish().map(|_| ())
}
