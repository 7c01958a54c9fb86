//! What happens in a loop, line by line.

use skillweld_robot::{Clamp, Clamped, Event, Observer, Tick};

use crate::console::Console;

/// Events as notes and warnings on standard error; of what happens all the time the first.
pub(crate) struct EventLog {
    console: Console,
    chunks: u64,
    /// Joints and limits that were told; how often, the end says.
    clamped: Vec<(String, Clamp)>,
}

impl EventLog {
    pub(crate) fn new(console: Console) -> Self {
        Self { console, chunks: 0, clamped: Vec::new() }
    }
}

impl Observer for EventLog {
    fn tick(&mut self, tick: &Tick<'_>) {
        for event in tick.events {
            let line = format!("{:7.2} s  {event}", tick.time.as_secs_f64());
            match event {
                // The first says which task was routed to; a line for each would hide all others.
                Event::Chunk { routing, .. } => {
                    self.chunks += 1;
                    if self.chunks == 1 || routing.is_some() {
                        self.console.note(&line);
                    }
                }
                Event::Clamped(Clamped { joint, by, .. }) => {
                    let limit = (joint.clone(), *by);
                    if !self.clamped.contains(&limit) {
                        self.console.note(&line);
                        self.clamped.push(limit);
                    }
                }
                Event::InterventionBegins
                | Event::InterventionEnds
                | Event::Recovered { .. }
                | Event::TorqueOff(_) => {
                    self.console.note(&line);
                }
                _ => self.console.warn(&line),
            }
        }
    }
}
