//! Sweeps: many merges of one recipe, each scored by the user's own evaluation.
//!
//! ```text
//! --set α=0.1:0.9:0.1 ─▶ Axis ─┐
//! --set λ=0.4,0.6     ─▶ Axis ─┴▶ grid ─▶ Point ─▶ Engine ─▶ Score ─▶ sweep.json ─▶ results.csv, .json, sweep.svg
//!                                                 (Local or Ray)
//! ```
//!
//! An [`Engine`] makes the checkpoint of a point, runs the evaluation on it and removes it: [`Local`] in this process, where
//! all points share opened models and whatever plans found out about them, [`Ray`] by jobs of a cluster. [`Sweep::run`] knows
//! neither; it works off what is missing and writes down every evaluation before it goes on, so that a sweep that was
//! stopped or killed goes on where it was.
//!
//! This crate prints nothing.

mod axis;
mod command;
mod error;
mod evaluation;
mod ledger;
mod local;
mod plot;
mod ray;
mod results;
mod score;
mod summary;
mod sweep;

pub use axis::{Axis, Point, grid};
pub use command::EvalCommand;
pub use error::SweepError;
pub use ledger::{Definition, Outcome, Trial, Written};
pub use local::{Local, LocalOptions, Points};
pub use ray::{Ray, RayOptions};
pub use score::Score;
pub use summary::{PointSummary, Summary};
pub use sweep::{Engine, Event, Sweep, Watch};
