use std::fmt;

/// What a joint's numbers mean, both those observed and those sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Degrees from the middle of the joint's range.
    Degrees,
    /// Radians from the middle of the joint's range.
    Radians,
    /// −100 … 100 over the joint's range.
    Centred,
    /// 0 … 100 over the joint's range: grippers, 0 is closed.
    Percent,
    /// Metres.
    Metres,
}

impl Unit {
    /// As it is written in files and on the command line: `degrees`, `radians`, `centred`, `percent`, `metres`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Degrees => "degrees",
            Self::Radians => "radians",
            Self::Centred => "centred",
            Self::Percent => "percent",
            Self::Metres => "metres",
        }
    }
}

impl Unit {
    /// The unit of that [`name`](Self::name).
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Degrees, Self::Radians, Self::Centred, Self::Percent, Self::Metres];
        all.into_iter().find(|unit| unit.name() == name)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the numbers of an arm's joints before its gripper mean; the gripper's are always percent. It is LeRobot's
/// `use_degrees`, and must be that of the data which a policy was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyUnit {
    /// Degrees from the middle of the range: LeRobot's default.
    #[default]
    Degrees,
    /// −100 … 100 over the range: LeRobot's default before.
    Centred,
}

impl BodyUnit {
    /// Of a joint before the gripper.
    pub const fn unit(self) -> Unit {
        match self {
            Self::Degrees => Unit::Degrees,
            Self::Centred => Unit::Centred,
        }
    }

    /// One a joint, the gripper last.
    pub fn of_joints(self, joints: usize) -> Vec<Unit> {
        let mut units = vec![self.unit(); joints];
        if let Some(gripper) = units.last_mut() {
            *gripper = Unit::Percent;
        }
        units
    }
}

/// One number of a state and of an action.
#[derive(Debug, Clone, PartialEq)]
pub struct Joint {
    /// The joint's name, for example `shoulder_pan`; the number's name in datasets is `shoulder_pan.pos`.
    pub name: String,
    /// What its numbers mean.
    pub unit: Unit,
    /// The least position that may be commanded, in `unit`: from the calibration.
    pub min: f64,
    /// The largest position that may be commanded, in `unit`.
    pub max: f64,
    /// The fastest that it may be told to move, in `unit` a second.
    pub max_velocity: f64,
}
