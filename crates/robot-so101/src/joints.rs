/// One motor of the arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Motor {
    /// The joint's name, as in LeRobot's datasets and calibration files.
    pub name: &'static str,
    /// What the servo answers to.
    pub id: u8,
}

/// The joints of leader and follower, from the foot up: the order of states, actions and calibration files.
pub const JOINTS: [Motor; 6] = [
    Motor { name: "shoulder_pan", id: 1 },
    Motor { name: "shoulder_lift", id: 2 },
    Motor { name: "elbow_flex", id: 3 },
    Motor { name: "wrist_flex", id: 4 },
    Motor { name: "wrist_roll", id: 5 },
    Motor { name: "gripper", id: 6 },
];

/// The joint that turns all the way round: its range is not swept.
pub(crate) const WRIST_ROLL: usize = 4;
pub(crate) const GRIPPER: usize = 5;

/// The servos' ids, in the order of the joints.
pub(crate) const IDS: [u8; 6] = {
    let mut ids = [0; 6];
    let mut i = 0;
    while i < 6 {
        ids[i] = JOINTS[i].id;
        i += 1;
    }
    ids
};

/// A servo as messages call it: `elbow_flex (id 3)`, or `servo 9` if no joint has this id.
pub fn label(id: u8) -> String {
    match JOINTS.iter().find(|motor| motor.id == id) {
        Some(motor) => format!("{} (id {id})", motor.name),
        None => format!("servo {id}"),
    }
}

/// Several servos as messages call them.
pub(crate) fn labels(ids: &[u8]) -> String {
    ids.iter().map(|&id| label(id)).collect::<Vec<_>>().join(", ")
}
