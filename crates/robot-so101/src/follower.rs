use std::time::Instant;

use skillweld_robot::{Description, Observation, Robot, RobotError};

use crate::arm::{ArmOptions, Opener, connect};
use crate::calibration::Role;
use crate::guard::{GuardianCommand, GuardianHandle};
use crate::health::{Health, Limits};
use crate::joints::{GRIPPER, IDS, JOINTS};
use crate::protocol::{Bus, BusError};
use crate::registers::{
    ACCELERATION, D_COEFFICIENT, GOAL_POSITION, GOAL_VELOCITY, I_COEFFICIENT, MAX_ACCELERATION, MAX_TORQUE,
    OPERATING_MODE, OVERLOAD_TORQUE, P_COEFFICIENT, PHASE, PRESENT_POSITION, PROTECTION_CURRENT,
    RETURN_DELAY, Register, TORQUE_ENABLE, TORQUE_LIMIT,
};
use crate::units::{from_ticks, to_ticks};
use crate::{torque_off, units};

/// Which arm, and how fast it may move.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowerOptions {
    /// The arm.
    pub arm: ArmOptions,
    /// The fastest that any joint turns. The servos hold themselves to it too.
    pub max_velocity_deg_s: f64,
    /// What turns torque off if this process is killed, or hangs: an arm that is connected has to be observed at least every
    /// five seconds then. None: nothing does.
    pub guardian: Option<GuardianCommand>,
}

/// Every so many observations one servo is asked how it feels, one after the other: at 30 Hz each one every two seconds.
const HEALTH_EVERY: u64 = 10;
/// A joint that stands this far outside its range when torque comes on would be moved to the end of it: 2°.
const OUTSIDE_TICKS: i32 = 23;
/// Torque and current of the gripper are halved: it closes on things, and would burn.
const GRIPPER_TORQUE: i32 = 500;

/// The arm that is moved: [`Robot`] without cameras.
///
/// Goals are cut to the calibrated ranges, whatever is asked for. A servo's complaint, which every reply bears, is a
/// [`RobotError::Fault`] among the problems of the observation; so are heat and low voltage by the servos' own limits, and a
/// guardian that has died. They stay there until all is well again. Torque that went off by itself is a
/// [`RobotError::LetGo`].
pub struct So101Follower {
    options: FollowerOptions,
    description: Description,
    open: Opener,
    bus: Option<Bus>,
    limits: Vec<Limits>,
    /// Joints that were not seen to be well when they were asked last: they are asked at every observation until they are.
    unwell: [bool; JOINTS.len()],
    guardian: Option<GuardianHandle>,
    /// Whether torque was turned on and has not been seen to be off since.
    torque_may_be_on: bool,
    observations: u64,
}

impl So101Follower {
    /// An arm at a serial port, not connected yet.
    ///
    /// # Errors
    /// [`RobotError::Connect`] if the calibration or the velocity cannot be an arm's.
    pub fn new(options: FollowerOptions) -> Result<Self, RobotError> {
        let open = options.arm.opener();
        Self::with_opener(options, open)
    }

