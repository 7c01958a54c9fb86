//! Servos: positions follow goals with limited velocity and acceleration.

use crate::arm::{ArmModel, JOINTS};

/// The state of all servos of an arm, in radians and seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Servos {
    /// Where the joints are.
    pub positions: [f64; JOINTS],
    /// How fast they turn.
    pub velocities: [f64; JOINTS],
    /// Where they are told to go.
    pub goals: [f64; JOINTS],
    /// Without torque the gears hold every joint where it stands: the STS3215's 1:345 turn hard from outside.
    pub torque: bool,
}

impl Servos {
    /// At rest, with torque.
    pub fn at(positions: [f64; JOINTS]) -> Self {
        Self { positions, velocities: [0.0; JOINTS], goals: positions, torque: true }
    }

    /// Positions and velocities after `dt_s`, if nothing is in the way: full speed, braking in time.
    pub fn next(&self, arm: &ArmModel, dt_s: f64) -> ([f64; JOINTS], [f64; JOINTS]) {
        if !self.torque {
            return (self.positions, [0.0; JOINTS]);
        }
        let (mut positions, mut velocities) = (self.positions, [0.0; JOINTS]);
        for j in 0..JOINTS {
            let joint = &arm.joints[j];
            let error = self.goals[j] - self.positions[j];
            // Braking at full acceleration from v takes v²/2a; one step of it is kept in reserve.
            let step = joint.max_acceleration * dt_s;
            let braking =
                (0.25 * step * step + 2.0 * joint.max_acceleration * error.abs()).sqrt() - 0.5 * step;
            let wanted = braking.min(joint.max_velocity).min(error.abs() / dt_s).copysign(error);
            let change = (wanted - self.velocities[j]).clamp(-step, step);
            velocities[j] = self.velocities[j] + change;
            positions[j] = (self.positions[j] + velocities[j] * dt_s).clamp(joint.min_rad, joint.max_rad);
        }
        (positions, velocities)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// From rest to any goal: never faster, never harder than the limits, never past the goal by more than
        /// an eighth of a·dt², which braking in whole steps costs, and in the time of the ideal profile (up, cruise,
        /// down) and a few steps.
        #[test]
        fn motion_keeps_the_limits_and_arrives_in_time(goal in -1.6..1.6f64, from in -1.6..1.6f64) {
            let arm = ArmModel::so101();
            let (joint, dt) = (arm.joints[0], 1.0 / 240.0);
            let mut servos = Servos::at([from, 0.0, 0.0, 0.0, 0.0, 0.0]);
            servos.goals[0] = goal;
            let distance = (goal - from).abs();
            let past = 0.125 * joint.max_acceleration * dt * dt + 1e-9;
            let ramp = joint.max_velocity * joint.max_velocity / joint.max_acceleration;
            let ideal = if distance < ramp {
                2.0 * (distance / joint.max_acceleration).sqrt()
            } else {
                distance / joint.max_velocity + joint.max_velocity / joint.max_acceleration
            };
            let steps = (ideal / dt).ceil() as usize + 12;
            for _ in 0..steps {
                let (p, v) = servos.next(&arm, dt);
                prop_assert!(v[0].abs() <= joint.max_velocity + 1e-12);
                prop_assert!((v[0] - servos.velocities[0]).abs() <= joint.max_acceleration * dt + 1e-12);
                prop_assert!((p[0] - goal) * (goal - from).signum() <= past, "past the goal by {}", p[0] - goal);
                (servos.positions, servos.velocities) = (p, v);
            }
            prop_assert!((servos.positions[0] - goal).abs() < 1e-3, "{} of {goal}", servos.positions[0]);
        }
    }

    #[test]
    fn without_torque_nothing_moves() {
        let arm = ArmModel::so101();
        let mut servos = Servos::at([0.1; JOINTS]);
        servos.goals = [1.0; JOINTS];
        servos.torque = false;
        assert_eq!(servos.next(&arm, 0.1), ([0.1; JOINTS], [0.0; JOINTS]));
    }
}
