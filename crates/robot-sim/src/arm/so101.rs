//! The SO-101: published dimensions (joint origins of TheRobotStudio's URDF), our own simple forms.

use super::{ArmModel, ArmPart, Gripper, Jaws, JointModel, Link};
use crate::geometry::{Pose, Vec3, vec3};
use crate::shape::Shape;

const PRINT: [u8; 3] = [250, 176, 38];
const PRINT_DARK: [u8; 3] = [232, 150, 24];
const SERVO: [u8; 3] = [40, 41, 46];
const HORN: [u8; 3] = [176, 178, 184];
const BOARD: [u8; 3] = [24, 92, 68];

/// Half of an STS3215: 45.2 × 24.7 × 35 mm, the longest side first.
const SERVO_HALF_M: [f64; 3] = [0.0226, 0.0124, 0.0175];

impl ArmModel {
    /// The SO-101, with STS3215 servos as LeRobot sets them up. Its tool point is 10 mm behind the fingertips.
    pub fn so101() -> Self {
        // Under load an STS3215 turns 60° in about a quarter of a second.
        let joint =
            |min_rad, max_rad| JointModel { min_rad, max_rad, max_velocity: 4.0, max_acceleration: 30.0 };
        Self {
            name: "so101".into(),
            base: Pose::IDENTITY,
            pan_offset_m: 0.0388,
            shoulder_height_m: 0.1166,
            shoulder_reach_m: 0.0304,
            upper_arm_m: 0.1160,
            upper_arm_lean_rad: 0.2438,
            lower_arm_m: 0.1350,
            lower_arm_rise_rad: 0.0385,
            tool_m: 0.1492,
            joints: [
                joint(-1.92, 1.92),
                joint(-1.745, 1.745),
                joint(-1.69, 1.69),
                joint(-1.658, 1.658),
                joint(-2.744, 2.841),
                joint(-0.175, 1.745),
            ],
            gripper: Gripper {
                jaws: Jaws::Hinged { hinge_m: [-0.0647, 0.0202], jaw_m: 0.0765, face_m: -0.014 },
                tip_m: 0.010,
                width_m: 0.018,
                thickness_m: 0.008,
            },
            parts: Vec::new(),
            hull: Vec::new(),
        }
        .dressed()
    }

    /// The same arm with its looks and its touchable parts made anew from lengths and gripper.
    #[must_use]
    pub fn dressed(mut self) -> Self {
        let mut parts = Dress { parts: Vec::new() };
        self.dress_base(&mut parts);
        self.dress_arm(&mut parts);
        self.dress_gripper(&mut parts);
        self.parts = parts.parts;
        let mut hull = Dress { parts: Vec::new() };
        let (upper, lower) = (0.5 * self.upper_arm_m, 0.5 * self.lower_arm_m);
        hull.cuboid(Link::Base, [0.02, 0.0, 0.031], [0.055, 0.038, 0.030], PRINT);
        hull.cuboid(Link::UpperArm, [0.0, 0.0, upper], [0.016, 0.027, upper + 0.012], PRINT);
        hull.cuboid(Link::LowerArm, [lower, 0.0, 0.0], [lower + 0.012, 0.029, 0.015], PRINT);
        hull.cuboid(Link::Wrist, [0.030, 0.0, 0.0], [0.031, 0.024, 0.022], PRINT);
        hull.cuboid(Link::Gripper, [-0.069, 0.004, 0.006], [0.019, 0.026, 0.026], PRINT);
        self.hull = hull.parts;
        self
    }

    fn dress_base(&self, d: &mut Dress) {
        let pan = self.pan_offset_m;
        let top = self.shoulder_height_m - 0.054;
        d.cuboid(Link::Base, [0.010, 0.0, 0.006], [0.062, 0.040, 0.005], PRINT);
        d.cuboid(Link::Base, [pan, 0.026, 0.034], [0.026, 0.006, 0.024], PRINT);
        d.cuboid(Link::Base, [pan, -0.026, 0.034], [0.026, 0.006, 0.024], PRINT);
        d.cuboid(Link::Base, [pan - 0.024, 0.0, 0.030], [0.004, 0.030, 0.020], PRINT);
        d.cuboid(
            Link::Base,
            [pan - 0.004, 0.0, 0.5 * top + 0.006],
            [0.0226, 0.0175, 0.5 * top - 0.006],
            SERVO,
        );
        d.cuboid(Link::Base, [-0.024, 0.0, 0.016], [0.020, 0.028, 0.004], BOARD);
        d.cuboid(Link::Base, [-0.038, 0.014, 0.023], [0.006, 0.006, 0.004], SERVO);
        d.cuboid(Link::Base, [-0.038, -0.010, 0.022], [0.005, 0.008, 0.003], HORN);
        d.disc(Link::Base, [pan, 0.0, top], 'z', 0.020, 0.003, HORN);
    }

