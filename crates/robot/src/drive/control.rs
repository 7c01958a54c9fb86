use std::mem::{discriminant, take};
use std::time::{Duration, Instant};

use super::{DriveOptions, observe};
use crate::limits::{Limited, Limiter};
use crate::pace::Pace;
use crate::source::{ActionSource, Moment, Next};
use crate::watchdog::Watchdog;
use crate::{
    Clamp, Clock, Description, Event, Observation, Observer, Origin, Reason, Robot, RobotError, State,
    StopSwitch, Summary, Tick,
};

/// Half of the longest sleep in one piece, so that a stop is noticed sooner than at the next step of a slow loop.
const NAP: Duration = Duration::from_millis(5);

/// A run: what its steps share.
pub(super) struct Control<'a> {
    robot: &'a mut dyn Robot,
    source: &'a mut dyn ActionSource,
    options: &'a DriveOptions,
    observer: &'a mut dyn Observer,
    switch: &'a StopSwitch,
    clock: &'a dyn Clock,
    description: &'a Description,
    limiter: Limiter,
    watchdog: Watchdog,
    pace: Pace,
    start: Instant,
    summary: Summary,
    /// What has happened since observers were told.
    events: Vec<Event>,
    /// Whether the arm was told to hold, and nothing else since.
    held: bool,
    starved: bool,
    /// Which limit changed each joint's goal in the last step.
    clamps: Vec<Option<Clamp>>,
    /// Whether an exchange of this step failed.
    failed: bool,
}

/// What a step comes to.
#[derive(Default)]
struct Decision {
    raw: Option<Vec<f64>>,
    limited: Option<Limited>,
    origin: Option<Origin>,
    /// The source has no more.
    end: Option<Reason>,
}

impl<'a> Control<'a> {
    #[expect(clippy::too_many_arguments, reason = "each is another part of a run, and there is one caller")]
    pub(super) fn new(
        robot: &'a mut dyn Robot,
        source: &'a mut dyn ActionSource,
        options: &'a DriveOptions,
        observer: &'a mut dyn Observer,
        switch: &'a StopSwitch,
        clock: &'a dyn Clock,
        description: &'a Description,
        limiter: Limiter,
    ) -> Self {
        let start = clock.now();
        let cameras = description.cameras.iter().map(|camera| camera.name.clone()).collect();
        Self {
            robot,
            source,
            options,
            observer,
            switch,
            clock,
            description,
            limiter,
            watchdog: Watchdog::new(cameras, start),
            pace: Pace::new(start, options.hz),
            start,
            summary: Summary::new(description.joints.iter().map(|joint| joint.name.clone())),
            events: Vec::new(),
            held: false,
            starved: false,
            clamps: vec![None; description.joints.len()],
            failed: false,
        }
    }

    /// Runs steps until there is a reason to end.
    pub(super) fn run(&mut self) -> Reason {
        loop {
            if self.options.steps.is_some_and(|steps| self.pace.step() >= steps) {
                return Reason::Over;
            }
            self.sleep_until(self.pace.deadline());
            if self.switch.is_stopped() {
                return Reason::Stopped;
            }
            if let Some(end) = self.step() {
                return end;
            }
        }
    }

    /// The arm holds until torque goes off. What observers have not been told is handed over, with the number of the step.
    pub(super) fn finish(mut self, end: &Reason) -> (Summary, Vec<Event>, u64) {
        if !self.held
            && !matches!(end, Reason::Lost(_))
            && let Err(error) = self.robot.hold()
        {
            self.fail(error);
        }
        self.summary.duration = self.clock.now().saturating_duration_since(self.start);
        (self.summary, self.events, self.pace.step())
    }

    fn sleep_until(&self, deadline: Instant) {
        loop {
            let now = self.clock.now();
            if now >= deadline || self.switch.is_stopped() {
                return;
            }
            if deadline - now > 2 * NAP {
                self.clock.nap(NAP);
            } else {
                self.clock.sleep_until(deadline);
            }
        }
    }

