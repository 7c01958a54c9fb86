//! An arm, a table and things on it, moved in steps of 1/240 s by quasi-static rules.
//!
//! There are no masses and no momentum but that of falling. In every step
//! 1. servos turn towards their goals. What arm and held body then overlap is pushed aside in the plane of the table, turning
//!    about its centre as friction has it, and pushes others in turn. Where something cannot give way, the joint stops;
//! 2. a gripper that closes and is stopped by a body between both fingers holds it; it lets go when it opens;
//! 3. bodies fall, lay themselves flat on what is below them, and slide off where their centre is not supported.
//!
//! The arm does not collide with itself, and bodies slip off an edge rather than tip over it.

mod grip;
mod push;
mod settle;
mod support;

use crate::arm::{ArmModel, Frames, GRIPPER, JOINTS, Jaws, Link};
use crate::body::{Body, Motion};
use crate::error::SimError;
use crate::geometry::Pose;
use crate::scene::Scene;
use crate::servo::Servos;
use crate::shape::{Shape, Solid, contact};

use grip::Grip;

/// Steps in a second.
pub const STEPS_PER_S: u32 = 240;
/// Length of a step in seconds.
pub const STEP_S: f64 = 1.0 / STEPS_PER_S as f64;
/// Index of the table among the bodies.
pub const TABLE: usize = 0;
/// No two things overlap by more than this, in metres.
pub const TOLERANCE_M: f64 = 5e-4;
/// Where bodies end that fall from the table: height in metres.
pub const FLOOR_M: f64 = -0.7;

const TABLE_THICKNESS_M: f64 = 0.04;

/// The whole state of a simulation. A clone goes on exactly as the original does.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// How it looks. May be changed at any time, but for the table's size and place, which are taken at the start.
    pub scene: Scene,
    arm: ArmModel,
    servos: Servos,
    frames: Frames,
    /// Of the arm: both fingers first.
    arm_solids: Vec<Solid>,
    bodies: Vec<Body>,
    grip: Option<Grip>,
    /// The body that the fingers let go of, until they have parted.
    leaving: Option<usize>,
    /// Overlap that the last accepted motion of the arm left, in metres.
    worst_m: f64,
    /// Nothing moved in the last step and nobody touched the state since.
    quiet: bool,
    steps: u64,
}

impl World {
    /// The arm at rest, the table as body 0, then `bodies` in their order.
    ///
    /// # Errors
    /// [`SimError`] that names what has an impossible size, place, limit or name.
    pub fn new(arm: ArmModel, scene: Scene, bodies: Vec<Body>) -> Result<Self, SimError> {
        scene.check()?;
        check_arm(&arm)?;
        let ([x, y], [width, depth]) = (scene.table.centre_m, scene.table.size_m);
        let top = crate::body::Part {
            shape: Shape::cuboid(0.5 * width, 0.5 * depth, 0.5 * TABLE_THICKNESS_M),
            pose: Pose::IDENTITY,
            color: [120, 96, 74],
        };
        let table =
            Body::new("table", vec![top], Pose::at(x, y, -0.5 * TABLE_THICKNESS_M)).moving(Motion::Fixed);
        let bodies: Vec<Body> = std::iter::once(table).chain(bodies).collect();
        for (i, body) in bodies.iter().enumerate() {
            body.check()?;
            if bodies[..i].iter().any(|other| other.name == body.name) {
                return Err(SimError::DuplicateBody { name: body.name.clone() });
            }
        }
        let servos = Servos::at(arm.rest());
        let frames = arm.frames(&servos.positions);
        let arm_solids = arm.solids(&frames);
        let mut world = Self {
            scene,
            arm,
            servos,
            frames,
            arm_solids,
            bodies,
            grip: None,
            leaving: None,
            worst_m: 0.0,
            quiet: false,
            steps: 0,
        };
        world.changed();
        Ok(world)
    }