    fn dress_arm(&self, d: &mut Dress) {
        let [long, short, middle] = SERVO_HALF_M;
        let reach = self.shoulder_reach_m;
        // The shoulder: a tray on the turntable, two cheeks, a standing servo between them.
        d.cuboid(Link::Shoulder, [0.5 * reach, 0.0, -0.047], [0.5 * reach + 0.022, 0.026, 0.004], PRINT);
        d.cuboid(Link::Shoulder, [reach - 0.004, 0.0, -0.012], [short, middle, long], SERVO);
        d.cuboid(Link::Shoulder, [reach - 0.019, 0.0, -0.022], [0.003, 0.026, 0.024], PRINT_DARK);
        for y in [-0.0205, 0.0205] {
            d.cuboid(Link::Shoulder, [reach - 0.006, y, -0.028], [0.016, 0.0025, 0.020], PRINT);
            d.disc(Link::UpperArm, [0.0, 1.33 * y, 0.0], 'y', 0.0105, 0.0022, HORN);
        }
        // Two plates with round ends, joined by a web, carry the next servo.
        let upper = self.upper_arm_m;
        for y in [-0.0245, 0.0245] {
            d.cuboid(Link::UpperArm, [0.0, y, 0.5 * upper], [0.0135, 0.0028, 0.5 * upper], PRINT);
            d.disc(Link::UpperArm, [0.0, y, 0.0], 'y', 0.0170, 0.0028, PRINT);
            d.disc(Link::UpperArm, [0.0, y, upper], 'y', 0.0170, 0.0028, PRINT);
            d.disc(Link::LowerArm, [0.0, 1.24 * y, 0.0], 'y', 0.0100, 0.0024, HORN);
        }
        d.cuboid(Link::UpperArm, [-0.011, 0.0, 0.5 * upper], [0.0028, 0.0245, 0.26 * upper], PRINT_DARK);
        d.cuboid(Link::UpperArm, [0.0, 0.0, upper - 0.012], [short, middle, long], SERVO);
        let lower = self.lower_arm_m;
        for y in [-0.0215, 0.0215] {
            d.cuboid(Link::LowerArm, [0.5 * lower, y, 0.0], [0.5 * lower, 0.0026, 0.0125], PRINT);
            d.disc(Link::LowerArm, [0.0, 1.05 * y, 0.0], 'y', 0.0158, 0.0028, PRINT);
            d.disc(Link::LowerArm, [lower, y, 0.0], 'y', 0.0158, 0.0028, PRINT);
            d.disc(Link::Wrist, [0.0, 1.18 * y, 0.0], 'y', 0.0100, 0.0024, HORN);
        }
        d.cuboid(Link::LowerArm, [0.46 * lower, 0.0, -0.010], [0.27 * lower, 0.0215, 0.0025], PRINT_DARK);
        d.cuboid(Link::LowerArm, [lower - 0.012, 0.0, 0.0], [long, middle, short], SERVO);
        // The wrist: a fork around the flex axis, the roll servo in front of it.
        for y in [-0.0262, 0.0262] {
            d.cuboid(Link::Wrist, [0.011, y, 0.0], [0.014, 0.0024, 0.0125], PRINT);
        }
        d.cuboid(Link::Wrist, [0.0255, 0.0, 0.0], [0.0030, 0.0285, 0.0175], PRINT);
        d.cuboid(Link::Wrist, [0.0415, 0.0, -0.004], [0.0150, short, long], SERVO);
        d.disc(Link::Wrist, [self.tool_m - 0.0910, 0.0, 0.0], 'x', 0.0130, 0.0030, HORN);
    }