    fn step(&mut self) -> Option<Reason> {
        let begun = self.clock.now();
        self.failed = false;
        let observation = self.observe();
        let observed = self.clock.now();
        let decision = self.decide(observation.as_ref(), observed);
        let decided = self.clock.now();
        let (sent, acting) = self.act(&decision);
        if observation.is_some() && !self.failed {
            self.watchdog.succeeded();
        }

        let told = self.clock.now();
        let state = self.watchdog.state();
        self.observer.tick(&Tick {
            step: self.pace.step(),
            time: begun.saturating_duration_since(self.start),
            observation: observation.as_ref(),
            raw: decision.raw.as_deref(),
            sent: sent.as_deref(),
            origin: decision.origin.filter(|_| sent.is_some()).unwrap_or(Origin::Hold),
            queued: self.source.queued(),
            state,
            events: &self.events,
        });
        self.events.clear();
        let end = match state {
            State::TorqueOff(reason) => Some(reason.clone()),
            State::Running | State::Holding { .. } if self.switch.is_stopped() => Some(Reason::Stopped),
            State::Running | State::Holding { .. } => decision.end,
        };
        let done = self.clock.now();

        self.summary.steps += 1;
        self.summary.held += u64::from(matches!(state, State::Holding { .. }));
        self.summary.interventions += u64::from(decision.origin == Some(Origin::Intervention));
        self.summary.lateness.record(begun.saturating_duration_since(self.pace.deadline()));
        let took = |from: Instant, to: Instant| to.saturating_duration_since(from);
        self.count([took(begun, observed), took(observed, decided), acting, took(told, done)], done);
        end
    }

