//! The control loop with an arm in memory, in virtual time; and once in real time.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod arm;
mod cameras;
mod clock;
mod failures;
mod intervention;
mod real_time;
mod steps;
mod stops;
