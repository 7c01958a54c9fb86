//! A loop's steps as episodes of a LeRobot dataset.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skillweld_recorder::{Extra, ExtraValue, NewFrame, Recorder, RecorderError, Saved, Spec};
use skillweld_robot::{Description, Observer, Origin, Reason, State, StopSwitch, Summary, Tick};

use crate::console::Console;

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
    remarks: Vec<String>,
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

    /// What people should know of what was recorded.
    pub(crate) fn remarks(&self) -> Vec<String> {
        self.lock().remarks.clone()
    }

    pub(super) fn remark(&self, remark: String) {
        self.lock().remarks.push(remark);
    }

    /// What is going on, in a line.
    pub(crate) fn line(&self) -> String {
        self.lock().line.clone()
    }

    fn say(&self, line: String) {
        self.lock().line = line;
    }

    pub(super) fn problem(&self, problem: String) {
        let mut shared = self.lock();
        if !shared.problems.contains(&problem) {
            shared.problems.push(problem);
        }
    }
}

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

    fn recorder(self) -> Result<Recorder, RecorderError> {
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
    ensure!(!dir.exists() || dir.is_dir(), "{} is a file; name a folder for the dataset", dir.display());
    let is_free = !dir.exists() || skillweld_recorder::is_free(dir)?;
    ensure!(is_free, "{} holds something that is no dataset; name another folder", dir.display());
    let above = dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let probe = write_and_remove(above);
    probe.with_context(|| format!("nothing can be written in {}; name another folder", above.display()))
}

/// Makes a file there, and removes it.
fn write_and_remove(folder: &Path) -> std::io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let probe = folder.join(format!(".skillweld-{}", std::process::id()));
    std::fs::File::create_new(&probe)?;
    std::fs::remove_file(probe)
}

/// How many episodes, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpisodesOptions {
    /// So many.
    pub(crate) count: usize,
    /// Longest episode; without it as long as the run, or until a key.
    pub(crate) episode: Option<Duration>,
    /// Time between episodes, in which things are put back; without it until a key.
    pub(crate) reset: Option<Duration>,
}

/// What is going on.
enum Phase {
    /// Nothing yet.
    Begins(Book),
    /// Since that time of the run.
    Recording(Recorder, Duration),
    /// The episode is written, on a thread of its own: a disk may take seconds, and the arm must be stoppable meanwhile.
    Saving(JoinHandle<(Recorder, Result<Option<Saved>, RecorderError>)>),
    /// Between episodes, since that time of the run.
    Resetting(Recorder, Duration),
    /// All are there.
    Done,
}

/// Records while it watches.
pub(crate) struct Episodes {
    task: String,
    options: EpisodesOptions,
    switch: StopSwitch,
    progress: Progress,
    phase: Phase,
    /// The last step that was recorded or held, to see those that the loop left out.
    last_step: Option<u64>,
    lost: u64,
}

impl Episodes {
    pub(crate) fn new(
        book: Book,
        task: &str,
        options: EpisodesOptions,
        (switch, progress): (StopSwitch, Progress),
    ) -> Self {
        let phase = Phase::Begins(book);
        Self { task: task.to_owned(), options, switch, progress, phase, last_step: None, lost: 0 }
    }