    fn observe(&mut self) -> Option<Observation> {
        match observe(self.robot, self.description) {
            Ok(observation) => {
                self.watchdog.observed(&observation);
                observation.problems.iter().for_each(|problem| self.fail(problem.clone()));
                Some(observation)
            }
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    fn decide(&mut self, observation: Option<&Observation>, now: Instant) -> Decision {
        self.judge(now);
        let asked = match self.watchdog.state() {
            State::Running => true,
            // Only its answer ends this hold.
            State::Holding { reason, .. } => matches!(reason, Reason::NoAction { .. }),
            State::TorqueOff(_) => false,
        };
        let Some(observation) = observation.filter(|_| asked) else { return Decision::default() };
        if self.held {
            // It goes on from where it stands.
            self.limiter.stands_at(&observation.positions);
            self.held = *self.watchdog.state() != State::Running;
        }

        let period = Duration::from_secs_f64(1.0 / self.options.hz);
        let moment = Moment { now, period, robot: self.description, observation };
        let known = self.events.len();
        let next = self.source.next(&moment, &mut self.events);
        let is_problem = |event: &&Event| matches!(event, Event::ChunkFailed(_) | Event::LeaderFailed(_));
        if let Some(problem) = self.events[known..].iter().rfind(is_problem) {
            self.watchdog.problem(problem.to_string());
        }
        let starved = next == Next::Starved;
        if starved && !self.starved {
            self.events.push(Event::Starved);
        }
        self.starved = starved;
        match next {
            Next::Finished => Decision { end: Some(Reason::Over), ..Decision::default() },
            Next::Broken(problem) => Decision { end: Some(Reason::Source(problem)), ..Decision::default() },
            Next::Waiting => {
                self.summary.waited += 1;
                self.stay(observation)
            }
            Next::Starved => {
                self.summary.starved += 1;
                self.stay(observation)
            }
            Next::Act(action, origin) => self.follow(action, origin, observation, now),
        }
    }

    /// The arm is to go where the source says.
    fn follow(
        &mut self,
        action: Vec<f64>,
        origin: Origin,
        observation: &Observation,
        now: Instant,
    ) -> Decision {
        match self.limiter.limit(&action, &observation.positions) {
            Ok(limited) => {
                self.watchdog.acted(now);
                self.judge(now);
                self.held = false;
                Decision { raw: Some(action), limited: Some(limited), origin: Some(origin), end: None }
            }
            Err(refusal) => {
                self.summary.refused += 1;
                self.watchdog.problem(refusal.to_string());
                self.events.push(Event::Refused(refusal));
                Decision { raw: Some(action), ..self.stay(observation) }
            }
        }
    }

    /// The arm is to stay where it was told to be last, unless it holds anyway.
    fn stay(&self, observation: &Observation) -> Decision {
        let limited = self.limiter.limit(self.limiter.last(), &observation.positions).ok();
        Decision {
            limited: limited.filter(|_| !self.held),
            origin: Some(Origin::Hold),
            ..Decision::default()
        }
    }

    /// Asks the watchdog, and tells what changes.
    fn judge(&mut self, now: Instant) {
        let before = self.watchdog.state().clone();
        match (before, self.watchdog.judge(now, self.switch.is_held())) {
            (State::Holding { since, .. }, State::Running) => {
                self.events.push(Event::Recovered { after: now.saturating_duration_since(since) });
            }
            (State::Holding { reason: old, .. }, State::Holding { reason, .. })
                if discriminant(&old) == discriminant(reason) => {}
            (_, State::Holding { reason, .. }) => {
                self.events.push(Event::Holding(reason.clone()));
                if !matches!(reason, Reason::NoAction { .. }) {
                    self.source.interrupt();
                }
            }
            _ => {}
        }
    }

    /// Sends what was decided, or makes the arm hold. Says what was sent, and how long the exchanges took.
    fn act(&mut self, decision: &Decision) -> (Option<Vec<f64>>, Duration) {
        let begun = self.clock.now();
        match (self.watchdog.state(), &decision.limited) {
            (State::Running, Some(limited)) => {
                self.note_clamps(limited);
                self.send(limited)
            }
            (State::Holding { .. }, _) if !self.held => {
                match self.robot.hold() {
                    Ok(()) => self.held = true,
                    Err(error) => self.fail(error),
                }
                (None, self.clock.now().saturating_duration_since(begun))
            }
            _ => (None, Duration::ZERO),
        }
    }

    /// Sends a goal, and those before it on the way if commands are more frequent than steps. A command whose time has passed is
    /// left out; the last is the goal itself.
    fn send(&mut self, limited: &Limited) -> (Option<Vec<f64>>, Duration) {
        let goal = &limited.goal;
        let from = self.limiter.last().to_vec();
        let sends = self.options.sends();
        let mut acting = Duration::ZERO;
        let mut sent = None;
        for number in 1..=sends {
            let share = |number: u32| f64::from(number) / f64::from(sends);
            if number < sends && self.clock.now() >= self.pace.within(share(number)) {
                continue;
            }
            self.sleep_until(self.pace.within(share(number - 1)));
            if self.switch.is_stopped() {
                break;
            }
            let way = from.iter().zip(goal).map(|(from, goal)| {
                let there = from + (goal - from) * share(number);
                there.clamp(from.min(*goal), from.max(*goal))
            });
            let command: Vec<f64> = if number < sends { way.collect() } else { goal.clone() };
            let begun = self.clock.now();
            let result = self.robot.act(&command);
            acting += self.clock.now().saturating_duration_since(begun);
            match result {
                Ok(()) => {
                    self.limiter.sent(&command);
                    sent = Some(command);
                }
                Err(error) => {
                    self.fail(error);
                    break;
                }
            }
        }
        (sent, acting)
    }

    fn note_clamps(&mut self, limited: &Limited) {
        let before = take(&mut self.clamps);
        for (index, joint) in self.description.joints.iter().enumerate() {
            let clamped = limited.clamped.iter().find(|clamped| clamped.joint == joint.name);
            self.clamps.push(clamped.map(|clamped| clamped.by));
            if let Some(clamped) = clamped {
                self.summary.clamped[index].1 += 1;
                if before[index] != Some(clamped.by) {
                    self.events.push(Event::Clamped(clamped.clone()));
                }
            }
        }
    }

    fn fail(&mut self, error: RobotError) {
        self.failed = true;
        self.summary.failures += 1;
        self.watchdog.failed(&error);
        // The hold has told it, and lasts as long as it does.
        let told = matches!(self.watchdog.state(), State::Holding { reason: Reason::Failures { .. }, .. });
        if !told {
            self.events.push(Event::RobotFailed(error));
        }
    }

    /// Counts a step's times, and goes to the next.
    fn count(&mut self, took: [Duration; 4], done: Instant) {
        let longest = self.summary.sections.record(took);
        self.summary.overruns += u64::from(done > self.pace.within(1.0));
        let skipped = self.pace.advance(done);
        self.summary.skipped += skipped;
        if skipped > 0 {
            let (section, took) = longest;
            self.events.push(Event::Overrun { skipped, section, took });
        }
    }
}
