//! A loop's steps as episodes of a LeRobot dataset.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use skillweld_recorder::{Extra, ExtraValue, NewFrame, Recorder, RecorderError, Saved, Spec};
use skillweld_robot::{Description, Observer, Origin, Reason, State, StopSwitch, Summary, Tick};

/// What a person asks of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// This part is done: save the episode, or begin the next.
    Advance,
    /// Forget the episode and begin it again.
    Again,
}

/// What a recording, its keys and its view know of one another. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    asked: Option<Next>,
    saved: Vec<Saved>,
    problems: Vec<String>,
    line: String,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing is left half done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ask(&self, next: Next) {
        self.lock().asked = Some(next);
    }

    pub(crate) fn take(&self) -> Option<Next> {
        self.lock().asked.take()
    }

    /// Episodes that are on the disk.
    pub(crate) fn saved(&self) -> Vec<Saved> {
        self.lock().saved.clone()
    }

    /// What went wrong with recording.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// What is going on, in a line.
    pub(crate) fn line(&self) -> String {
        self.lock().line.clone()
    }

    fn say(&self, line: String) {
        self.lock().line = line;
    }

    fn problem(&self, problem: String) {
        let mut shared = self.lock();
        if !shared.problems.contains(&problem) {
            shared.problems.push(problem);
        }
    }
}

/// Begins a dataset for such a robot, or goes on with the one that is there.
pub(crate) fn open_recorder(dir: &Path, robot: &Description, fps: u32, task: &str) -> Result<Recorder> {
    let names: Vec<String> = robot.joints.iter().map(|joint| format!("{}.pos", joint.name)).collect();
    let spec = Spec {
        robot: robot.kind.clone(),
        fps,
        state: names.clone(),
        action: names,
        cameras: robot.cameras.clone(),
        extras: vec![Extra::intervention()],
        tasks: vec![task.to_owned()],
    };
    let is_there = dir.join("meta").join("info.json").exists();
    Ok(if is_there { Recorder::resume(dir, spec)? } else { Recorder::create(dir, spec)? })
}

/// How many episodes, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpisodesOptions {
    /// So many; without it until someone stops.
    pub(crate) count: Option<usize>,
    /// Longest episode; without it as long as the run, or until a key.
    pub(crate) episode: Option<Duration>,
    /// Time between episodes, in which things are put back; without it until a key.
    pub(crate) reset: Option<Duration>,
}

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Since that time of the run.
    Recording(Duration),
    /// Between episodes, since that time of the run.
    Resetting(Duration),
    /// All are there.
    Done,
}

/// Records while it watches.
pub(crate) struct Episodes {
    recorder: Recorder,
    task: String,
    options: EpisodesOptions,
    switch: StopSwitch,
    progress: Progress,
    phase: Option<Phase>,
}

impl Episodes {
    pub(crate) fn new(
        recorder: Recorder,
        task: &str,
        options: EpisodesOptions,
        (switch, progress): (StopSwitch, Progress),
    ) -> Self {
        Self { recorder, task: task.to_owned(), options, switch, progress, phase: None }
    }

    /// Before each step's frame: whether something begins or ends here.
    fn turn(&mut self, now: Duration) -> Result<(), RecorderError> {
        let asked = self.progress.take();
        let over = |since: Duration, limit: Option<Duration>| limit.is_some_and(|limit| now >= since + limit);
        match self.phase {
            None => self.begin(now)?,
            Some(Phase::Recording(_)) if asked == Some(Next::Again) => {
                self.recorder.discard_episode()?;
                self.begin(now)?;
            }
            Some(Phase::Recording(since))
                if asked == Some(Next::Advance) || over(since, self.options.episode) =>
            {
                self.save()?;
                let wanted = self.options.count.is_some_and(|count| self.progress.saved().len() >= count);
                self.phase = Some(if wanted { Phase::Done } else { Phase::Resetting(now) });
                if wanted {
                    self.switch.stop();
                }
            }
            Some(Phase::Resetting(since)) if asked.is_some() || over(since, self.options.reset) => {
                self.begin(now)?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, now: Duration) -> Result<(), RecorderError> {
        self.recorder.start_episode(&self.task)?;
        self.phase = Some(Phase::Recording(now));
        Ok(())
    }

    fn save(&mut self) -> Result<(), RecorderError> {
        if self.recorder.frames() == 0 {
            return self.recorder.discard_episode();
        }
        let saved = self.recorder.save_episode()?;
        if saved.refused > 0 {
            let (episode, refused) = (saved.episode, saved.refused);
            self.progress.problem(format!(
                "episode {episode} lacks {refused} frames: this computer does not encode images fast enough; smaller images or \
                 a lower --fps help"
            ));
        }
        self.progress.lock().saved.push(saved);
        Ok(())
    }

    fn frame(&mut self, tick: &Tick<'_>) -> Result<(), RecorderError> {
        let (Some(observation), Some(sent)) = (tick.observation, tick.sent) else { return Ok(()) };
        if !matches!(self.phase, Some(Phase::Recording(_))) || tick.origin == Origin::Hold {
            return Ok(());
        }
        let intervention = ExtraValue::Bool(tick.origin == Origin::Intervention);
        match self.recorder.add_frame(&NewFrame {
            state: &observation.positions,
            action: sent,
            images: &observation.frames,
            extras: &[intervention],
            timestamp: None,
        }) {
            // Counted, and said with the episode.
            Err(RecorderError::Behind { .. }) => Ok(()),
            other => other,
        }
    }

    fn describe(&self, now: Duration) -> String {
        let saved = self.progress.saved().len();
        let of = self.options.count.map(|count| format!(" of {count}")).unwrap_or_default();
        match self.phase {
            Some(Phase::Recording(since)) => {
                let seconds = now.saturating_sub(since).as_secs_f64();
                format!("● episode {}{of}: {} frames, {seconds:.1} s", saved + 1, self.recorder.frames())
            }
            Some(Phase::Resetting(_)) => format!("{saved}{of} episodes saved; → begins the next"),
            Some(Phase::Done) => format!("{saved}{of} episodes saved"),
            None => String::new(),
        }
    }
}

impl Observer for Episodes {
    fn tick(&mut self, tick: &Tick<'_>) {
        if matches!(tick.state, State::TorqueOff(_)) {
            return;
        }
        let recorded = self.turn(tick.time).and_then(|()| self.frame(tick));
        if let Err(error) = recorded {
            // What cannot be recorded is not worth moving for.
            self.progress.problem(format!("recording stopped: {error}"));
            self.phase = Some(Phase::Done);
            self.switch.stop();
        }
        self.progress.say(self.describe(tick.time));
    }

    /// An episode that was open is saved if people ended the run, and forgotten if a fault did.
    fn ended(&mut self, summary: &Summary) {
        if !matches!(self.phase, Some(Phase::Recording(_))) {
            return;
        }
        let frames = self.recorder.frames();
        let kept = if matches!(summary.end, Reason::Over | Reason::Stopped) {
            self.save()
        } else {
            self.progress
                .problem(format!("the open episode of {frames} frames is forgotten: {}", summary.end));
            self.recorder.discard_episode()
        };
        if let Err(error) = kept {
            self.progress.problem(format!("the last episode is lost: {error}"));
        }
        self.phase = Some(Phase::Done);
    }
}