    /// One step of [`STEP_S`].
    pub fn step(&mut self) {
        let (mut wanted, mut velocities) = self.servos.next(&self.arm, STEP_S);
        if let Some(grip) = &self.grip
            && wanted[GRIPPER] < grip.position_rad
        {
            (wanted[GRIPPER], velocities[GRIPPER]) = (grip.position_rad, 0.0);
        }
        let before = self.servos.positions;
        if wanted == before {
            self.servos.velocities = [0.0; JOINTS];
        } else {
            self.quiet = false;
            self.servos.velocities = velocities;
            if !self.try_arm(wanted) {
                // Something is in the way: each joint goes as far as it can alone.
                for j in 0..JOINTS {
                    let mut alone = self.servos.positions;
                    alone[j] = wanted[j];
                    if alone != self.servos.positions && !self.try_arm(alone) {
                        self.servos.velocities[j] = 0.0;
                        if j == GRIPPER && (wanted[j] - before[j]).abs() < 2e-3 {
                            self.close_on_body();
                        }
                    }
                }
            }
            self.let_go_if_open();
        }
        self.part_from_leaving();
        if !self.quiet {
            let moved = self.settle();
            self.quiet = !moved && wanted == before;
        }
        self.steps += 1;
    }

    /// Many steps.
    pub fn advance(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// Where the joints are to go, in radians: limited to their range, what is not finite is left as it was.
    pub fn set_goals(&mut self, goals: &[f64; JOINTS]) {
        let goals =
            std::array::from_fn(|j| if goals[j].is_finite() { goals[j] } else { self.servos.goals[j] });
        self.servos.goals = self.arm.clamped(goals);
    }

    /// Turns torque on, with the goal where the arm stands, or off.
    pub fn set_torque(&mut self, on: bool) {
        self.servos = Servos { torque: on, ..Servos::at(self.servos.positions) };
    }

    /// Puts the arm somewhere at once, for the start of an episode. It lets go of what it holds.
    pub fn set_joints(&mut self, positions: &[f64; JOINTS]) {
        self.servos = Servos { torque: self.servos.torque, ..Servos::at(self.arm.clamped(*positions)) };
        self.frames = self.arm.frames(&self.servos.positions);
        self.arm_solids = self.arm.solids(&self.frames);
        (self.grip, self.leaving) = (None, None);
        self.changed();
    }

    /// Puts a body somewhere at once; where it overlaps others, they part when the arm moves.
    ///
    /// # Errors
    /// [`SimError::NoBody`]; [`SimError::Invalid`] if the pose is not finite.
    pub fn set_pose(&mut self, body: usize, pose: Pose) -> Result<(), SimError> {
        self.check_index(body)?;
        if !(pose.position.is_finite() && pose.rotation.w.is_finite() && pose.rotation.v.is_finite()) {
            return Err(SimError::invalid(
                format!("body {}", self.bodies[body].name),
                "the pose is not finite",
            ));
        }
        if self.held() == Some(body) {
            self.grip = None;
        }
        let body = &mut self.bodies[body];
        body.place(Pose { position: pose.position, rotation: pose.rotation.normalized() });
        (body.fall_speed, body.rests_on) = (0.0, None);
        self.changed();
        Ok(())
    }

    /// The arm's model.
    pub fn arm(&self) -> &ArmModel {
        &self.arm
    }

    /// Joint positions in radians.
    pub fn joints(&self) -> &[f64; JOINTS] {
        &self.servos.positions
    }

    /// Positions, velocities and goals.
    pub fn servos(&self) -> &Servos {
        &self.servos
    }

    /// Where the links are.
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The tool point: x out of the gripper, z across the fingers.
    pub fn tool(&self) -> Pose {
        self.frames.tool()
    }

    /// Between the fingertips.
    pub fn opening_m(&self) -> f64 {
        self.arm.gripper.opening_m(self.servos.positions[GRIPPER], &self.arm.joints[GRIPPER])
    }

    /// All bodies; the table is the first.
    pub fn bodies(&self) -> &[Body] {
        &self.bodies
    }

    /// Index of a body.
    ///
    /// # Errors
    /// [`SimError::NoBody`] with the names there are.
    pub fn index(&self, name: &str) -> Result<usize, SimError> {
        self.bodies.iter().position(|b| b.name == name).ok_or_else(|| self.no_body(name.into()))
    }

    /// The body that the gripper holds.
    pub fn held(&self) -> Option<usize> {
        self.grip.as_ref().map(|grip| grip.body)
    }

    /// The body that a body stands on; none if it is held, falls, or stands on the arm.
    pub fn rests_on(&self, body: usize) -> Option<usize> {
        self.bodies.get(body)?.rests_on
    }

    /// Whether two bodies are within half a millimetre of one another.
    pub fn touching(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.bodies.get(a), self.bodies.get(b)) else { return false };
        a.solids.iter().any(|p| {
            b.solids.iter().any(|q| p.near(q, TOLERANCE_M) && crate::shape::separation_m(p, q) < TOLERANCE_M)
        })
    }

