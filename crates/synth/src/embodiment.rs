use serde_json::{Value, json};

use crate::Noise;

/// The robot that a policy was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Embodiment {
    /// LIBERO's arm: actions of 7 numbers move the hand, a state of 8; nothing says so, as in the published checkpoints.
    #[default]
    Libero,
    /// An SO-101: actions and state are 6 joint positions, in degrees and of the gripper in percent; `config.json` says so.
    So101,
}

const SO101: [&str; 6] =
    ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"];

impl Embodiment {
    /// Numbers of an action.
    pub const fn action_dim(self) -> usize {
        match self {
            Self::Libero => 7,
            Self::So101 => SO101.len(),
        }
    }

    /// Numbers of a state.
    pub const fn state_dim(self) -> usize {
        match self {
            Self::Libero => 8,
            Self::So101 => SO101.len(),
        }
    }

    /// `action_space` of `config.json`.
    pub(crate) fn action_space(self) -> Option<Value> {
        let units = || SO101.map(|joint| if joint == "gripper" { "percent" } else { "degrees" });
        match self {
            Self::Libero => None,
            Self::So101 => Some(json!({"kind": "joint_positions", "names": SO101, "units": units()})),
        }
    }

    /// Statistics of one data set of such actions and states, as OpenVLA's loaders write them: per dimension. LIBERO's
    /// gripper, the last action, is not normalised.
    pub(crate) fn statistics(self, seed: u64, name: &str) -> Value {
        let group = |what: &str, len: usize| {
            let centre = Noise::new(seed, &format!("{name}/{what}/centre")).take(len, 0.1);
            let spread = Noise::new(seed, &format!("{name}/{what}/spread")).take(len, 0.1);
            // A fifth of an SO-101's ranges, near their middle; of its gripper's, which starts at 0, too.
            let scale = |i: usize| match self {
                Self::Libero => (0.0, 1.0),
                Self::So101 if i + 1 == len => (50.0, 20.0),
                Self::So101 => (0.0, 20.0),
            };
            let at = |sigmas: f32| -> Vec<f32> {
                let value = |(i, (c, s)): (usize, (&f32, &f32))| {
                    let (middle, width) = scale(i);
                    middle + width * (c + sigmas * (0.4 + s.abs()))
                };
                centre.iter().zip(&spread).enumerate().map(value).collect()
            };
            let std: Vec<f32> =
                spread.iter().enumerate().map(|(i, s)| scale(i).1 * (0.4 + s.abs())).collect();
            json!({
                "mean": at(0.0), "std": std,
                "max": at(3.0), "min": at(-3.0), "q01": at(-2.33), "q99": at(2.33),
            })
        };
        let mut action = group("action", self.action_dim());
        let normalised = |i: usize| self == Self::So101 || i + 1 < self.action_dim();
        action["mask"] = (0..self.action_dim()).map(normalised).collect();
        json!({ name: {
            "action": action,
            "proprio": group("proprio", self.state_dim()),
            "num_transitions": 50_000,
            "num_trajectories": 432,
        } })
    }
}