    /// Before each step's frame: whether something begins or ends here.
    fn turn(&mut self, now: Duration) -> Result<(), RecorderError> {
        let asked = self.progress.take();
        let over = |since: Duration, limit: Option<Duration>| limit.is_some_and(|limit| now >= since + limit);
        self.phase = match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Begins(book) => self.begin(book.recorder()?, now)?,
            Phase::Recording(mut recorder, _) if asked == Some(Next::Again) => {
                recorder.discard_episode()?;
                self.begin(recorder, now)?
            }
            Phase::Recording(recorder, since)
                if asked == Some(Next::Advance) || over(since, self.options.episode) =>
            {
                Phase::Saving(std::thread::spawn(move || save(recorder)))
            }
            Phase::Saving(thread) if thread.is_finished() => {
                let recorder = self.saved(thread)?;
                if self.progress.saved().len() >= self.options.count {
                    self.switch.stop();
                    Phase::Done
                } else {
                    Phase::Resetting(recorder, now)
                }
            }
            Phase::Resetting(recorder, since)
                if asked == Some(Next::Advance) || over(since, self.options.reset) =>
            {
                self.begin(recorder, now)?
            }
            other => other,
        };
        Ok(())
    }

    fn begin(&mut self, mut recorder: Recorder, now: Duration) -> Result<Phase, RecorderError> {
        recorder.start_episode(&self.task)?;
        (self.last_step, self.lost) = (None, 0);
        Ok(Phase::Recording(recorder, now))
    }

    /// What came of saving.
    fn saved(
        &mut self,
        thread: JoinHandle<(Recorder, Result<Option<Saved>, RecorderError>)>,
    ) -> Result<Recorder, RecorderError> {
        let Ok((recorder, saved)) = thread.join() else {
            return Err(RecorderError::State("the thread that saves an episode has ended by a panic"));
        };
        self.note(saved?);
        Ok(recorder)
    }

    fn note(&mut self, saved: Option<Saved>) {
        let Some(saved) = saved else { return };
        let lost = self.lost + saved.refused as u64;
        if lost > 0 {
            self.progress.remark(format!(
                "episode {} lacks {lost} of {} steps, so it seems faster than it was: this computer does not keep up; smaller \
                 images or a lower --fps help",
                saved.episode,
                lost + saved.frames as u64
            ));
        }
        self.progress.lock().saved.push(saved);
    }

    fn frame(&mut self, tick: &Tick<'_>) -> Result<(), RecorderError> {
        let Phase::Recording(recorder, _) = &mut self.phase else { return Ok(()) };
        self.lost += self.last_step.map_or(0, |last| tick.step.saturating_sub(last + 1));
        self.last_step = Some(tick.step);
        let (Some(observation), Some(sent)) = (tick.observation, tick.sent) else { return Ok(()) };
        if tick.origin == Origin::Hold {
            return Ok(());
        }
        let added = recorder.add_frame(&NewFrame {
            state: &observation.positions,
            action: sent,
            images: &observation.frames,
            extras: &[ExtraValue::Bool(tick.origin == Origin::Intervention)],
            timestamp: None,
        });
        match added {
            // Counted, and said with the episode.
            Err(RecorderError::Behind { .. }) => Ok(()),
            other => other,
        }
    }

    fn describe(&self, now: Duration) -> String {
        let saved = self.progress.saved().len();
        let of = format!(" of {}", self.options.count);
        match &self.phase {
            Phase::Begins(_) => String::new(),
            Phase::Recording(recorder, since) => {
                let seconds = now.saturating_sub(*since).as_secs_f64();
                format!("● episode {}{of}: {} frames, {seconds:.1} s", saved + 1, recorder.frames())
            }
            Phase::Saving(_) => format!("episode {}{of} is being saved", saved + 1),
            Phase::Resetting(..) => format!("{saved}{of} episodes saved; → begins the next"),
            Phase::Done => format!("{saved}{of} episodes saved"),
        }
    }
}

/// Saves the open episode; one without frames is forgotten.
fn save(mut recorder: Recorder) -> (Recorder, Result<Option<Saved>, RecorderError>) {
    let saved = match recorder.frames() {
        0 => recorder.discard_episode().map(|()| None),
        _ => match recorder.save_episode() {
            // What the encoder's program met may be over: killed for want of memory, for example. The episode is still there.
            Err(RecorderError::Encoder { .. }) => recorder.save_episode(),
            saved => saved,
        }
        .map(Some),
    };
    (recorder, saved)
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
            self.phase = Phase::Done;
            self.switch.stop();
        }
        self.progress.say(self.describe(tick.time));
    }

    /// An episode that was open is saved if people ended the run, and forgotten if a fault did. Torque is off: there is time.
    fn ended(&mut self, summary: &Summary) {
        let ended = match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Saving(thread) => self.saved(thread).map(drop),
            Phase::Recording(recorder, _) if matches!(summary.end, Reason::Over | Reason::Stopped) => {
                save(recorder).1.map(|saved| self.note(saved))
            }
            Phase::Recording(mut recorder, _) => {
                let frames = recorder.frames();
                self.progress
                    .problem(format!("the open episode of {frames} frames is forgotten: {}", summary.end));
                recorder.discard_episode()
            }
            Phase::Begins(_) | Phase::Resetting(..) | Phase::Done => Ok(()),
        };
        if let Err(error) = ended {
            self.progress.problem(format!("the last episode is lost: {error}"));
        }
    }
}
