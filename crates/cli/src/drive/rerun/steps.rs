//! The loop's end of the log: hands steps over, and never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use skillweld_robot::{Description, Event, Frame, Observer, Summary, Tick};

use super::logger::Logger;
use super::target::Target;
use crate::drive::recording::Progress;

/// Steps that may wait for the logger, without images some hundred bytes each. Half a minute at 30 steps a second.
const STEPS: usize = 1024;
/// Bytes of images that may wait: more than a second of two 640 × 480 cameras. One image may always.
const IMAGES: usize = 64 << 20;
/// How long the end of a run may wait for what is not yet written: torque is off.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the log keeps of a step.
pub(super) struct Step {
    pub(super) number: u64,
    pub(super) time: Duration,
    /// Seconds that it began after its deadline; none for the tick that tells the end.
    pub(super) lateness: Option<f64>,
    /// One number a joint.
    pub(super) measured: Option<Vec<f64>>,
    /// One number a joint.
    pub(super) sent: Option<Vec<f64>>,
    pub(super) queued: Option<usize>,
    /// New ones, with the number of their camera.
    pub(super) images: Vec<(usize, Frame)>,
    pub(super) events: Vec<Event>,
}

/// Watches a loop, and hands over what happens. Whatever takes time — pictures as JPEG, the disk, the network — is done by a
/// thread; if that does not keep up, images are left out first, then steps.
pub(super) struct Steps {
    hz: f64,
    steps: Option<SyncSender<Step>>,
    /// What the thread has to say when it ends.
    done: Receiver<Result<()>>,
    /// Bytes of images that wait.
    waiting: Arc<AtomicUsize>,
    /// When the last image of each camera was taken: one that is no newer is not logged again.
    captured: Vec<Option<Instant>>,
    images: Share,
    whole: Share,
    name: String,
    progress: Progress,
}

/// How many of something were left out.
#[derive(Default)]
struct Share {
    lost: u64,
    of: u64,
}

impl Steps {
    /// Opens the log, and starts the thread that writes it.
    pub(super) fn begin(
        target: Target,
        title: &str,
        robot: &Description,
        hz: f64,
        progress: Progress,
    ) -> Result<Self> {
        let (steps, handed_over) = sync_channel(STEPS);
        let (say, done) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let name = target.name();
        let logger = Logger::new(target.open(title)?, robot, Arc::clone(&waiting));
        std::thread::Builder::new().name("rerun log".to_owned()).spawn(move || {
            let logged = logger.log(&handed_over);
            if let Ok(0) = logged {
                target.forget();
            }
            // Nobody waits if the run did not begin.
            let _ = say.send(logged.map(drop));
        })?;
        let captured = vec![None; robot.cameras.len()];
        let (images, whole) = (Share::default(), Share::default());
        Ok(Self { hz, steps: Some(steps), done, waiting, captured, images, whole, name, progress })
    }

    /// The images of a step that are new and for which there is room.
    fn images(&mut self, frames: &[Frame]) -> Vec<(usize, Frame)> {
        let mut images = Vec::new();
        for (camera, (frame, captured)) in frames.iter().zip(&mut self.captured).enumerate() {
            if captured.replace(frame.captured) == Some(frame.captured) {
                continue;
            }
            self.images.of += 1;
            let waiting = self.waiting.load(Ordering::Relaxed);
            if waiting > 0 && waiting + frame.rgb.len() > IMAGES {
                self.images.lost += 1;
                continue;
            }
            self.waiting.fetch_add(frame.rgb.len(), Ordering::Relaxed);
            images.push((camera, frame.clone()));
        }
        images
    }

    /// What people should know of the log.
    fn tell(&self, logged: Result<()>) {
        if let Err(error) = logged {
            self.progress.problem(format!("{} is incomplete: {error:#}", self.name));
        }
        for (Share { lost, of }, what) in [(&self.images, "images"), (&self.whole, "steps")] {
            if *lost > 0 {
                self.progress.remark(format!(
                    "{} lacks {lost} of {of} {what}: this computer does not keep up; smaller images or a lower --fps help",
                    self.name
                ));
            }
        }
    }
}

