use std::fmt;

use serde::{Deserialize, Serialize};
use skillweld_suites::{Embodiment, Env, EnvOptions, Perturbation, PerturbationKind, Split, Strength, Task};

use crate::EvalError;

/// An episode, the same for every policy that is tried on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trial {
    /// The task's id, for example `spatial_left`: its suite, `_`, its name. Results of another benchmark have tasks of their own.
    pub task: String,
    /// What the layout is for.
    #[serde(with = "named::split")]
    pub split: Split,
    /// Which layout of the split.
    pub index: u32,
    /// What is unlike training; its seed is the layout's.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "named::perturbation")]
    pub perturbation: Option<(PerturbationKind, Strength)>,
    /// Which arm. Another benchmark, which says nothing of it, has one.
    #[serde(default, with = "named::embodiment")]
    pub embodiment: Embodiment,
}

/// How trials that are like training are called beside others.
pub(crate) const NO_PERTURBATION: &str = "none";

/// What comes before the first `_` of a task's id.
pub(crate) fn suite_of(task: &str) -> &str {
    task.split_once('_').map_or(task, |(suite, _)| suite)
}

impl Trial {
    /// The name of its suite.
    pub fn suite(&self) -> &str {
        suite_of(&self.task)
    }

    /// For example `light:strong`; `none`.
    pub(crate) fn perturbation_name(&self) -> String {
        self.perturbation.map_or_else(
            || NO_PERTURBATION.to_owned(),
            |(kind, strength)| format!("{}:{}", kind.name(), strength.name()),
        )
    }

    /// What is to be done.
    ///
    /// # Errors
    /// [`EvalError::NoTask`].
    pub fn task(&self) -> Result<&'static Task, EvalError> {
        Task::named(&self.task).ok_or_else(|| EvalError::NoTask(self.task.clone()))
    }

    /// Its beginning, with pictures of `image_size` × `image_size`.
    ///
    /// # Errors
    /// [`EvalError::NoTask`], [`EvalError::Suite`].
    pub fn env(&self, image_size: usize) -> Result<Env, EvalError> {
        let perturbation = self.perturbation.map(|(kind, strength)| Perturbation {
            kind,
            strength,
            seed: self.split.seed(self.index),
        });
        let options = EnvOptions {
            split: self.split,
            index: self.index,
            image_size,
            perturbation,
            embodiment: self.embodiment,
        };
        Env::new(self.task()?, &options).map_err(|error| EvalError::Suite { trial: self.to_string(), error })
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.task, self.split.name(), self.index)?;
        if self.perturbation.is_some() {
            write!(f, " {}", self.perturbation_name())?;
        }
        match self.embodiment {
            Embodiment::So101 => Ok(()),
            other => write!(f, " {}", other.name()),
        }
    }
}

/// Enums of the suites by their names in files.
pub(crate) mod named {
    use super::{Embodiment, PerturbationKind, Split, Strength};

    /// The one of that name.
    fn find<T: Copy, E: serde::de::Error>(
        all: &[T],
        name: fn(T) -> &'static str,
        wanted: &str,
    ) -> Result<T, E> {
        let found = all.iter().copied().find(|&one| name(one) == wanted);
        found.ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|&one| name(one)).collect();
            E::custom(format!("`{wanted}` is none of {}", known.join(", ")))
        })
    }

    pub(crate) mod split {
        use serde::{Deserialize, Deserializer, Serializer};

        use super::{Split, find};

        pub(crate) fn serialize<S: Serializer>(split: &Split, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(split.name())
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Split, D::Error> {
            find(&Split::ALL, Split::name, &String::deserialize(from)?)
        }
    }

    pub(crate) mod embodiment {
        use serde::{Deserialize, Deserializer, Serializer};

        use super::{Embodiment, find};

        pub(crate) fn serialize<S: Serializer>(one: &Embodiment, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(one.name())
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Embodiment, D::Error> {
            find(&Embodiment::ALL, Embodiment::name, &String::deserialize(from)?)
        }
    }

    pub(crate) mod perturbation {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use super::{PerturbationKind, Strength, find};

        type One = Option<(PerturbationKind, Strength)>;

        pub(crate) fn serialize<S: Serializer>(one: &One, to: S) -> Result<S::Ok, S::Error> {
            one.map(|(kind, strength)| [kind.name(), strength.name()]).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<One, D::Error> {
            let Some([kind, strength]) = Option::<[String; 2]>::deserialize(from)? else { return Ok(None) };
            let kind = find(&PerturbationKind::ALL, PerturbationKind::name, &kind)?;
            Ok(Some((kind, find(&Strength::ALL, Strength::name, &strength)?)))
        }
    }
}
