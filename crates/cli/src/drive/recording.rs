//! A loop's steps as episodes of a LeRobot dataset.

mod book;
mod progress;

use std::thread::JoinHandle;
use std::time::Duration;

use skillweld_recorder::{ExtraValue, NewFrame, Recorder, RecorderError, Saved};
use skillweld_robot::{Observer, Origin, Reason, State, StopSwitch, Summary, Tick};

pub(crate) use book::Book;
pub(crate) use progress::{Next, Progress};

use crate::console::Console;

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
    /// The disk has to do, on a thread of its own: it may take seconds, and the arm must be stoppable meanwhile.
    Working(Work),
    /// Since that time of the run.
    Recording(Recorder, Duration),
    /// Between episodes, since that time of the run.
    Resetting(Recorder, Duration),
    /// Nothing more is recorded. A recorder goes when torque is off, and with it what it has of an open episode.
    Over(Option<Recorder>),
}

/// What the disk does.
enum Work {
    /// An episode is begun.
    Begin(JoinHandle<Result<Recorder, RecorderError>>),
    /// An episode is saved; one without frames is forgotten.
    Save(JoinHandle<Result<(Recorder, Option<Saved>), RecorderError>>),
}

/// Records while it watches.
pub(crate) struct Episodes {
    task: String,
    options: EpisodesOptions,
    switch: StopSwitch,
    progress: Progress,
    console: Console,
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
        console: Console,
    ) -> Self {
        let (task, phase) = (task.to_owned(), Phase::Begins(book));
        Self { task, options, switch, progress, console, phase, last_step: None, lost: 0 }
    }

    /// Before each step's frame: whether something begins or ends here.
    fn turn(&mut self, now: Duration) -> Result<(), RecorderError> {
        let asked = self.progress.take();
        let over = |since: Duration, limit: Option<Duration>| {
            asked == Some(Next::Advance) || limit.is_some_and(|limit| now >= since + limit)
        };
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over(None)) {
            Phase::Begins(book) => self.begin(|| book.recorder()),
            Phase::Recording(mut recorder, _) if asked == Some(Next::Again) => {
                self.begin(move || recorder.discard_episode().map(|()| recorder))
            }
            Phase::Recording(recorder, since) if over(since, self.options.episode) => save(recorder),
            Phase::Working(Work::Begin(thread)) if thread.is_finished() => {
                (self.last_step, self.lost) = (None, 0);
                Phase::Recording(joined(thread)?, now)
            }
            Phase::Working(Work::Save(thread)) if thread.is_finished() => {
                let (recorder, saved) = joined(thread)?;
                self.note(saved);
                if self.progress.saved().len() >= self.options.count {
                    self.switch.stop();
                    Phase::Over(Some(recorder))
                } else {
                    Phase::Resetting(recorder, now)
                }
            }
            Phase::Resetting(recorder, since) if over(since, self.options.reset) => {
                self.begin(move || Ok(recorder))
            }
            other => other,
        };
        Ok(())
    }

    /// Begins an episode with the recorder that comes of `ready`.
    fn begin(&self, ready: impl FnOnce() -> Result<Recorder, RecorderError> + Send + 'static) -> Phase {
        let task = self.task.clone();
        Phase::Working(Work::Begin(std::thread::spawn(move || {
            let mut recorder = ready()?;
            recorder.start_episode(&task)?;
            Ok(recorder)
        })))
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
        self.progress.keep(saved);
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
        });
        match added {
            // Counted, and said with the episode.
            Err(RecorderError::Behind { .. }) => Ok(()),
            other => other,
        }
    }

    /// What cannot be recorded is not worth moving for.
    fn give_up(&mut self, error: &RecorderError) {
        self.progress.problem(format!("recording stopped: {error}"));
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over(None)) {
            Phase::Recording(recorder, _) => Phase::Over(Some(recorder)),
            other => other,
        };
        self.switch.stop();
    }

    fn describe(&self, now: Duration) -> String {
        let saved = self.progress.saved().len();
        let of = format!(" of {}", self.options.count);
        match &self.phase {
            Phase::Begins(_) => String::new(),
            Phase::Working(Work::Begin(_)) => format!("episode {}{of} begins", saved + 1),
            Phase::Working(Work::Save(_)) => format!("episode {}{of} is being saved", saved + 1),
            Phase::Recording(recorder, since) => {
                let seconds = now.saturating_sub(*since).as_secs_f64();
                format!("● episode {}{of}: {} frames, {seconds:.1} s", saved + 1, recorder.frames())
            }
            Phase::Resetting(..) => format!("{saved}{of} episodes saved; → begins the next"),
            Phase::Over(_) => format!("{saved}{of} episodes saved"),
        }
    }

    /// An episode that was open is saved if people ended the run, and forgotten if a fault did. Torque is off: there is time, and
    /// who does not want to wait may end the program, which loses this episode and no other.
    fn end(&mut self, end: &Reason) {
        let phase = match std::mem::replace(&mut self.phase, Phase::Over(None)) {
            Phase::Recording(recorder, _) if matches!(end, Reason::Over | Reason::Stopped) => save(recorder),
            Phase::Recording(recorder, _) => {
                let frames = recorder.frames();
                self.progress.problem(format!("the open episode of {frames} frames is forgotten: {end}"));
                Phase::Over(Some(recorder))
            }
            other => other,
        };
        let ended = match phase {
            Phase::Working(Work::Save(thread)) => {
                // After the thread has begun: this may be a terminal that stands still.
                let episode = self.progress.saved().len() + 1;
                self.console.note(&format!(
                    "saving episode {episode} of {}; Ctrl-C ends the program, and this episode is lost",
                    self.options.count
                ));
                joined(thread).map(|(_, saved)| self.note(saved))
            }
            Phase::Working(Work::Begin(thread)) => joined(thread).map(drop),
            Phase::Over(recorder) => {
                drop(recorder);
                Ok(())
            }
            Phase::Begins(_) | Phase::Recording(..) | Phase::Resetting(..) => Ok(()),
        };
        if let Err(error) = ended {
            self.progress.problem(format!("the last episode is lost: {error}"));
        }
    }
}

/// Saves the open episode; one without frames is forgotten.
fn save(mut recorder: Recorder) -> Phase {
    Phase::Working(Work::Save(std::thread::spawn(move || {
        if recorder.frames() == 0 {
            recorder.discard_episode()?;
            return Ok((recorder, None));
        }
        let saved = match recorder.save_episode() {
            // What the encoder's program met may be over: killed for want of memory, for example. The episode is still there.
            Err(RecorderError::Encoder { .. }) => recorder.save_episode(),
            saved => saved,
        }?;
        Ok((recorder, Some(saved)))
    })))
}

/// What came of a thread's work.
fn joined<T>(thread: JoinHandle<Result<T, RecorderError>>) -> Result<T, RecorderError> {
    let panicked = RecorderError::State("the thread that works for the recording has ended by a panic");
    thread.join().unwrap_or(Err(panicked))
}

impl Observer for Episodes {
    fn tick(&mut self, tick: &Tick<'_>) {
        if matches!(tick.state, State::TorqueOff(_)) {
            return;
        }
        if let Err(error) = self.turn(tick.time).and_then(|()| self.frame(tick)) {
            self.give_up(&error);
        }
        self.progress.say(self.describe(tick.time));
    }

    fn ended(&mut self, summary: &Summary) {
        self.end(&summary.end);
    }
}

#[cfg(test)]
mod tests;
