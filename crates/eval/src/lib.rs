//! How often a policy succeeds: rollouts in the tabletop suites.
//!
//! - [`Trial`]: an episode by name — task, split, index, perturbation, arm — which is the same for every policy;
//! - [`Rollout`]: one trial by any [`ChunkSource`](skillweld_robot::ChunkSource), a policy in this process or behind a socket;
//! - [`Results`]: what came of trials, a line each in a file that an interrupted evaluation goes on with;
//! - [`rate`]: successes of so many, with Wilson's interval; [`paired`]: two policies on the same trials.
//!
//! This crate knows no model and no wire protocol.

mod error;
mod parallel;
mod results;
mod rollout;
mod summary;
mod trial;

pub use error::EvalError;
pub use results::{Results, TrialResult, paired, rate};
pub use rollout::{Rollout, agree};
pub use summary::{Group, GroupKind, groups, results_csv, routed, router_accuracy, success_plot};
pub use trial::Trial;
