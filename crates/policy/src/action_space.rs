use serde::Deserialize;

use crate::PolicyError;
use crate::config::Config;

/// What the numbers of a policy's actions mean, as `action_space` in its `config.json` says:
///
/// ```json
/// "action_space": {"kind": "joint_positions", "names": ["shoulder_pan", …], "units": ["degrees", …]}
/// ```
///
/// Whoever drives a robot by the policy compares it with the robot before anything moves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionSpace {
    /// `joint_positions`, `joint_deltas` or `end_effector`.
    pub kind: ActionKind,
    /// One name a number of an action.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// One unit a number of an action: `degrees`, `radians`, `centred` (−100 … 100), `percent` (0 … 100), `metres`.
    #[serde(default)]
    pub units: Option<Vec<String>>,
}

/// What an action says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// Where each joint is to be.
    JointPositions,
    /// How far each joint is to move.
    JointDeltas,
    /// Where the hand is to be, or how far it is to move.
    EndEffector,
}

impl ActionKind {
    /// As `config.json` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::JointPositions => "joint_positions",
            Self::JointDeltas => "joint_deltas",
            Self::EndEffector => "end_effector",
        }
    }
}

impl ActionSpace {
    /// Refuses lists of another length than an action has.
    pub(crate) fn check(&self, config: &Config, action_dim: usize) -> Result<(), PolicyError> {
        let lists = [("names", &self.names), ("units", &self.units)];
        let wrong = lists.into_iter().find_map(|(what, list)| {
            let len = list.as_ref()?.len();
            (len != action_dim).then(|| {
                format!(
                    "`action_space.{what}` lists {len}, but the policy's actions have {action_dim} numbers"
                )
            })
        });
        wrong.map_or(Ok(()), |problem| Err(config.problem(problem)))
    }
}