    fn dress_gripper(&self, d: &mut Dress) {
        let [long, short, middle] = SERVO_HALF_M;
        let width = 0.5 * self.gripper.width_m;
        d.cuboid(Link::Gripper, [-0.083, 0.0, 0.0], [0.0050, 0.0240, 0.0220], PRINT);
        d.cuboid(Link::Gripper, [-0.0775, 0.0265, 0.006], [0.0105, 0.0030, 0.0240], PRINT);
        // The little camera beside the fingers, on its arm.
        d.cuboid(Link::Gripper, [-0.088, 0.045, 0.0], [0.0030, 0.0200, 0.0100], PRINT_DARK);
        d.cuboid(Link::Gripper, [-0.086, 0.070, 0.0], [0.0060, 0.0120, 0.0140], SERVO);
        d.disc(Link::Gripper, [-0.078, 0.068, 0.0], 'x', 0.0060, 0.0030, HORN);
        match self.gripper.jaws {
            Jaws::Hinged { hinge_m: [x, z], jaw_m, face_m } => {
                d.cuboid(Link::Gripper, [x - 0.002, 0.004, z - 0.010], [middle, long - 0.004, short], SERVO);
                d.disc(Link::Jaw, [0.0, -0.016, 0.004], 'y', 0.0120, 0.0040, HORN);
                d.disc(Link::Jaw, [0.0, 0.0, 0.004], 'y', 0.0110, 0.0140, PRINT);
                d.cuboid(Link::Jaw, [0.28 * jaw_m, 0.0, 0.0075], [0.30 * jaw_m, 0.0110, 0.0065], PRINT);
                d.cuboid(Link::Jaw, [0.74 * jaw_m, 0.0, 0.0045], [0.26 * jaw_m, width, 0.0045], PRINT);
                let fixed = self.gripper.tip_m - x;
                d.cuboid(Link::Gripper, [x - 0.006, 0.0, face_m - 0.007], [0.0200, 0.0240, 0.0060], PRINT);
                d.cuboid(Link::FixedJaw, [0.32 * fixed, 0.0, -0.0070], [0.32 * fixed, 0.0115, 0.0070], PRINT);
                d.cuboid(Link::FixedJaw, [0.78 * fixed, 0.0, -0.0045], [0.22 * fixed, width, 0.0045], PRINT);
            }
            Jaws::Parallel { finger_m, opening_m } => {
                let half = 0.5 * opening_m + 0.012;
                let back = self.gripper.tip_m - finger_m - 0.010;
                d.cuboid(Link::Gripper, [back - 0.008, 0.0, 0.0], [0.0140, long, half], SERVO);
                d.cuboid(Link::Gripper, [back + 0.006, 0.0, 0.0], [0.0030, 0.0060, half], HORN);
                for (link, side) in [(Link::Jaw, 1.0), (Link::FixedJaw, -1.0)] {
                    let z = side * 0.5 * self.gripper.thickness_m;
                    d.cuboid(link, [0.5 * finger_m, 0.0, z], [0.5 * finger_m, width, z.abs()], PRINT);
                }
            }
        }
    }
}

struct Dress {
    parts: Vec<ArmPart>,
}

impl Dress {
    fn cuboid(&mut self, link: Link, centre: [f64; 3], half: [f64; 3], color: [u8; 3]) {
        let shape = Shape::cuboid(half[0], half[1], half[2]);
        self.parts.push(ArmPart { link, shape, pose: Pose::at(centre[0], centre[1], centre[2]), color });
    }

    /// A cylinder along one of the link's axes.
    fn disc(
        &mut self,
        link: Link,
        centre: [f64; 3],
        along: char,
        radius_m: f64,
        half_m: f64,
        color: [u8; 3],
    ) {
        let upright = Pose::at(centre[0], centre[1], centre[2]);
        let pose = match along {
            'x' => upright.turned(Vec3::Y, std::f64::consts::FRAC_PI_2),
            'y' => upright.turned(Vec3::X, std::f64::consts::FRAC_PI_2),
            _ => upright,
        };
        self.parts.push(ArmPart { link, shape: Shape::cylinder(radius_m, half_m), pose, color });
    }
}

/// Where a camera sits on the gripper of the SO-101, and what it looks at: places in the gripper's frame.
pub(crate) const WRIST_CAMERA: [Vec3; 2] = [vec3(-0.074, 0.068, 0.0), vec3(0.030, -0.004, 0.004)];
