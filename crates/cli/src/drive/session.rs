//! One run of a loop and everything around it: signals, keys, a view or a log, what is recorded, how it went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use skillweld_robot::{ActionSource, DriveOptions, DryRun, Observer, Robot, StopSwitch, Summary, Tick};

use super::keys::{Keys, Offered};
use super::recording::{Book, Episodes, EpisodesOptions, Progress};
use super::rerun::Log;
use super::{events::EventLog, summary, view::View};
use crate::Outcome;
use crate::console::{Console, print_json};

/// What signals do: end the process as ever, until the arm may have torque; from then on they throw the switch, however often,
/// and nothing ends the process before torque is off. Ctrl-Z too: a process that sleeps holds an arm for ever. Afterwards, while
/// an episode is saved, they end the process again.
pub(crate) struct Signals {
    pub(crate) switch: StopSwitch,
    may_end: Arc<AtomicBool>,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        let (switch, may_end) = (StopSwitch::new(), Arc::new(AtomicBool::new(true)));
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&may_end))?;
            signal_hook::flag::register(signal, switch.stop_flag())?;
        }
        Ok(Self { switch, may_end })
    }
}

/// A person's end of a run. In this order they end: signals, so that nothing that stands still keeps the process; what is shown,
/// which gives back the terminal as the keys had set it; the keys.
struct Front {
    may_end: Arc<AtomicBool>,
    shown: Option<Box<dyn Observer>>,
    keys: Option<Keys>,
}

impl Observer for Front {
    fn tick(&mut self, tick: &Tick<'_>) {
        if let Some(shown) = &mut self.shown {
            shown.tick(tick);
        }
    }

    fn ended(&mut self, summary: &Summary) {
        self.may_end.store(true, Ordering::SeqCst);
        if let Some(mut shown) = self.shown.take() {
            shown.ended(summary);
        }
        self.keys = None;
    }
}

/// How a run is shown and kept.
pub(crate) struct Session<'a> {
    pub(crate) console: Console,
    /// In a line, who drives what.
    pub(crate) title: String,
    pub(crate) task: &'a str,
    /// A leader arm may take over.
    pub(crate) leader: bool,
    pub(crate) record: Option<(Book, EpisodesOptions)>,
    pub(crate) rerun: Option<Log>,
    pub(crate) dry_run: bool,
    pub(crate) view: bool,
    pub(crate) json: bool,
}

impl Session<'_> {
    /// Drives until it is over, and says how it went.
    pub(crate) fn run(
        self,
        mut robot: Box<dyn Robot>,
        source: &mut dyn ActionSource,
        options: &DriveOptions,
        signals: &Signals,
    ) -> Result<Outcome> {
        let Self { console, title, task, leader, record, rerun, dry_run, view, json } = self;
        let (switch, progress) = (&signals.switch, Progress::default());
        let offered = Offered { leader, record: record.is_some() };
        let description = robot.describe().clone();
        let keys = Keys::listen(switch.clone(), progress.clone(), offered);
        let shown: Box<dyn Observer> = if view {
            let shared = (switch.clone(), progress.clone());
            Box::new(View::open(&title, task, &description, offered, shared)?)
        } else {
            if !json {
                console.note(&format!("{title}, {} steps a second; {}", options.hz, offered.in_words()));
            }
            Box::new(EventLog::start(console, dry_run.then_some(&description), progress.clone())?)
        };
        let may_end = Arc::clone(&signals.may_end);
        // First the front: when the run has ended, the terminal is a plain one while an episode is saved.
        let mut observers: Vec<Box<dyn Observer>> =
            vec![Box::new(Front { may_end, shown: Some(shown), keys: Some(keys) })];
        if let Some((book, options)) = record {
            let shared = (switch.clone(), progress.clone());
            observers.push(Box::new(Episodes::new(book, task, options, shared, console)));
        }
        if let Some(log) = rerun {
            observers.push(log.observer(&title, &description, options.hz, progress.clone())?);
        }
        signals.may_end.store(false, Ordering::SeqCst);
        let (summary, dry) = if dry_run {
            let mut robot = DryRun::new(robot);
            let summary = skillweld_robot::drive(&mut robot, source, options, &mut observers, switch);
            (summary, Some(robot.report().clone()))
        } else {
            (skillweld_robot::drive(&mut robot, source, options, &mut observers, switch), None)
        };
        drop(observers);
        let summary = summary?;
        let (saved, problems, remarks) = (progress.saved(), progress.problems(), progress.remarks());
        if json {
            print_json(&summary::document(&summary, dry.as_ref(), (&saved, &problems, &remarks)))?;
        } else {
            summary::page(&summary, dry.as_ref(), &saved, console).print()?;
        }
        remarks.iter().chain(&problems).for_each(|problem| console.warn(problem));
        Ok(if summary.is_success() && problems.is_empty() { Outcome::Done } else { Outcome::Bad })
    }
}