impl Observer for Steps {
    fn tick(&mut self, tick: &Tick<'_>) {
        let Some(steps) = self.steps.clone() else { return };
        let told_the_end =
            tick.events.iter().any(|event| matches!(event, Event::TorqueOff(_) | Event::TorqueMayBeOn(_)));
        let due = tick.step as f64 / self.hz;
        let images = tick.observation.map(|observation| self.images(&observation.frames));
        let step = Step {
            number: tick.step,
            time: tick.time,
            lateness: (!told_the_end).then(|| (tick.time.as_secs_f64() - due).max(0.0)),
            measured: tick.observation.map(|observation| observation.positions.clone()),
            sent: tick.sent.map(<[f64]>::to_vec),
            queued: tick.queued,
            images: images.unwrap_or_default(),
            events: tick.events.to_vec(),
        };
        self.whole.of += 1;
        match steps.try_send(step) {
            Ok(()) => {}
            Err(TrySendError::Full(step)) => {
                self.whole.lost += 1;
                self.images.lost += step.images.len() as u64;
                let bytes = step.images.iter().map(|(_, image)| image.rgb.len()).sum();
                self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            }
            // The thread has ended; why, it says at the end.
            Err(TrySendError::Disconnected(_)) => self.steps = None,
        }
    }

    fn ended(&mut self, _summary: &Summary) {
        drop(self.steps.take());
        let logged = match self.done.recv_timeout(PATIENCE) {
            Ok(logged) => logged,
            Err(RecvTimeoutError::Timeout) => {
                Err(anyhow::anyhow!("what was left has not been taken within {} s", PATIENCE.as_secs()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(anyhow::anyhow!("the thread that writes it has ended by a panic"))
            }
        };
        self.tell(logged);
    }
}

/// A run that has not begun: the thread removes its file.
impl Drop for Steps {
    fn drop(&mut self) {
        // The end of a run has waited already.
        if self.steps.take().is_some() {
            let _ = self.done.recv_timeout(PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use skillweld_robot::{CameraStream, Observation, Origin, State};

    use super::*;

    fn robot() -> Description {
        let camera = CameraStream { name: "front".into(), height: 1, width: 1 };
        Description { kind: "arm".into(), joints: Vec::new(), cameras: vec![camera] }
    }

    fn observed(bytes: usize) -> Observation {
        let captured = Instant::now();
        let frame = Frame { rgb: vec![0; bytes].into(), height: 1, width: 1, captured };
        Observation { captured, positions: Vec::new(), frames: vec![frame], problems: Vec::new() }
    }

    fn tick(steps: &mut Steps, number: u64, observation: &Observation) {
        steps.tick(&Tick {
            step: number,
            time: Duration::from_millis(number * 100 + 3),
            observation: Some(observation),
            raw: None,
            sent: None,
            origin: Origin::Policy,
            queued: None,
            state: &State::Running,
            events: &[],
        });
    }

    #[test]
    fn what_nobody_takes_is_left_out_images_first_and_the_loop_never_waits() {
        let (sender, handed_over) = sync_channel(4);
        let (_, done) = channel();
        let progress = Progress::default();
        let mut steps = Steps {
            hz: 10.0,
            steps: Some(sender),
            done,
            waiting: Arc::default(),
            captured: vec![None],
            images: Share::default(),
            whole: Share::default(),
            name: "run.rrd".into(),
            progress: progress.clone(),
        };
        // One image may always wait, however large; the same image is no second one.
        let large = observed(IMAGES + 1);
        tick(&mut steps, 0, &large);
        tick(&mut steps, 1, &large);
        (2..6).for_each(|number| tick(&mut steps, number, &observed(1)));
        let taken: Vec<Step> = handed_over.try_iter().collect();
        assert_eq!(taken.iter().map(|step| step.images.len()).collect::<Vec<_>>(), [1, 0, 0, 0]);
        assert!((taken[3].lateness.unwrap() - 0.003).abs() < 1e-9, "{:?}", taken[3].lateness);

        steps.tell(Ok(()));
        let remarks = progress.remarks();
        assert!(remarks[0].contains("lacks 4 of 5 images"), "{remarks:?}");
        assert!(remarks[1].contains("lacks 2 of 6 steps"), "{remarks:?}");

        // A thread that has ended gets nothing more, and what it did not get is not counted: the end says why it ended.
        drop(handed_over);
        tick(&mut steps, 6, &large);
        tick(&mut steps, 7, &observed(1));
        assert!(steps.steps.is_none());
        assert_eq!(steps.whole.lost, 2);
    }

    #[test]
    fn a_run_that_does_not_begin_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.rrd");
        let begin = || {
            let target = Target::File(path.clone());
            Steps::begin(target, "a run", &robot(), 10.0, Progress::default()).unwrap()
        };
        let steps = begin();
        assert!(path.exists());
        drop(steps);
        assert!(!path.exists());

        // An image that is none: the log ends with the reason.
        let mut steps = begin();
        tick(&mut steps, 0, &observed(5));
        drop(steps.steps.take());
        let logged = steps.done.recv_timeout(PATIENCE).unwrap();
        assert!(logged.is_err());
    }
}
