//! Four suites of tabletop tasks for the simulated arm, after the idea of LIBERO (arXiv 2306.03310): every task is given in
//! words, in a scene that serves all tasks of its suite, so that the words are needed to know what to do.
//!
//! | suite | what the words decide |
//! |---|---|
//! | [`Suite::Spatial`] | which of five identical cubes goes on the plate: by where it is |
//! | [`Suite::Object`] | which of five things goes into the basket: by what it is |
//! | [`Suite::Goal`] | what to do in one scene: open the drawer, place, stack, push |
//! | [`Suite::Long`] | two such things, one after the other |
//!
//! Suites look unlike one another (table, background, light, things), as LIBERO's do: a router tells them apart by the
//! first picture. *Left* and *right* in instructions are those of the front picture, which faces the arm.
//!
//! [`Env`] is one episode: 20 control steps a second, actions of seven numbers, a state of eight, pictures of a front and a
//! wrist camera. [`Expert`] solves it from the simulator's full state. [`Perturbation`] changes one thing about it, after
//! LIBERO-Plus (arXiv 2510.13626); [`Embodiment`] puts another arm into it, after RoboTwin (arXiv 2506.18088). The same
//! [`EnvOptions`] and actions give the same bytes on any thread.
//!
//! ```
//! use skillweld_suites::{Env, EnvOptions, Expert, Suite};
//!
//! let task = &Suite::Spatial.tasks()[0];
//! let mut env = Env::new(task, &EnvOptions::default())?;
//! let mut expert = Expert::new(&env);
//! let mut status = env.status();
//! while !status.success && status.steps < task.step_limit {
//!     let action = expert.act(&env);
//!     status = env.step(&action)?;
//! }
//! assert!(status.success);
//! # Ok::<(), skillweld_suites::SuiteError>(())
//! ```

mod controller;
mod embodiment;
mod env;
mod error;
mod expert;
mod goal;
mod layout;
mod look;
mod perturbation;
mod scene;
mod setup;
mod split;
mod suite;
mod task;
mod things;

pub use skillweld_robot_sim::Image;

pub use controller::{ACTIONS, CONTROL_HZ, OPEN_M, POSITION_SCALE_M, ROTATION_SCALE_RAD};
pub use embodiment::Embodiment;
pub use env::{Env, EnvOptions, Observation, STATES, Status};
pub use error::SuiteError;
pub use expert::Expert;
pub use goal::{Goal, HOLD_STEPS};
pub use perturbation::{Perturbation, PerturbationKind, Strength};
pub use scene::{CHUNK, RandomScene, Thing};
pub use split::Split;
pub use suite::Suite;
pub use task::Task;
