//! What happens in a loop, line by line.

use std::time::Duration;

use anyhow::Result;
use skillweld_robot::{Clamp, Clamped, Description, Event, Observer, Summary, Tick};

use super::aside::Aside;
use super::recording::Progress;
use crate::console::Console;

/// Lines that may wait for the terminal.
const LINES: usize = 256;
/// So often a dry run says what would be sent.
const SAMPLE: Duration = Duration::from_secs(1);

/// Events as notes and warnings on standard error; of what happens all the time the first.
pub(crate) struct EventLog {
    lines: Aside<Line>,
    /// Lines for which there was no room.
    left_out: u64,
    chunks: u64,
    /// Joints and limits that were told; how often, the end says.
    clamped: Vec<(String, Clamp)>,
    goals: Option<Goals>,
    progress: Progress,
}

struct Line {
    text: String,
    warns: bool,
}

/// What a dry run says beside events.
struct Goals {
    /// Names of the joints.
    joints: Vec<String>,
    /// When the next line is due, since the start.
    due: Duration,
}

impl EventLog {
    /// A log on standard error; of a robot that is told nothing, with what it would be told.
    pub(crate) fn start(console: Console, dry_run: Option<&Description>, progress: Progress) -> Result<Self> {
        Self::to(dry_run, progress, move |line: Line| {
            if line.warns { console.warn(&line.text) } else { console.note(&line.text) }
        })
    }

    fn to(
        dry_run: Option<&Description>,
        progress: Progress,
        write: impl FnMut(Line) + Send + 'static,
    ) -> Result<Self> {
        let joints = dry_run.map(|robot| robot.joints.iter().map(|joint| joint.name.clone()).collect());
        Ok(Self {
            lines: Aside::start("event log", LINES, write)?,
            left_out: 0,
            chunks: 0,
            clamped: Vec::new(),
            goals: joints.map(|joints| Goals { joints, due: Duration::ZERO }),
            progress,
        })
    }

    fn say(&mut self, time: Duration, text: impl std::fmt::Display, warns: bool) {
        let text = format!("{:7.2} s  {text}", time.as_secs_f64());
        self.left_out += u64::from(!self.lines.offer(Line { text, warns }));
    }

    fn event(&mut self, time: Duration, event: &Event) {
        match event {
            // The first says which task was routed to; a line for each would hide all others.
            Event::Chunk { routing, .. } => {
                self.chunks += 1;
                if self.chunks == 1 || routing.is_some() {
                    self.say(time, event, false);
                }
            }
            Event::Clamped(Clamped { joint, by, .. }) => {
                let limit = (joint.clone(), *by);
                if !self.clamped.contains(&limit) {
                    self.say(time, event, false);
                    self.clamped.push(limit);
                }
            }
            Event::InterventionBegins
            | Event::InterventionEnds
            | Event::Recovered { .. }
            | Event::TorqueOff(_) => self.say(time, event, false),
            _ => self.say(time, event, true),
        }
    }

    /// Lets what waits be written, and says how much did not come so far.
    fn finish(&mut self) {
        self.lines.finish();
        if self.left_out > 0 {
            self.progress.remark(format!(
                "{} lines of the log are left out: the terminal did not take them",
                self.left_out
            ));
        }
    }
}

impl Observer for EventLog {
    fn tick(&mut self, tick: &Tick<'_>) {
        tick.events.iter().for_each(|event| self.event(tick.time, event));
        if let (Some(goals), Some(sent)) = (&mut self.goals, tick.sent)
            && tick.time >= goals.due
        {
            goals.due = tick.time + SAMPLE;
            let each = goals.joints.iter().zip(sent).map(|(joint, goal)| format!("{joint} {goal:.2}"));
            let line = format!("would be sent: {}", each.collect::<Vec<_>>().join(", "));
            self.say(tick.time, line, false);
        }
    }

    fn ended(&mut self, _summary: &Summary) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use skillweld_robot::{Origin, State};

    use super::*;
    use crate::drive::view::tests::robot;

    fn tick(log: &mut EventLog, step: u64, sent: Option<&[f64]>, events: &[Event]) {
        let time = Duration::from_millis(step * 250);
        let (observation, raw, queued, state) = (None, None, None, &State::Running);
        let origin = Origin::Policy;
        log.tick(&Tick { step, time, observation, raw, sent, origin, queued, state, events });
    }

    #[test]
    fn a_terminal_that_stands_still_does_not_stop_the_loop() {
        let progress = Progress::default();
        let (go_on, stands_still) = channel::<()>();
        let (write, written) = channel();
        let mut log = EventLog::to(None, progress.clone(), move |line: Line| {
            // As a write to a terminal after Ctrl-S.
            let _ = stands_still.recv();
            let _ = write.send(line.text);
        })
        .unwrap();
        let count = 2 * LINES as u64;
        // None of them comes back before the terminal goes on, if the loop's thread writes.
        (0..count).for_each(|step| tick(&mut log, step, None, &[Event::Starved]));
        // The thread holds one line, or has not come to it.
        let room = LINES as u64;
        assert!((count - room - 1..=count - room).contains(&log.left_out), "{} left out", log.left_out);
        drop(go_on);
        log.finish();
        let lines: Vec<String> = written.try_iter().collect();
        assert_eq!(lines.len() as u64, count - log.left_out);
        assert!(lines[0].starts_with("   0.00 s  no action is there"), "{}", lines[0]);
        let lost = format!("{} lines of the log are left out", log.left_out);
        assert!(progress.remarks()[0].starts_with(&lost), "{:?}", progress.remarks());
    }

    #[test]
    fn a_dry_run_says_once_a_second_what_would_be_sent() {
        let robot = robot();
        let (write, written) = channel();
        let mut log = EventLog::to(Some(&robot), Progress::default(), move |line: Line| {
            let _ = write.send(line.text);
        })
        .unwrap();
        tick(&mut log, 0, None, &[]);
        (1..=8).for_each(|step| tick(&mut log, step, Some(&[step as f64, -0.5]), &[]));
        log.finish();
        let lines: Vec<String> = written.try_iter().collect();
        assert_eq!(
            lines,
            [
                "   0.25 s  would be sent: pan 1.00, lift -0.50",
                "   1.25 s  would be sent: pan 5.00, lift -0.50"
            ]
        );
    }
}