    /// Steps since the start.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The deepest overlap of any two bodies, or of the arm with one that is not in its fingers, in metres.
    pub fn penetration_m(&self) -> f64 {
        let mut worst = 0f64;
        for (i, body) in self.bodies.iter().enumerate() {
            let rest = self.bodies[i + 1..]
                .iter()
                .filter(|b| !(body.motion == Motion::Fixed && b.motion == Motion::Fixed));
            for other in rest.flat_map(|b| &b.solids).chain(self.arm_against(i)) {
                for mine in &body.solids {
                    worst = worst.max(contact(mine, other).map_or(0.0, |c| c.depth_m));
                }
            }
        }
        worst
    }

    /// The solids of the arm that a body may not overlap: none while it is held, or has not left the fingers yet.
    fn arm_against(&self, body: usize) -> &[Solid] {
        if self.held() == Some(body) || self.leaving == Some(body) { &[] } else { &self.arm_solids }
    }

    fn changed(&mut self) {
        self.quiet = false;
        self.worst_m = self.overlap_of_arm();
    }

    fn check_index(&self, body: usize) -> Result<(), SimError> {
        if body < self.bodies.len() { Ok(()) } else { Err(self.no_body(format!("number {body}"))) }
    }

    fn no_body(&self, name: String) -> SimError {
        let names: Vec<&str> = self.bodies.iter().map(|b| b.name.as_str()).collect();
        SimError::NoBody { name, known: names.join(", ") }
    }
}

fn check_arm(arm: &ArmModel) -> Result<(), SimError> {
    for (name, joint) in crate::arm::JOINT_NAMES.iter().zip(&arm.joints) {
        let finite = joint.min_rad.is_finite() && joint.max_rad.is_finite() && joint.min_rad < joint.max_rad;
        let moves = joint.max_velocity > 0.0 && joint.max_acceleration > 0.0;
        if !(finite && moves && joint.max_velocity.is_finite() && joint.max_acceleration.is_finite()) {
            let problem = "its range must not be empty, and its velocity and acceleration must be positive";
            return Err(SimError::invalid(format!("joint {name}"), problem));
        }
    }
    let finger_m = match arm.gripper.jaws {
        Jaws::Hinged { jaw_m, .. } => jaw_m,
        Jaws::Parallel { finger_m, .. } => finger_m,
    };
    let lengths = [
        arm.upper_arm_m,
        arm.lower_arm_m,
        arm.tool_m,
        arm.gripper.width_m,
        arm.gripper.thickness_m,
        finger_m,
    ];
    if lengths.iter().any(|x| !(x.is_finite() && *x > 0.0)) {
        return Err(SimError::invalid(
            format!("arm {}", arm.name),
            "lengths must be positive numbers of metres",
        ));
    }
    let frames = arm.frames(&arm.rest());
    let ends = [Link::Gripper, Link::Jaw, Link::FixedJaw];
    if !ends.iter().all(|&link| frames.pose(link).position.is_finite()) {
        return Err(SimError::invalid(
            format!("arm {}", arm.name),
            "its lengths do not give finite places of gripper and fingers",
        ));
    }
    Ok(())
}
