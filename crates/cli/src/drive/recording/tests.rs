use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use clap::ColorChoice;
use skillweld_recorder::Dataset;
use skillweld_robot::{CameraStream, Description, Frame, Joint, Observation, Unit};

use super::*;

const SIDE: usize = 32;

/// A robot that is recorded, at ten steps a second.
struct Run {
    episodes: Episodes,
    switch: StopSwitch,
    progress: Progress,
    step: u64,
}

impl Run {
    fn new(dir: &Path, count: usize) -> Self {
        let joint = Joint { name: "pan".into(), unit: Unit::Degrees, min: -9.0, max: 9.0, max_velocity: 9.0 };
        let camera = CameraStream { name: "front".into(), height: SIDE, width: SIDE };
        let robot = Description { kind: "arm".into(), joints: vec![joint], cameras: vec![camera] };
        let console = Console::new(ColorChoice::Never);
        let book = Book::open(dir, &robot, (10, "wave", false), console).unwrap();
        let (switch, progress) = (StopSwitch::new(), Progress::default());
        let options = EpisodesOptions { count, episode: None, reset: None };
        let shared = (switch.clone(), progress.clone());
        let episodes = Episodes::new(book, "wave", options, shared, console);
        Self { episodes, switch, progress, step: 0 }
    }

    fn tick(&mut self) {
        let captured = Instant::now();
        let rgb: Arc<[u8]> = vec![self.step as u8; SIDE * SIDE * 3].into();
        let frame = Frame { rgb, height: SIDE, width: SIDE, captured };
        let positions = vec![self.step as f64];
        let observation = Observation { captured, positions, frames: vec![frame], problems: Vec::new() };
        self.episodes.tick(&Tick {
            step: self.step,
            time: Duration::from_millis(100 * self.step),
            observation: Some(&observation),
            raw: None,
            sent: Some(&[0.0]),
            origin: Origin::Policy,
            queued: None,
            state: &State::Running,
            events: &[],
        });
        self.step += 1;
    }

    /// Ticks until the line that people see has these words.
    fn until(&mut self, words: &str) {
        let begun = Instant::now();
        while !self.progress.line().contains(words) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} is not {words}", self.progress.line());
            std::thread::sleep(Duration::from_millis(2));
            self.tick();
        }
    }
}

fn frames(dir: &Path) -> Vec<usize> {
    Dataset::open(dir).unwrap().episodes().iter().map(|episode| episode.frames).collect()
}

/// Whatever the disk has to do, the loop's thread goes on: it is done when a later step finds it done.
#[test]
fn the_disk_works_beside_the_loop() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("set");
    let mut run = Run::new(&dir, 1);
    assert!(!dir.exists(), "a run that does not come about leaves nothing behind");
    run.tick();
    assert_eq!(run.progress.line(), "episode 1 of 1 begins");
    run.until("● episode 1 of 1: 3 frames");

    run.progress.ask(Next::Again);
    run.tick();
    assert_eq!(run.progress.line(), "episode 1 of 1 begins");
    run.until("● episode 1 of 1: 2 frames");

    run.progress.ask(Next::Advance);
    run.tick();
    assert_eq!(run.progress.line(), "episode 1 of 1 is being saved");
    run.until("1 of 1 episodes saved");
    assert!(run.switch.is_stopped());
    run.episodes.end(&Reason::Stopped);
    drop(run);
    assert_eq!(frames(&dir), [2]);
}

#[test]
fn an_open_episode_is_saved_after_a_stop_and_forgotten_after_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let fault = Reason::NoAction { age: Duration::from_secs(3), last: None };
    for (end, there) in [(Reason::Stopped, vec![3]), (fault, vec![3])] {
        let mut run = Run::new(folder.path(), 9);
        run.until("● episode 1 of 9: 3 frames");
        run.episodes.end(&end);
        let problems = run.progress.problems();
        assert_eq!(problems.is_empty(), end == Reason::Stopped, "{problems:?}");
        drop(run);
        assert_eq!(frames(folder.path()), there);
        assert!(!folder.path().join(".recording").exists());
    }
}

/// What cannot be recorded ends the run; what it has left is forgotten after torque is off, not before.
#[test]
fn a_recording_that_fails_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::new(folder.path(), 1);
    run.until("● episode 1 of 1: 1 frames");
    let wrong = RecorderError::State("it fails");
    run.episodes.give_up(&wrong);
    assert!(run.switch.is_stopped());
    assert_eq!(run.progress.problems(), ["recording stopped: it fails"]);
    run.tick();
    let open = folder.path().join(".recording/0.images");
    assert!(open.exists());
    run.episodes.end(&Reason::Stopped);
    assert!(!open.exists());
}
