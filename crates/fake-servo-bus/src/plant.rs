/// What a servo asks of its shaft.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drive {
    /// Whether it turns and holds the shaft at all.
    pub torque: bool,
    /// Where the shaft should be, in ticks of the encoder; 4096 are a turn.
    pub goal_ticks: f64,
    /// The fastest that it may turn.
    pub max_velocity_ticks_s: f64,
    /// The largest change of velocity; infinite if the servo sets no limit.
    pub max_acceleration_ticks_s2: f64,
    /// 0 … 1 of the servo's torque.
    pub torque_limit: f64,
}

/// Where a shaft is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Shaft {
    /// In ticks of the encoder, before the homing offset; continues beyond one turn.
    pub position_ticks: f64,
    /// Positive where positions grow.
    pub velocity_ticks_s: f64,
    /// −1 … 1 of the servo's torque, what the load register shows.
    pub load: f64,
}

/// What the servos' shafts are fixed to: something that moves as time passes. A simulator can stand here.
pub trait Plant: Send {
    /// Moves the shafts by a step of time. `drives` and `shafts` are in the order in which the servos were made.
    fn step(&mut self, dt_s: f64, drives: &[Drive], shafts: &mut [Shaft]);
}

/// Shafts without load that follow their goals within the limits of velocity and acceleration, each for itself.
/// Without torque they stay where they are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FirstOrder;

impl Plant for FirstOrder {
    fn step(&mut self, dt_s: f64, drives: &[Drive], shafts: &mut [Shaft]) {
        for (drive, shaft) in drives.iter().zip(shafts) {
            if drive.torque {
                follow(drive, shaft, dt_s);
            } else {
                shaft.velocity_ticks_s = 0.0;
                shaft.load = 0.0;
            }
        }
    }
}

/// Ticks of error at which a servo uses all of its torque.
const FULL_TORQUE_TICKS: f64 = 200.0;

fn follow(drive: &Drive, shaft: &mut Shaft, dt_s: f64) {
    let error = drive.goal_ticks - shaft.position_ticks;
    // The fastest from which it can still stop at the goal.
    let stopping = (2.0 * drive.max_acceleration_ticks_s2 * error.abs()).sqrt();
    let wanted = error.signum() * stopping.min(drive.max_velocity_ticks_s).min(error.abs() / dt_s);
    let change = drive.max_acceleration_ticks_s2 * dt_s;
    let velocity = wanted.clamp(shaft.velocity_ticks_s - change, shaft.velocity_ticks_s + change);
    shaft.position_ticks += velocity * dt_s;
    shaft.velocity_ticks_s = velocity;
    if (drive.goal_ticks - shaft.position_ticks).abs() < 0.5 {
        shaft.position_ticks = drive.goal_ticks;
        shaft.velocity_ticks_s = 0.0;
    }
    shaft.load = (error / FULL_TORQUE_TICKS).clamp(-drive.torque_limit, drive.torque_limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIVE: Drive = Drive {
        torque: true,
        goal_ticks: 1000.0,
        max_velocity_ticks_s: 500.0,
        max_acceleration_ticks_s2: 2000.0,
        torque_limit: 1.0,
    };

    #[test]
    fn a_shaft_keeps_its_limits_and_arrives() {
        let mut shafts = [Shaft::default()];
        let mut before = shafts[0];
        for _ in 0..3000 {
            FirstOrder.step(0.001, &[DRIVE], &mut shafts);
            let shaft = shafts[0];
            assert!(shaft.velocity_ticks_s.abs() <= 500.0 + 1e-9);
            let arrived = shaft.position_ticks == 1000.0;
            let change = (shaft.velocity_ticks_s - before.velocity_ticks_s).abs();
            assert!(arrived || change <= 2.0 + 1e-9, "{before:?} {shaft:?}");
            assert!(shaft.position_ticks <= 1000.0 + 1.0, "{shaft:?}");
            before = shaft;
        }
        assert_eq!(shafts[0].position_ticks, 1000.0);
    }

    #[test]
    fn without_torque_a_shaft_stays() {
        let off = Drive { torque: false, ..DRIVE };
        let mut shafts = [Shaft { position_ticks: 300.0, velocity_ticks_s: 40.0, load: 0.5 }];
        FirstOrder.step(1.0, &[off], &mut shafts);
        assert_eq!(shafts[0], Shaft { position_ticks: 300.0, velocity_ticks_s: 0.0, load: 0.0 });
    }
}
