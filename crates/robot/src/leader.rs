use crate::agreement::same_joints;
use crate::approach::Approach;
use crate::source::{ActionSource, Moment, Next};
use crate::{Description, Disagreement, Durations, Event, Origin, Robot, RobotError, StopSwitch};

/// A leader arm: where its joints are is where the other arm's joints are to be. At the start, and after the arm held or was
/// led by something else, the arm comes to the leader slowly.
///
/// It is only observed, never told anything; its driver's `connect` leaves torque off, so that people can move it.
pub struct Leader {
    arm: Box<dyn Robot>,
    failing: bool,
    approach: Approach,
}

impl Leader {
    /// A leader arm that is connected when a run begins.
    pub fn new(arm: impl Robot + 'static) -> Self {
        Self { arm: Box::new(arm), failing: false, approach: Approach::default() }
    }

    /// Where the leader is, in the order of its joints.
    fn read(&mut self, origin: Origin, moment: &Moment<'_>, events: &mut Vec<Event>) -> Next {
        match self.arm.observe() {
            Ok(observation) => {
                self.failing = false;
                Next::Act(self.approach.towards(observation.positions, moment, events).0, origin)
            }
            Err(error) => {
                if !self.failing {
                    events.push(Event::LeaderFailed(error));
                }
                self.failing = true;
                // A hand may have moved it meanwhile.
                self.approach = Approach::default();
                Next::Starved
            }
        }
    }
}

impl ActionSource for Leader {
    fn agree(&self, robot: &Description) -> Result<(), Disagreement> {
        let joints = &self.arm.describe().joints;
        let names: Vec<_> = joints.iter().map(|joint| joint.name.clone()).collect();
        let units: Vec<_> = joints.iter().map(|joint| joint.unit).collect();
        same_joints("the leader arm", joints.len(), Some(&names), Some(&units), robot)
    }

    fn start(&mut self) -> Result<(), RobotError> {
        self.failing = false;
        self.approach = Approach::default();
        self.arm.connect()
    }

    fn next(&mut self, moment: &Moment<'_>, events: &mut Vec<Event>) -> Next {
        self.read(Origin::Leader, moment, events)
    }

    fn interrupt(&mut self) {
        self.approach = Approach::default();
    }

    fn stop(&mut self) {
        // Its torque was never on.
        let _ = self.arm.stop();
    }
}

/// A policy, or another source, that a person may correct: while [`StopSwitch::intervene`] is on, the leader arm is followed and
/// its commands are tagged [`Origin::Intervention`]; afterwards the source starts from what it sees then.
pub struct WithLeader<S> {
    source: S,
    leader: Leader,
    switch: StopSwitch,
    intervening: bool,
}

impl<S: ActionSource> WithLeader<S> {
    /// `switch` is a clone of the one that the loop is given.
    pub fn new(source: S, leader: Leader, switch: StopSwitch) -> Self {
        Self { source, leader, switch, intervening: false }
    }
}

impl<S: ActionSource> ActionSource for WithLeader<S> {
    fn agree(&self, robot: &Description) -> Result<(), Disagreement> {
        self.source.agree(robot)?;
        self.leader.agree(robot)
    }

    fn start(&mut self) -> Result<(), RobotError> {
        self.intervening = false;
        self.leader.start()?;
        self.source.start()
    }

    fn next(&mut self, moment: &Moment<'_>, events: &mut Vec<Event>) -> Next {
        let asked = self.switch.is_intervening();
        if asked != self.intervening {
            self.intervening = asked;
            self.interrupt();
            events.push(if asked { Event::InterventionBegins } else { Event::InterventionEnds });
        }
        if asked {
            self.leader.read(Origin::Intervention, moment, events)
        } else {
            self.source.next(moment, events)
        }
    }

    fn interrupt(&mut self) {
        self.source.interrupt();
        self.leader.interrupt();
    }

    fn stop(&mut self) {
        self.source.stop();
        self.leader.stop();
    }

    fn queued(&self) -> Option<usize> {
        self.source.queued()
    }

    fn latencies(&self) -> Option<&Durations> {
        self.source.latencies()
    }
}
