//! A simulated SO-101: kinematics, contact by simple rules, cameras drawn on the CPU. It needs nothing but this crate, and
//! gives the same bytes for the same seed and actions.
//!
//! [`SimArm`] is a [`skillweld_robot::Robot`] with the joints, units and limits of the real arm. Underneath is a [`World`]:
//! an [`ArmModel`], a table and [`Body`]s, moved in steps of 1/240 s and drawn by a [`Renderer`]. A [`Scene`] says how it
//! looks. All of them are plain data, for other arms, other things and other light.

mod arm;
mod body;
mod error;
mod geometry;
mod random;
mod render;
mod scene;
mod servo;
mod shape;
mod sim_robot;
mod tabletop;
mod world;

pub use arm::{
    ArmModel, ArmPart, Frames, GRIPPER, Gripper, JOINT_NAMES, JOINTS, Jaws, JointModel, Link, ToolTarget,
    Unreachable,
};
pub use body::{Body, Motion, Part};
pub use error::SimError;
pub use geometry::{Pose, Quat, Vec3, vec3};
pub use random::Random;
pub use render::{Image, Renderer};
pub use scene::{Background, Camera, Light, Mark, Mount, Scene, Surface, Table};
pub use servo::Servos;
pub use shape::{Contact, Shape, Solid, contact, push_xy, separation_m, sweep};
pub use sim_robot::{Clock, SimArm, SimOptions};
pub use tabletop::cubes_and_tray;
pub use world::{FLOOR_M, STEP_S, STEPS_PER_S, TABLE, TOLERANCE_M, World};
