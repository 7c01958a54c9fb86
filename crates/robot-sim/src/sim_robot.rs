//! The world as a robot: what `skillweld drive` drives when there is no arm.

use std::time::Instant;

use skillweld_robot::{BodyUnit, CameraStream, Description, Joint, Observation, Robot, RobotError, Unit};

use crate::arm::{ArmModel, GRIPPER, JOINT_NAMES, JOINTS};
use crate::error::SimError;
use crate::render::Renderer;
use crate::scene::{Camera, Scene};
use crate::tabletop::cubes_and_tray;
use crate::world::{STEPS_PER_S, World};

/// After a pause longer than this the world goes on from where it was, in seconds.
const LONGEST_PAUSE_S: f64 = 0.5;

/// What makes time pass in the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Clock {
    /// The wall clock: the world is as old as the time between calls.
    #[default]
    Live,
    /// Every action takes a fixed time, however long the caller thinks: runs repeat to the byte.
    Stepped {
        /// Length of an action in seconds, for example 1/30.
        period_s: f64,
    },
}

/// How a simulated SO-101 is set up.
#[derive(Debug, Clone, PartialEq)]
pub struct SimOptions {
    /// What its numbers mean.
    pub units: BodyUnit,
    /// What makes time pass.
    pub clock: Clock,
    /// Rows of both cameras.
    pub height: usize,
    /// Columns of both cameras.
    pub width: usize,
    /// Decides where the cubes are.
    pub seed: u64,
    /// The fastest that any joint turns, in degrees a second: the real arm's servos are told the same. Faster than a servo can is
    /// as fast as it can.
    pub max_velocity_deg_s: f64,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            units: BodyUnit::Degrees,
            clock: Clock::Live,
            height: 480,
            width: 640,
            seed: 0,
            max_velocity_deg_s: 120.0,
        }
    }
}

/// A simulated arm. Torque off leaves it where it stands, as the gears of its servos do.
#[derive(Debug)]
pub struct SimArm {
    world: World,
    renderer: Renderer,
    description: Description,
    clock: Clock,
    connected: bool,
    /// Until when the world has been simulated.
    reached: Instant,
    /// Time owed to the world: less than a step.
    owed_s: f64,
}

impl SimArm {
    /// An SO-101 with three cubes and a tray, seen by the cameras `front` and `wrist`.
    ///
    /// # Errors
    /// [`SimError::Invalid`] for impossible picture sizes, periods or velocities.
    pub fn new(options: &SimOptions) -> Result<Self, SimError> {
        let scene = Scene::tabletop(options.width, options.height);
        let fastest = options.max_velocity_deg_s;
        if !(fastest > 0.0 && fastest.is_finite()) {
            return Err(SimError::invalid("max_velocity_deg_s", format!("{fastest} is no velocity above 0")));
        }
        let mut arm = ArmModel::so101();
        for joint in &mut arm.joints {
            joint.max_velocity = joint.max_velocity.min(fastest.to_radians());
        }
        let world = World::new(arm, scene, cubes_and_tray(options.seed))?;
        Self::with_world(world, options.units, options.clock)
    }

    /// The arm of any world, which moves as fast as its model says.
    ///
    /// # Errors
    /// [`SimError::Invalid`] for a period that is not positive, or longer than a minute.
    pub fn with_world(world: World, units: BodyUnit, clock: Clock) -> Result<Self, SimError> {
        if let Clock::Stepped { period_s } = clock
            && !(period_s > 0.0 && period_s <= 60.0)
        {
            return Err(SimError::invalid("period_s", format!("{period_s} is not in 0 … 60 seconds")));
        }
        let description = Description {
            kind: format!("{}_sim", world.arm().name),
            joints: (0..JOINTS).map(|j| describe(world.arm(), j, units)).collect(),
            cameras: streams(&world.scene),
        };
        let renderer = Renderer::new();
        Ok(Self {
            world,
            renderer,
            description,
            clock,
            connected: false,
            reached: Instant::now(),
            owed_s: 0.0,
        })
    }

    /// The world in which the arm stands.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Positions of the joints in the description's units.
    fn positions(&self) -> Vec<f64> {
        let joints = self.world.joints();
        (0..JOINTS).map(|j| self.scale(j).value(joints[j])).collect()
    }

    fn scale(&self, joint: usize) -> Scale {
        Scale::new(self.world.arm(), joint, self.description.joints[joint].unit)
    }

    fn pass(&mut self, seconds: f64) {
        self.owed_s += seconds;
        // A millionth of a step makes up for rounding: 1/30 s is eight steps, not seven.
        let steps = (self.owed_s * f64::from(STEPS_PER_S) + 1e-6).floor().max(0.0);
        self.owed_s -= steps / f64::from(STEPS_PER_S);
        self.world.advance(steps as usize);
    }

    fn catch_up(&mut self) {
        if self.clock == Clock::Live {
            let now = Instant::now();
            let elapsed_s = (now - self.reached).as_secs_f64();
            self.reached = now;
            self.pass(elapsed_s.min(LONGEST_PAUSE_S));
        }
    }

    fn require_connected(&self) -> Result<(), RobotError> {
        if self.connected { Ok(()) } else { Err(RobotError::NotConnected) }
    }
}

