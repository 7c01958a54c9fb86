//! What the tests record: every number and pixel follows from episode, frame and place. `python/test_lerobot.py` knows the same.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failed test")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use skillweld_recorder::{
    Dataset, Extra, ExtraKind, ExtraValue, Images, NewFrame, Recorder, RecorderError, Spec, TOLERANCE_S,
};
use skillweld_robot::{CameraStream, Frame};

pub(crate) const FPS: u32 = 30;
pub(crate) const JOINTS: [&str; 3] = ["shoulder.pos", "elbow.pos", "gripper.pos"];
/// Name, rows, columns: one camera's images are looked at whole for the statistics, one's are thinned out.
pub(crate) const CAMERAS: [(&str, usize, usize); 2] = [("front", 24, 32), ("wrist", 310, 16)];
pub(crate) const TASKS: [&str; 2] = ["put the cube into the bowl", "öffne die Schublade"];

pub(crate) fn spec() -> Spec {
    let camera =
        |&(name, height, width): &(&str, usize, usize)| CameraStream { name: name.into(), height, width };
    Spec {
        robot: "so101_follower".into(),
        fps: FPS,
        units: ["degrees", "degrees", "percent"].map(String::from).to_vec(),
        state: JOINTS.map(String::from).to_vec(),
        action: JOINTS.map(String::from).to_vec(),
        cameras: CAMERAS.iter().map(camera).collect(),
        video: false,
        extras: vec![
            Extra::intervention(),
            Extra { name: "next.done".into(), kind: ExtraKind::Bool },
            Extra { name: "next.reward".into(), kind: ExtraKind::F32 },
        ],
        tasks: vec![TASKS[0].into()],
    }
}

pub(crate) fn state(episode: usize, frame: usize) -> Vec<f64> {
    (0..JOINTS.len())
        .map(|j| 10.0 * episode as f64 + (frame * (j + 1)) as f64 / 8.0 - 20.0 * j as f64)
        .collect()
}

pub(crate) fn action(episode: usize, frame: usize) -> Vec<f64> {
    state(episode, frame + 1).into_iter().map(|value| -value).collect()
}

pub(crate) fn pixels(episode: usize, frame: usize, camera: usize) -> Vec<u8> {
    let (_, height, width) = CAMERAS[camera];
    let pixel = |i: usize| {
        let (row, column) = (i / width, i % width);
        [(row + 3 * frame) as u8, (column + 5 * episode) as u8, (100 * camera + row * column / 7) as u8]
    };
    (0..height * width).flat_map(pixel).collect()
}

pub(crate) fn images(episode: usize, frame: usize) -> Vec<Frame> {
    let image = |camera: usize| Frame {
        rgb: Arc::from(pixels(episode, frame, camera)),
        height: CAMERAS[camera].1,
        width: CAMERAS[camera].2,
        captured: Instant::now(),
    };
    (0..CAMERAS.len()).map(image).collect()
}

pub(crate) fn extras(frame: usize, frames: usize) -> Vec<ExtraValue> {
    let done = frame + 1 == frames;
    vec![
        ExtraValue::Bool(frame % 3 == 1),
        ExtraValue::Bool(done),
        ExtraValue::F32(if done { 1.0 } else { 0.0 }),
    ]
}

pub(crate) fn task(episode: usize) -> &'static str {
    TASKS[episode % 2]
}

/// Adds all frames of one episode; waits where the encoder is behind.
pub(crate) fn add_frames(
    recorder: &mut Recorder,
    episode: usize,
    frames: usize,
) -> Result<(), RecorderError> {
    for frame in 0..frames {
        let (state, action) = (state(episode, frame), action(episode, frame));
        let (images, extras) = (images(episode, frame), extras(frame, frames));
        let new = NewFrame { state: &state, action: &action, images: &images, extras: &extras };
        loop {
            match recorder.add_frame(&new) {
                Err(RecorderError::Behind { .. }) => std::thread::sleep(Duration::from_millis(1)),
                other => break other?,
            }
        }
    }
    Ok(())
}

pub(crate) fn record(recorder: &mut Recorder, frames: usize) {
    let episode = recorder.episodes();
    recorder.start_episode(task(episode)).unwrap();
    add_frames(recorder, episode, frames).unwrap();
    let saved = recorder.save_episode().unwrap();
    assert_eq!((saved.episode, saved.frames), (episode, frames));
}

/// Every frame of every episode is what was recorded, to the bit, and `check` finds nothing.
pub(crate) fn assert_complete(folder: &Path) -> Dataset {
    let dataset = Dataset::open(folder).unwrap();
    let report = dataset.check(skillweld_recorder::TOLERANCE_S, Images::Heads).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!(report.frames, dataset.info().total_frames);
    for episode in dataset.episodes() {
        assert_eq!(episode.tasks, [task(episode.index)]);
        let mut count = 0;
        for (number, frame) in dataset.frames(episode.index).unwrap().enumerate() {
            let frame = frame.unwrap();
            let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
            assert_eq!(frame.state, narrow(state(episode.index, number)));
            assert_eq!(frame.action, narrow(action(episode.index, number)));
            let values: Vec<_> = frame.extras.iter().map(|(_, value)| *value).collect();
            assert_eq!(values, extras(number, episode.frames));
            for (camera, image) in frame.images.iter().enumerate() {
                assert_eq!(image.camera, CAMERAS[camera].0);
                assert_eq!(image.decode().unwrap().rgb[..], pixels(episode.index, number, camera)[..]);
            }
            count += 1;
        }
        assert_eq!(count, episode.frames);
    }
    dataset
}

/// `examples/write.rs`, which `cargo test -p skillweld-recorder` builds beside the tests.
pub(crate) fn writer() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let example = test.parent().unwrap().parent().unwrap().join("examples/write");
    assert!(example.exists(), "build it: cargo build -p skillweld-recorder --examples");
    example
}

/// Has it write more and more episodes; `more` are its arguments. How many it said were there before it was killed, `after` its
/// start or after it was ready to record.
pub(crate) fn run_and_kill(folder: &Path, more: &[&str], ready: bool, after: Duration) -> Option<usize> {
    let mut command = Command::new(writer());
    command.arg(folder).arg("1000000").args(more).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, said) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let count: usize = line.split(' ').nth(1).unwrap().parse().unwrap();
            sender.send(count).unwrap();
        }
    });
    let first = ready.then(|| said.recv_timeout(Duration::from_secs(60)).unwrap());
    std::thread::sleep(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
    reader.join().unwrap();
    said.try_iter().last().or(first)
}

/// Goes on with a dataset whose recording was killed after it had said that `said` episodes are saved: every episode of it is
/// whole, what is left of another is seen by the check and removed by the recorder, and a new one is saved. How many there
/// were before that, and what was removed.
pub(crate) fn assert_goes_on(folder: &Path, spec: Spec, said: usize) -> (usize, Vec<PathBuf>) {
    let dataset = assert_complete(folder);
    let episodes = dataset.episodes().len();
    // Saved, and killed before it was said.
    assert!(
        episodes == said || episodes == said + 1,
        "{said} episodes were said to be saved, {episodes} are there"
    );
    let mut seen = dataset.check(TOLERANCE_S, Images::Heads).unwrap().leftovers;
    let mut recorder = Recorder::resume(folder, spec).unwrap();
    let mut removed = recorder.leftovers().to_vec();
    seen.sort();
    removed.sort();
    assert_eq!(seen, removed);
    record(&mut recorder, 2);
    drop(recorder);
    assert_eq!(assert_complete(folder).episodes().len(), episodes + 1);
    (episodes, removed)
}
