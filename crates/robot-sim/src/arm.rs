//! What an arm is made of, and where its links are for given joint positions.
//!
//! The SO-101 is a planar arm on a turntable: shoulder lift, elbow and wrist flex turn about parallel axes, pan turns their
//! plane, roll turns the gripper about its own length. With all joints at zero the upper arm stands, the lower arm and
//! the gripper point forward. Positive lift, elbow and wrist move the gripper down, positive pan turns it to the right.

mod gripper;
mod inverse;
mod so101;

pub(crate) use so101::WRIST_CAMERA;

use crate::geometry::{Pose, Quat, Vec3, vec3};
use crate::shape::{Shape, Solid};

pub use gripper::{Gripper, Jaws};
pub use inverse::{ToolTarget, Unreachable};

/// Joints of an arm, the gripper last.
pub const JOINTS: usize = 6;

/// Their names, as in LeRobot.
pub const JOINT_NAMES: [&str; JOINTS] =
    ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"];

/// Index of the gripper among the joints.
pub const GRIPPER: usize = 5;

/// A frame that moves as one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// On the table; x forward.
    Base,
    /// Turns with pan; its origin is on the pan axis at the height of the shoulder.
    Shoulder,
    /// Its origin is the shoulder axis, z runs to the elbow.
    UpperArm,
    /// Its origin is the elbow axis, x runs to the wrist.
    LowerArm,
    /// Its origin is the wrist axis, x runs along the gripper.
    Wrist,
    /// Its origin is the tool point between the fingers, x points out of the gripper, z from the fixed jaw to the other.
    Gripper,
    /// Its origin is the inner face where the finger begins, x runs to the tip, the finger lies at z > 0.
    Jaw,
    /// The other finger: the same, it lies at z < 0.
    FixedJaw,
}

/// A piece of a link, to look at or to touch with.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmPart {
    /// What it is fastened to.
    pub link: Link,
    /// Its form.
    pub shape: Shape,
    /// Where it is in the link's frame.
    pub pose: Pose,
    /// sRGB.
    pub color: [u8; 3],
}

/// What a servo can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointModel {
    /// The least position in radians.
    pub min_rad: f64,
    /// The largest position in radians.
    pub max_rad: f64,
    /// Fastest turn, in radians a second.
    pub max_velocity: f64,
    /// Fastest change of velocity, in radians a second, each second.
    pub max_acceleration: f64,
}

/// An arm as data. Change lengths or the gripper, then call [`dressed`](Self::dressed).
#[derive(Debug, Clone, PartialEq)]
pub struct ArmModel {
    /// What it is called, for example `so101`.
    pub name: String,
    /// Where it stands on the table.
    pub base: Pose,
    /// From the base's origin forward to the pan axis.
    pub pan_offset_m: f64,
    /// Height of the shoulder axis above the base's origin.
    pub shoulder_height_m: f64,
    /// From the pan axis forward to the shoulder axis.
    pub shoulder_reach_m: f64,
    /// Shoulder axis to elbow axis.
    pub upper_arm_m: f64,
    /// How far the upper arm leans forward at lift zero.
    pub upper_arm_lean_rad: f64,
    /// Elbow axis to wrist axis.
    pub lower_arm_m: f64,
    /// How far the lower arm points up at lift and elbow zero.
    pub lower_arm_rise_rad: f64,
    /// Wrist axis to tool point.
    pub tool_m: f64,
    /// Limits of each joint.
    pub joints: [JointModel; JOINTS],
    /// Fingers.
    pub gripper: Gripper,
    /// What it looks like.
    pub parts: Vec<ArmPart>,
    /// What it touches with, without the fingers.
    pub hull: Vec<ArmPart>,
}

/// Where the links of an arm are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frames {
    poses: [Pose; 8],
}

impl Frames {
    /// Pose of a link in the world.
    pub fn pose(&self, link: Link) -> Pose {
        self.poses[link as usize]
    }

    /// Pose of the tool point in the world: x out of the gripper, z across the fingers.
    pub fn tool(&self) -> Pose {
        self.pose(Link::Gripper)
    }
}

impl ArmModel {
    /// Where the links are for joint positions in radians.
    pub fn frames(&self, joints: &[f64; JOINTS]) -> Frames {
        let [pan, lift, elbow, wrist, roll, grip] = *joints;
        let down = |pose: Pose, angle: f64| pose.turned(Vec3::Y, angle);
        let base = self.base;
        let shoulder =
            (base * Pose::at(self.pan_offset_m, 0.0, self.shoulder_height_m)).turned(Vec3::Z, -pan);
        let shoulder_axis = shoulder * Pose::at(self.shoulder_reach_m, 0.0, 0.0);
        let upper = down(shoulder_axis, lift + self.upper_arm_lean_rad);
        let elbow_axis =
            Pose { position: upper.apply(vec3(0.0, 0.0, self.upper_arm_m)), rotation: shoulder.rotation };
        let lower = down(elbow_axis, lift + elbow - self.lower_arm_rise_rad);
        let wrist_axis =
            Pose { position: lower.apply(vec3(self.lower_arm_m, 0.0, 0.0)), rotation: shoulder.rotation };
        let wrist_link = down(wrist_axis, lift + elbow + wrist);
        let tool = (wrist_link * Pose::at(self.tool_m, 0.0, 0.0)).turned(Vec3::X, -roll);
        let [jaw, fixed] = self.gripper.finger_frames(grip, &self.joints[GRIPPER]);
        Frames { poses: [base, shoulder, upper, lower, wrist_link, tool, tool * jaw, tool * fixed] }
    }

    /// What the arm touches with at these frames: both fingers first, the moving one before the fixed one.
    pub fn solids(&self, frames: &Frames) -> Vec<Solid> {
        let fingers = self.gripper.finger_parts();
        fingers
            .iter()
            .map(|(link, shape, pose)| Solid::new(*shape, frames.pose(*link) * *pose))
            .chain(self.hull.iter().map(|part| Solid::new(part.shape, frames.pose(part.link) * part.pose)))
            .collect()
    }

    /// Joint positions within the limits; what is not finite becomes the middle.
    pub fn clamped(&self, joints: [f64; JOINTS]) -> [f64; JOINTS] {
        std::array::from_fn(|j| {
            let model = &self.joints[j];
            let wanted =
                if joints[j].is_finite() { joints[j] } else { 0.5 * (model.min_rad + model.max_rad) };
            // Not `clamp`, which panics where a model that nobody has checked has its limits the wrong way round.
            wanted.max(model.min_rad).min(model.max_rad)
        })
    }

    /// Folded over itself, as one leaves an SO-101: upper arm back, lower arm forward, gripper ahead and half down.
    pub fn rest(&self) -> [f64; JOINTS] {
        self.clamped([0.0, -1.2, 1.1, 0.9, 0.0, 0.0])
    }
}

/// The rotation of a tool that points `pitch_rad` below the horizon, after pan and roll.
fn tool_rotation(pan: f64, pitch_rad: f64, roll: f64) -> Quat {
    Quat::about(Vec3::Z, -pan) * Quat::about(Vec3::Y, pitch_rad) * Quat::about(Vec3::X, -roll)
}
