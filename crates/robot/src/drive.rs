//! The control loop.

mod control;
mod guard;

use control::Control;
use guard::TorqueGuard;

use crate::clock::MonotonicClock;
use crate::limits::Limiter;
use crate::scheduling::Punctual;
use crate::source::ActionSource;
use crate::{
    Clock, Description, Disagreement, Event, Observation, Observer, Origin, Robot, RobotError, State,
    StopSwitch, Summary, Tick, watchdog,
};

/// How a robot is driven.
#[derive(Debug, Clone, PartialEq)]
pub struct DriveOptions {
    /// Control steps a second, 0.5 to 1000. 30 by default.
    pub hz: f64,
    /// Commands a second, a multiple of `hz`: goals in between lie on the line from one step's to the next, and arrive up to a
    /// period later. None: one command a step.
    pub send_hz: Option<f64>,
    /// The run is over after so many periods. None: when the source has no more, or someone stops it.
    pub steps: Option<u64>,
    /// How far a goal may lie from where its joint was observed, one number a joint in its unit; LeRobot's
    /// `max_relative_target`. None: what each joint covers in a tenth of a second at its `max_velocity`.
    pub max_step: Option<Vec<f64>>,
}

impl Default for DriveOptions {
    fn default() -> Self {
        Self { hz: 30.0, send_hz: None, steps: None, max_step: None }
    }
}

impl DriveOptions {
    fn check(&self) -> Result<(), DriveError> {
        // An arm that is looked at less often than every two seconds is not driven, and its driver may take the loop for dead.
        if !(0.5..=1000.0).contains(&self.hz) {
            return Err(DriveError::Options(format!("{} control steps a second: give 0.5 to 1000", self.hz)));
        }
        let sends = self.send_hz.unwrap_or(self.hz);
        let ratio = sends / self.hz;
        if !(sends <= 1000.0 && ratio.round() >= 1.0 && (ratio - ratio.round()).abs() < 1e-6) {
            let text = format!("{sends} commands a second: give a multiple of {}, at most 1000", self.hz);
            return Err(DriveError::Options(text));
        }
        Ok(())
    }

    /// Commands a step, at least 1.
    fn sends(&self) -> u32 {
        (self.send_hz.unwrap_or(self.hz) / self.hz).round() as u32
    }
}

/// Why a run did not begin. What ends one that has begun stands in its [`Summary`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DriveError {
    /// The source of actions does not fit the robot.
    #[error(transparent)]
    Disagreement(#[from] Disagreement),
    /// Options or a description that make no sense.
    #[error("{0}")]
    Options(String),
    /// The robot, or the leader arm, cannot be had.
    #[error(transparent)]
    Robot(#[from] RobotError),
    /// Someone asked for a stop before the robot was connected.
    #[error("stopped before anything moved")]
    Stopped,
    /// A joint stands where it must not be driven from.
    #[error(
        "joint {joint} stands at {position:.1} {unit}, outside of its range {min:.1} to {max:.1}: move it inside by hand, or \
         calibrate again"
    )]
    OutOfRange {
        /// The joint's name.
        joint: String,
        /// Where it stands, in `unit`.
        position: f64,
        /// Its unit.
        unit: crate::Unit,
        /// Its range's lower end.
        min: f64,
        /// Its range's upper end.
        max: f64,
    },
    /// A run did not begin, and torque could not be turned off.
    #[error("{cause}; and torque may still be on: {error}")]
    TorqueMayBeOn {
        /// Why the run did not begin.
        cause: Box<DriveError>,
        /// Why torque may be on, with what to do.
        error: RobotError,
    },
}

/// Connects a robot, and lets it follow `source` until that is over, someone stops it, or something is wrong; torque is off
/// afterwards, also if this panics.
///
/// Every step observes the robot, asks the source, brings its action within the limits, sends it, and tells the observer.
///
/// # Errors
/// [`DriveError`] if nothing has moved. Whatever happens later is told by the [`Summary`].
pub fn drive(
    robot: &mut dyn Robot,
    source: &mut dyn ActionSource,
    options: &DriveOptions,
    observer: &mut dyn Observer,
    switch: &StopSwitch,
) -> Result<Summary, DriveError> {
    run(robot, source, options, observer, switch, None)
}

/// [`drive`] by another clock, which a test moves.
///
/// # Errors
/// [`DriveError`], as [`drive`].
pub fn drive_by_clock(
    robot: &mut dyn Robot,
    source: &mut dyn ActionSource,
    options: &DriveOptions,
    observer: &mut dyn Observer,
    switch: &StopSwitch,
    clock: &dyn Clock,
) -> Result<Summary, DriveError> {
    run(robot, source, options, observer, switch, Some(clock))
}