fn streams(scene: &Scene) -> Vec<CameraStream> {
    let stream = |c: &Camera| CameraStream { name: c.name.clone(), height: c.height, width: c.width };
    scene.cameras.iter().map(stream).collect()
}

impl Robot for SimArm {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        self.world.set_torque(true);
        self.connected = true;
        self.reached = Instant::now();
        Ok(())
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        self.require_connected()?;
        self.catch_up();
        let captured = Instant::now();
        let trouble = |problem: String| RobotError::Camera { camera: "of the scene".into(), problem };
        let images = self.renderer.render(&self.world).map_err(|error| trouble(error.to_string()))?;
        let frames = images.into_iter().map(|image| image.into_frame(captured)).collect();
        Ok(Observation { captured, positions: self.positions(), frames, problems: Vec::new() })
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        self.require_connected()?;
        let Ok(wanted) = <[f64; JOINTS]>::try_from(positions) else {
            let got = positions.len();
            return Err(RobotError::Command(format!(
                "{got} positions for {JOINTS} joints: send one a joint"
            )));
        };
        if let Some(j) = wanted.iter().position(|p| !p.is_finite()) {
            return Err(RobotError::Command(format!("{}: {} is no position", JOINT_NAMES[j], wanted[j])));
        }
        self.catch_up();
        let goals = std::array::from_fn(|j| self.scale(j).rad(wanted[j]));
        self.world.set_goals(&goals);
        if let Clock::Stepped { period_s } = self.clock {
            self.pass(period_s);
        }
        Ok(())
    }

    fn hold(&mut self) -> Result<(), RobotError> {
        self.require_connected()?;
        self.catch_up();
        let here = *self.world.joints();
        self.world.set_goals(&here);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        self.world.set_torque(false);
        self.connected = false;
        Ok(())
    }
}

/// A line between radians and a joint's unit.
struct Scale {
    zero_rad: f64,
    per_rad: f64,
}

impl Scale {
    fn new(arm: &ArmModel, joint: usize, unit: Unit) -> Self {
        let (min, max) = (arm.joints[joint].min_rad, arm.joints[joint].max_rad);
        match unit {
            Unit::Percent => Self { zero_rad: min, per_rad: 100.0 / (max - min) },
            Unit::Centred => Self { zero_rad: 0.5 * (min + max), per_rad: 200.0 / (max - min) },
            _ => Self { zero_rad: 0.5 * (min + max), per_rad: 180.0 / std::f64::consts::PI },
        }
    }

    fn value(&self, rad: f64) -> f64 {
        (rad - self.zero_rad) * self.per_rad
    }

    fn rad(&self, value: f64) -> f64 {
        value / self.per_rad + self.zero_rad
    }
}

fn describe(arm: &ArmModel, joint: usize, units: BodyUnit) -> Joint {
    let unit = if joint == GRIPPER { Unit::Percent } else { units.unit() };
    let (scale, model) = (Scale::new(arm, joint, unit), &arm.joints[joint]);
    Joint {
        name: JOINT_NAMES[joint].into(),
        unit,
        min: scale.value(model.min_rad),
        max: scale.value(model.max_rad),
        max_velocity: model.max_velocity * scale.per_rad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hold_and_stop_keep_it_where_it_is() {
        let clock = Clock::Stepped { period_s: 1.0 / 30.0 };
        let mut arm = SimArm::new(&SimOptions { clock, ..SimOptions::default() }).unwrap();
        let goal = [80.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        arm.connect().unwrap();
        (0..4).for_each(|_| arm.act(&goal).unwrap());
        arm.stop().unwrap();
        let here = *arm.world.joints();
        arm.world.advance(240);
        assert_eq!(*arm.world.joints(), here, "torque is off");
        arm.connect().unwrap();
        arm.world.advance(240);
        assert_eq!(*arm.world.joints(), here, "torque is on where it stands");
        arm.act(&goal).unwrap();
        arm.hold().unwrap();
        arm.world.advance(240);
        let held = arm.world.joints()[0];
        // It brakes as fast as it may, and stays far from the 80° that it was sent to.
        assert!(held > here[0] && held < 1.0, "{held}");
        arm.world.advance(240);
        assert_eq!(arm.world.joints()[0], held);
    }

    #[test]
    fn it_turns_as_fast_as_it_is_told_and_as_its_servos_can() {
        for (told, fastest) in [(120.0, 120.0), (30.0, 30.0), (900.0, 4f64.to_degrees())] {
            let clock = Clock::Stepped { period_s: 1.0 / 30.0 };
            let options = SimOptions { clock, max_velocity_deg_s: told, ..SimOptions::default() };
            let mut arm = SimArm::new(&options).unwrap();
            assert!((arm.description.joints[0].max_velocity - fastest).abs() < 1e-9, "{told}");
            arm.connect().unwrap();
            let mut goal = arm.positions();
            goal[0] = 100.0;
            // 4 rad/s at 30 rad/s² take four of these periods, and a third of the way.
            (0..8).for_each(|_| arm.act(&goal).unwrap());
            let velocity = arm.world.servos().velocities[0].to_degrees();
            assert!((velocity - fastest).abs() < 1e-6, "{velocity} of {fastest}");
        }
    }
}