    /// An arm on a bus that `open` gives.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_opener(options: FollowerOptions, open: Opener) -> Result<Self, RobotError> {
        options.arm.check()?;
        let velocity = options.max_velocity_deg_s;
        if !(velocity > 0.0 && velocity.is_finite()) {
            return Err(RobotError::Connect(format!("a largest velocity of {velocity} °/s moves no arm")));
        }
        let joints = units::joints(options.arm.body, &options.arm.calibration, velocity);
        let description = Description { kind: "so101_follower".into(), joints, cameras: Vec::new() };
        Ok(Self {
            options,
            description,
            open,
            bus: None,
            limits: Vec::new(),
            unwell: [false; JOINTS.len()],
            guardian: None,
            torque_may_be_on: false,
            observations: 0,
        })
    }

    /// What fails with the bus lost ends the connection; torque may still be on.
    fn failed(&mut self, error: BusError) -> RobotError {
        if error.is_lost() {
            self.bus = None;
        }
        error.into()
    }

    fn bus(&mut self) -> Result<&mut Bus, RobotError> {
        self.bus.as_mut().ok_or(RobotError::NotConnected)
    }

    fn read_ticks(&mut self) -> Result<Vec<i32>, RobotError> {
        match self.bus()?.sync_read(&PRESENT_POSITION, &IDS) {
            Ok(ticks) => Ok(ticks),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Sends goals, cut to the joints' ranges.
    fn send_ticks(&mut self, ticks: impl IntoIterator<Item = i32>) -> Result<(), RobotError> {
        let motors = self.options.arm.calibration.motors;
        let goals: Vec<(u8, i32)> = motors
            .iter()
            .zip(ticks)
            .map(|(motor, ticks)| (motor.id, ticks.clamp(motor.range_min, motor.range_max)))
            .collect();
        match self.bus()?.sync_write(&GOAL_POSITION, &goals) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// What is wrong with the servos. Those that complained or were not well are asked how they feel, and now and then one that
    /// did not.
    fn complaints(&mut self) -> Vec<RobotError> {
        let mut problems = Vec::new();
        let alarms = self.bus.as_mut().map(Bus::take_alarms).unwrap_or_default();
        let turn = (self.observations / HEALTH_EVERY) as usize % IDS.len();
        let turn = self.observations.is_multiple_of(HEALTH_EVERY).then_some(turn);
        self.observations += 1;
        for (i, id) in IDS.into_iter().enumerate() {
            let reported = alarms.iter().find(|(of, _)| *of == id).map(|(_, status)| *status);
            if reported.is_none() && turn != Some(i) && !self.unwell[i] {
                continue;
            }
            let Some(bus) = &mut self.bus else { break };
            let health = Health::read(bus, id);
            // This reply bears the complaint once more.
            bus.take_alarms();
            let problem = match health {
                Ok(health) => self.limits[i].fault(JOINTS[i].name, &health, reported.unwrap_or_default()),
                Err(error) => Some(self.failed(error)),
            };
            self.unwell[i] = problem.is_some();
            problems.extend(problem);
        }
        problems
    }

    fn release_guardian(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            guardian.release();
        }
    }

    fn switch_on(&mut self, bus: &mut Bus) -> Result<(), RobotError> {
        self.options.arm.verify(bus, Role::Follower)?;
        // Torque that an earlier program left on counts too.
        self.torque_may_be_on = true;
        torque_off(bus, &IDS).map_err(connect)?;
        self.limits.clear();
        for (i, id) in IDS.into_iter().enumerate() {
            configure(bus, i, id, self.options.max_velocity_deg_s).map_err(connect)?;
            self.limits.push(Limits::read(bus, id).map_err(connect)?);
        }
        if let (Some(command), None) = (&self.options.guardian, &self.guardian) {
            self.guardian = Some(GuardianHandle::start(command)?);
        }
        self.hold_where_it_stands(bus)?;
        self.heard_no_complaint(bus)
    }

    /// A servo that complained while it was connected is a fault, worded with what it feels.
    fn heard_no_complaint(&self, bus: &mut Bus) -> Result<(), RobotError> {
        for (id, status) in bus.take_alarms() {
            let Some(i) = IDS.iter().position(|&other| other == id) else { continue };
            let health = Health::read(bus, id).map_err(connect)?;
            self.limits[i].fault(JOINTS[i].name, &health, status).map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// The goal comes first, and is read back: a servo that is switched on goes to the goal that it holds.
    fn hold_where_it_stands(&self, bus: &mut Bus) -> Result<(), RobotError> {
        let here = bus.sync_read(&PRESENT_POSITION, &IDS).map_err(connect)?;
        for ((motor, joint), &ticks) in self.options.arm.calibration.motors.iter().zip(JOINTS).zip(&here) {
            let goal = ticks.clamp(motor.range_min, motor.range_max);
            if (goal - ticks).abs() > OUTSIDE_TICKS {
                return Err(RobotError::Connect(format!(
                    "{} stands at {ticks}, outside its range of {} … {}: move it into its range by hand, then connect \
                     again; if it is in its range, calibrate the arm anew",
                    joint.name, motor.range_min, motor.range_max
                )));
            }
            bus.write_verified(motor.id, &GOAL_POSITION, goal).map_err(connect)?;
        }
        IDS.iter().try_for_each(|&id| bus.write_verified(id, &TORQUE_ENABLE, 1)).map_err(connect)
    }
}

/// Sets what an arm needs: LeRobot's values, and the largest velocity.
fn configure(bus: &mut Bus, joint: usize, id: u8, max_velocity_deg_s: f64) -> Result<(), BusError> {
    // The servo's unit of velocity is a tick a second with bit 2 of its phase (the factory's setting), else fifty.
    let unit = if bus.read(id, &PHASE)? & 4 != 0 { 1.0 } else { 50.0 };
    let velocity = (max_velocity_deg_s * 4096.0 / 360.0 / unit).clamp(1.0, 32_767.0) as i32;
    let mut values: Vec<(&Register, i32)> = vec![
        (&RETURN_DELAY, 0),
        (&OPERATING_MODE, 0),
        (&P_COEFFICIENT, 16),
        (&I_COEFFICIENT, 0),
        (&D_COEFFICIENT, 32),
        (&MAX_ACCELERATION, 254),
        (&ACCELERATION, 254),
        (&GOAL_VELOCITY, velocity),
    ];
    if joint == GRIPPER {
        // The torque limit follows its EEPROM register only when the power comes back.
        values.extend([
            (&MAX_TORQUE, GRIPPER_TORQUE),
            (&TORQUE_LIMIT, GRIPPER_TORQUE),
            (&PROTECTION_CURRENT, 250),
            (&OVERLOAD_TORQUE, 25),
        ]);
    }
    bus.settle_registers(id, &values).map(drop)
}

impl Robot for So101Follower {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        if self.bus.is_some() {
            return Ok(());
        }
        let mut bus = (self.open)()?;
        let on = self.switch_on(&mut bus);
        if let Err(error) = on {
            // What was connected is let go; the first error is the one to tell.
            let off = torque_off(&mut bus, &IDS);
            self.torque_may_be_on &= off.is_err();
            if !self.torque_may_be_on {
                self.release_guardian();
            }
            return Err(error);
        }
        self.bus = Some(bus);
        self.observations = 0;
        self.unwell = [false; JOINTS.len()];
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        // Whether the bus answers or not: a program that tries is alive.
        let unguarded = self.guardian.as_mut().and_then(|guardian| guardian.beat().err());
        let ticks = self.read_ticks()?;
        let captured = Instant::now();
        let mut problems = self.complaints();
        problems.extend(unguarded);
        let motors = self.options.arm.calibration.motors.iter().zip(&self.description.joints);
        let positions = motors.zip(ticks).map(|((motor, joint), ticks)| from_ticks(joint.unit, motor, ticks));
        let positions = positions.collect();
        Ok(Observation { captured, positions, frames: Vec::new(), problems })
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        self.bus()?;
        if positions.len() != JOINTS.len() {
            return Err(RobotError::Command(format!(
                "{} positions for the {} joints of an SO-101 arm",
                positions.len(),
                JOINTS.len()
            )));
        }
        if let Some(i) = positions.iter().position(|position| !position.is_finite()) {
            return Err(RobotError::Command(format!("{} cannot go to {}", JOINTS[i].name, positions[i])));
        }
        let motors = self.options.arm.calibration.motors.iter().zip(&self.description.joints);
        let goals = motors.zip(positions);
        let ticks = goals.map(|((motor, joint), &position)| to_ticks(joint.unit, motor, position));
        let ticks: Vec<i32> = ticks.collect();
        self.send_ticks(ticks)
    }

    /// In ticks: through the units and back a joint would creep.
    fn hold(&mut self) -> Result<(), RobotError> {
        let here = self.read_ticks()?;
        self.send_ticks(here)
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        // Whatever comes of it, nobody drives the arm any more.
        if let Some(guardian) = &mut self.guardian {
            guardian.expect_silence();
        }
        if self.torque_may_be_on {
            // A bus that was lost may be back.
            let mut bus = match self.bus.take() {
                Some(bus) => bus,
                None => (self.open)().map_err(|error| unreachable_arm(&self.options.arm.port, &error))?,
            };
            torque_off(&mut bus, &IDS).map_err(|error| match error {
                error if error.is_lost() => unreachable_arm(&self.options.arm.port, &error),
                error => {
                    // Still connected: stopping again may help.
                    self.bus = Some(bus);
                    error.into()
                }
            })?;
            self.torque_may_be_on = false;
        }
        self.bus = None;
        self.release_guardian();
        Ok(())
    }
}

/// Torque is on, and nobody can be told.
fn unreachable_arm(port: &str, error: &BusError) -> RobotError {
    RobotError::Disconnected(format!(
        "the arm at {port} cannot be told to let go ({error}): hold it and switch its power supply off, or plug the cable in \
         and turn its torque off"
    ))
}

impl Drop for So101Follower {
    fn drop(&mut self) {
        // Nobody is left to be told; the guardian, if there is one, sees its pipe break and tries in its turn.
        let _ = self.stop();
    }
}
