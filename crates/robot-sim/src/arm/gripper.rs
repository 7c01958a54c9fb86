use super::{JointModel, Link};
use crate::geometry::{Pose, Vec3, vec3};
use crate::shape::Shape;

/// How the fingers move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jaws {
    /// One finger is fixed, the other turns about a hinge, as on the SO-101. Places are in the gripper's frame.
    Hinged {
        /// The hinge: x (negative, behind the tool point) and z.
        hinge_m: [f64; 2],
        /// Length of the turning finger.
        jaw_m: f64,
        /// Where the fixed finger's inner face is along z.
        face_m: f64,
    },
    /// Both slide, symmetrically.
    Parallel {
        /// Between the fingers when they are open.
        opening_m: f64,
        /// Length of the fingers.
        finger_m: f64,
    },
}

/// Fingers of an arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gripper {
    /// How they move.
    pub jaws: Jaws,
    /// How far the tips are beyond the tool point, in metres.
    pub tip_m: f64,
    /// Width of a finger along the hinge.
    pub width_m: f64,
    /// Thickness of a finger across its inner face.
    pub thickness_m: f64,
}

impl Gripper {
    /// Frames of the moving and of the fixed finger in the gripper's frame, for a gripper joint in radians.
    pub(super) fn finger_frames(&self, position_rad: f64, joint: &JointModel) -> [Pose; 2] {
        match self.jaws {
            Jaws::Hinged { hinge_m: [x, z], face_m, .. } => {
                let angle = position_rad - joint.min_rad + self.closed_rad();
                [Pose::at(x, 0.0, z).turned(Vec3::Y, -angle), Pose::at(x, 0.0, face_m)]
            }
            Jaws::Parallel { finger_m, .. } => {
                let half = 0.5 * self.opening_m(position_rad, joint);
                [Pose::at(self.tip_m - finger_m, 0.0, half), Pose::at(self.tip_m - finger_m, 0.0, -half)]
            }
        }
    }

    /// Direction of a hinged jaw when its tip touches the fixed finger: below the gripper's x axis.
    fn closed_rad(&self) -> f64 {
        match self.jaws {
            Jaws::Hinged { hinge_m: [_, z], jaw_m, face_m } => ((face_m - z) / jaw_m).clamp(-1.0, 1.0).asin(),
            Jaws::Parallel { .. } => 0.0,
        }
    }

    /// Between the fingertips for a gripper joint in radians.
    pub fn opening_m(&self, position_rad: f64, joint: &JointModel) -> f64 {
        match self.jaws {
            Jaws::Hinged { hinge_m: [_, z], jaw_m, face_m } => {
                z - face_m + jaw_m * (position_rad - joint.min_rad + self.closed_rad()).sin()
            }
            Jaws::Parallel { opening_m, .. } => {
                opening_m * (position_rad - joint.min_rad) / (joint.max_rad - joint.min_rad)
            }
        }
    }

    /// The gripper joint in radians for a distance between the fingertips, within the joint's limits.
    pub fn position_for(&self, opening_m: f64, joint: &JointModel) -> f64 {
        let position_rad = match self.jaws {
            Jaws::Hinged { hinge_m: [_, z], jaw_m, face_m } => {
                let angle = ((opening_m + face_m - z) / jaw_m).clamp(-1.0, 1.0).asin();
                angle - self.closed_rad() + joint.min_rad
            }
            Jaws::Parallel { opening_m: widest, .. } => {
                joint.min_rad + opening_m / widest * (joint.max_rad - joint.min_rad)
            }
        };
        position_rad.max(joint.min_rad).min(joint.max_rad)
    }

    /// Where along z of the gripper the middle of a thing is to be before the fingers close on it: two millimetres from
    /// the fixed finger, or halfway between two that move.
    pub fn grip_centre_m(&self, width_m: f64) -> f64 {
        match self.jaws {
            Jaws::Hinged { face_m, .. } => face_m + 0.5 * width_m + 2e-3,
            Jaws::Parallel { .. } => 0.0,
        }
    }

    /// The boxes that touch: moving finger, fixed finger.
    pub(super) fn finger_parts(&self) -> [(Link, Shape, Pose); 2] {
        let (jaw_m, fixed_m) = match self.jaws {
            Jaws::Hinged { hinge_m: [x, _], jaw_m, .. } => (jaw_m, self.tip_m - x),
            Jaws::Parallel { finger_m, .. } => (finger_m, finger_m),
        };
        let half = 0.5 * self.thickness_m;
        // The tips alone grip: behind them a hinged jaw swings through the palm.
        let finger = |link, length_m: f64, side: f64| {
            let shape = Shape::Box { half_m: vec3(0.35 * length_m, 0.5 * self.width_m, half) };
            (link, shape, Pose::at(0.65 * length_m, 0.0, side * half))
        };
        [finger(Link::Jaw, jaw_m, 1.0), finger(Link::FixedJaw, fixed_m, -1.0)]
    }
}
