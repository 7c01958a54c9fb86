//! What happens to tensors, by name: the same words in plans, reports and `skillweld.json`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Action, PlannedTensor};

/// Where a tensor belongs in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// `action_expert.safetensors`.
    ActionExpert,
    /// The model itself.
    Model,
}

/// What happens to a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ActionKind {
    /// It becomes the plain mean of all experts.
    #[serde(rename = "averaged")]
    Averaged,
    /// Every model has the same bits: they are copied.
    #[serde(rename = "copied")]
    Copied,
    /// It is no part of the output.
    #[serde(rename = "left out")]
    LeftOut,
    /// The merge method joins it.
    #[serde(rename = "merged")]
    Merged,
    /// Every task keeps its own.
    #[serde(rename = "per task")]
    PerTask,
    /// It cannot be merged, and so nothing is.
    #[serde(rename = "refused")]
    Refused,
}

/// Tensors of one part that are treated alike. In JSON, and as a key there, `model: merged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TensorGroup {
    /// Where they belong.
    pub part: Part,
    /// What happens to them.
    pub action: ActionKind,
}

impl Part {
    const ALL: [Self; 2] = [Self::ActionExpert, Self::Model];
}

impl ActionKind {
    const ALL: [Self; 6] =
        [Self::Averaged, Self::Copied, Self::LeftOut, Self::Merged, Self::PerTask, Self::Refused];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::ActionExpert => "action_expert",
            Part::Model => "model",
        })
    }
}

impl fmt::Display for ActionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ActionKind::Averaged => "averaged",
            ActionKind::Copied => "copied",
            ActionKind::LeftOut => "left out",
            ActionKind::Merged => "merged",
            ActionKind::PerTask => "per task",
            ActionKind::Refused => "refused",
        })
    }
}

impl fmt::Display for TensorGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.action)
    }
}

impl FromStr for TensorGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (part, action) = text.split_once(": ")?;
            let part = Part::ALL.into_iter().find(|known| known.to_string() == part)?;
            let action = ActionKind::ALL.into_iter().find(|known| known.to_string() == action)?;
            Some(Self { part, action })
        };
        read().ok_or_else(|| format!("`{text}` is no group of tensors such as `model: merged`"))
    }
}

impl TryFrom<String> for TensorGroup {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TensorGroup> for String {
    fn from(group: TensorGroup) -> Self {
        group.to_string()
    }
}

impl Action<'_> {
    pub(crate) fn kind(&self) -> ActionKind {
        match self {
            Action::Copy(_) => ActionKind::Copied,
            Action::Merge(_) => ActionKind::Merged,
            Action::Average(_) => ActionKind::Averaged,
            Action::PerTask(_) => ActionKind::PerTask,
            Action::LeaveOut(_) => ActionKind::LeftOut,
            Action::Refuse(_) => ActionKind::Refused,
        }
    }
}

impl PlannedTensor<'_> {
    pub(crate) fn group(&self) -> TensorGroup {
        TensorGroup { part: self.part, action: self.action.kind() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn json_has_the_words_that_people_read_in_their_order() {
        let mut all = BTreeMap::new();
        for part in Part::ALL {
            for action in ActionKind::ALL {
                assert_eq!(serde_json::to_value(part).unwrap(), part.to_string());
                assert_eq!(serde_json::to_value(action).unwrap(), action.to_string());
                all.insert(TensorGroup { part, action }, all.len());
            }
        }
        let json = serde_json::to_string(&all).unwrap();
        assert!(json.starts_with(r#"{"action_expert: averaged":0,"action_expert: copied":1,"#), "{json}");
        assert!(json.ends_with(r#""model: per task":10,"model: refused":11}"#), "{json}");
        assert_eq!(serde_json::from_str::<BTreeMap<TensorGroup, usize>>(&json).unwrap(), all);
        assert!(serde_json::from_str::<TensorGroup>(r#""model: lost""#).is_err());
    }
}
