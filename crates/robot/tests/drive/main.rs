//! The control loop with an arm in memory, in virtual time; and once in real time.

mod arm;
mod cameras;
mod failures;
mod intervention;
mod real_time;
mod steps;
mod stops;
