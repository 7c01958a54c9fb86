use std::fmt;

use crate::{Description, Joint, Unit};

/// By how much a goal may run ahead of its joint, in seconds at its largest velocity. A position-controlled servo lags behind
/// a moving goal by some tens of milliseconds, so less than that slows every movement; more lets a blocked arm press harder.
pub(crate) const LEAD_S: f64 = 0.1;

/// Which limit changed a goal most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    /// The joint's range.
    Range,
    /// The distance from where the joint is.
    Step,
    /// The distance from the goal before.
    Velocity,
}

impl fmt::Display for Clamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range => "its range",
            Self::Step => "the largest step from where it is",
            Self::Velocity => "its largest velocity",
        })
    }
}

/// A goal that was changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Clamped {
    /// The joint's name.
    pub joint: String,
    /// What was asked for, in `unit`.
    pub from: f64,
    /// What was sent instead, in `unit`.
    pub to: f64,
    /// The joint's unit.
    pub unit: Unit,
    /// The limit that did it.
    pub by: Clamp,
}

/// An action that must not be sent, not even in part.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// NaN or infinity.
    #[error("an action is {value} for joint {joint}: it is not sent")]
    NotFinite {
        /// The joint's name.
        joint: String,
        /// NaN, inf or −inf.
        value: f64,
    },
    /// Too few or too many numbers.
    #[error("an action has {found} numbers, the robot has {joints} joints: it is not sent")]
    Length {
        /// Numbers of the action.
        found: usize,
        /// Joints of the robot.
        joints: usize,
    },
}

/// A goal within all limits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limited {
    /// Where it goes.
    pub(crate) goal: Vec<f64>,
    /// What was changed, at most once a joint.
    pub(crate) clamped: Vec<Clamped>,
}

/// Brings goals within the limits. Whatever is asked for and observed, of each joint:
/// - the goal lies in its range;
/// - it differs from the goal before by no more than a period's way at the largest velocity, so that a wrong reading cannot
///   make the arm jump;
/// - it lies within a step of where the joint is. If the arm was pushed farther away than that, the goal follows it at the
///   largest velocity instead of pressing back.
#[derive(Debug)]
pub(crate) struct Limiter {
    joints: Vec<Joint>,
    max_step: Vec<f64>,
    max_change: Vec<f64>,
    last: Vec<f64>,
}

impl Limiter {
    /// `max_step` is one number a joint in its unit, or none for [`LEAD_S`] of each.
    ///
    /// # Errors
    /// What is wrong with the description or the steps, in words.
    pub(crate) fn new(robot: &Description, max_step: Option<&[f64]>, hz: f64) -> Result<Self, String> {
        for Joint { name, unit, min, max, max_velocity } in &robot.joints {
            if !(min.is_finite() && max.is_finite() && min < max) {
                return Err(format!(
                    "joint {name} has the range {min} to {max} {unit}: calibrate {}",
                    robot.kind
                ));
            }
            if !(max_velocity.is_finite() && *max_velocity > 0.0) {
                return Err(format!(
                    "joint {name} has the largest velocity {max_velocity} {unit} a second: give a positive number"
                ));
            }
        }
        let velocities = robot.joints.iter().map(|joint| joint.max_velocity);
        let max_step: Vec<f64> = match max_step {
            Some(steps) => steps.to_vec(),
            None => velocities.clone().map(|velocity| velocity * LEAD_S).collect(),
        };
        if max_step.len() != robot.joints.len() {
            let joints = robot.joints.len();
            return Err(format!(
                "{} largest steps are given, {} has {joints} joints",
                max_step.len(),
                robot.kind
            ));
        }
        if let Some(bad) = max_step.iter().find(|step| !(step.is_finite() && **step > 0.0)) {
            return Err(format!("the largest step is {bad}: give a positive number"));
        }
        let max_change = velocities.map(|velocity| velocity / hz).collect();
        let last = robot.joints.iter().map(|joint| joint.min).collect();
        Ok(Self { joints: robot.joints.clone(), max_step, max_change, last })
    }

    /// The joint that stands outside its range by more than a step, with where it stands: the arm must not start there.
    pub(crate) fn outside(&self, positions: &[f64]) -> Option<(&Joint, f64)> {
        let joints = self.joints.iter().zip(&self.max_step).zip(positions);
        let mut outside = joints.filter(|((joint, step), position)| {
            **position < joint.min - *step || **position > joint.max + *step
        });
        outside.next().map(|((joint, _), position)| (joint, *position))
    }

    /// The arm stands there, and that is its goal: at the start, and after a hold. A joint outside of its range is brought back
    /// to the edge.
    pub(crate) fn stands_at(&mut self, positions: &[f64]) {
        for ((last, joint), position) in self.last.iter_mut().zip(&self.joints).zip(positions) {
            *last = position.clamp(joint.min, joint.max);
        }
    }

    /// That goal was sent.
    pub(crate) fn sent(&mut self, goal: &[f64]) {
        self.last.copy_from_slice(goal);
    }

    /// The last goal.
    pub(crate) fn last(&self) -> &[f64] {
        &self.last
    }

    /// The nearest goal to `wanted` within all limits; `observed` are finite positions, one a joint.
    pub(crate) fn limit(&self, wanted: &[f64], observed: &[f64]) -> Result<Limited, Refusal> {
        if wanted.len() != self.joints.len() {
            return Err(Refusal::Length { found: wanted.len(), joints: self.joints.len() });
        }
        if let Some((joint, value)) = self.joints.iter().zip(wanted).find(|(_, value)| !value.is_finite()) {
            return Err(Refusal::NotFinite { joint: joint.name.clone(), value: *value });
        }
        let mut limited = Limited { goal: Vec::new(), clamped: Vec::new() };
        for (index, joint) in self.joints.iter().enumerate() {
            let (wanted, observed, last) = (wanted[index], observed[index], self.last[index]);
            let (step, change) = (self.max_step[index], self.max_change[index]);
            let in_range = wanted.clamp(joint.min, joint.max);
            let least = (observed - step).clamp(joint.min, joint.max);
            let largest = (observed + step).clamp(joint.min, joint.max);
            let reachable = |position: f64| position.clamp(last - change, last + change);
            // Between the last goal and one in the range, so in the range.
            let goal = reachable(in_range.clamp(least, largest));

            let by = if goal == in_range {
                (in_range != wanted).then_some(Clamp::Range)
            } else if goal == reachable(in_range) {
                Some(Clamp::Velocity)
            } else {
                Some(Clamp::Step)
            };
            if let Some(by) = by {
                let (joint, unit) = (joint.name.clone(), joint.unit);
                limited.clamped.push(Clamped { joint, from: wanted, to: goal, unit, by });
            }
            limited.goal.push(goal);
        }
        Ok(limited)
    }
}

#[cfg(test)]
mod tests;