/// By `clock`, or else by the machine's.
fn run(
    robot: &mut dyn Robot,
    source: &mut dyn ActionSource,
    options: &DriveOptions,
    observer: &mut dyn Observer,
    switch: &StopSwitch,
    clock: Option<&dyn Clock>,
) -> Result<Summary, DriveError> {
    options.check()?;
    let description = robot.describe().clone();
    let limiter = Limiter::new(&description, options.max_step.as_deref(), options.hz);
    let mut limiter = limiter.map_err(DriveError::Options)?;
    source.agree(&description)?;

    let mut guard = TorqueGuard::new(robot);
    let begun = begin(guard.robot(), source, &description, &mut limiter, switch);
    if let Err(cause) = begun {
        let off = guard.off();
        source.stop();
        return Err(match off {
            Ok(()) => cause,
            Err(error) => DriveError::TorqueMayBeOn { cause: Box::new(cause), error },
        });
    }

    // Not before: connecting and loading may take long, and are in no hurry.
    let punctual = if clock.is_none() { Punctual::begin() } else { Punctual::ordinary() };
    let machine = MonotonicClock::new(punctual.scheduling());
    let clock = clock.unwrap_or(&machine);
    let mut control =
        Control::new(guard.robot(), source, options, observer, switch, clock, &description, limiter);
    let end = control.run();
    let (mut summary, mut events, step) = control.finish(&end);
    let off = guard.off();
    summary.scheduling = punctual.scheduling();
    drop(punctual);
    source.stop();

    summary.inference = source.latencies().filter(|latencies| latencies.count() > 0).cloned();
    events.push(match &off {
        Ok(()) => Event::TorqueOff(end.clone()),
        Err(error) => Event::TorqueMayBeOn(error.clone()),
    });
    summary.torque_may_be_on = off.err();
    observer.tick(&Tick {
        step,
        time: summary.duration,
        observation: None,
        raw: None,
        sent: None,
        origin: Origin::Hold,
        queued: None,
        state: &State::TorqueOff(end.clone()),
        events: &events,
    });
    summary.end = end;
    observer.ended(&summary);
    Ok(summary)
}

/// Connects, and finds out where the arm stands.
fn begin(
    robot: &mut dyn Robot,
    source: &mut dyn ActionSource,
    description: &Description,
    limiter: &mut Limiter,
    switch: &StopSwitch,
) -> Result<(), DriveError> {
    source.start()?;
    // Torque comes on with the connection, and whoever waited for a policy to load may have thought better of it.
    if switch.is_stopped() {
        return Err(DriveError::Stopped);
    }
    robot.connect()?;
    let mut tries = 1;
    let observation = loop {
        let whole = |observation: Observation| match observation.problems.first() {
            Some(problem) => Err(problem.clone()),
            None => Ok(observation),
        };
        match observe(robot, description).and_then(whole) {
            Ok(observation) => break observation,
            Err(error) if tries >= watchdog::FAILURES => return Err(error.into()),
            Err(_) => tries += 1,
        }
    };
    if let Some((joint, position)) = limiter.outside(&observation.positions) {
        let crate::Joint { name, unit, min, max, .. } = joint.clone();
        return Err(DriveError::OutOfRange { joint: name, position, unit, min, max });
    }
    limiter.stands_at(&observation.positions);
    Ok(())
}

/// Observes a robot, and checks that its driver keeps to the description.
fn observe(robot: &mut dyn Robot, description: &Description) -> Result<Observation, RobotError> {
    let observation = robot.observe()?;
    let (joints, cameras) = (&description.joints, &description.cameras);
    if observation.positions.len() != joints.len() {
        let (found, wanted) = (observation.positions.len(), joints.len());
        let text = format!(
            "{} gave {found} positions for {wanted} joints: this is an error of its driver",
            description.kind
        );
        return Err(RobotError::Bus(text));
    }
    if let Some((joint, value)) =
        joints.iter().zip(&observation.positions).find(|(_, value)| !value.is_finite())
    {
        return Err(RobotError::Bus(format!("joint {} reads {value}: check its cable", joint.name)));
    }
    for (index, stream) in cameras.iter().enumerate() {
        let problem = match observation.frames.get(index) {
            None => "no image".to_owned(),
            Some(frame) if (frame.height, frame.width) != (stream.height, stream.width) => {
                format!(
                    "an image of {} × {} instead of {} × {}",
                    frame.height, frame.width, stream.height, stream.width
                )
            }
            Some(_) => continue,
        };
        return Err(RobotError::Camera { camera: stream.name.clone(), problem });
    }
    Ok(observation)
}
