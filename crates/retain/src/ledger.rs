use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skillweld_store::{StoreError, write_json};

use crate::{Contents, Interpolation, RetainError, StartedFrom};

/// The chain of skills that made a policy: `retain.json` in a state's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// [`Ledger::FORMAT_VERSION`].
    pub format_version: u64,
    /// Θ̃_0: the pretrained policy.
    pub base: Policy,
    /// Skills in the order in which they were added.
    pub skills: Vec<Skill>,
}

/// A policy that a chain reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its folder, absolute.
    pub path: PathBuf,
    /// What it consists of.
    pub blake3: Contents,
}

/// One step: Θ̃_n = (1 − α) Θ̃_{n−1} + α Θ_ft,n.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skill {
    /// Its name, unique in the chain.
    pub name: String,
    /// Θ_ft,n: a policy finetuned from what the step before gave.
    pub finetuned: Policy,
    /// α, method, density, seed.
    pub interpolation: Interpolation,
    /// What Θ̃_n consists of.
    pub result_blake3: Contents,
    /// Whether Θ_ft,n was finetuned from Θ̃_{n−1}, as far as could be seen when it was added.
    pub started_from: StartedFrom,
}

impl Ledger {
    /// The version that this code reads and writes.
    pub const FORMAT_VERSION: u64 = 1;

    /// Its file in a state's folder.
    pub const FILE: &'static str = "retain.json";

    /// Of a chain without skills.
    pub(crate) fn new(base: Policy) -> Self {
        Self { format_version: Self::FORMAT_VERSION, base, skills: Vec::new() }
    }

    /// Reads the ledger of the state in `dir`.
    ///
    /// # Errors
    /// [`RetainError::NotAState`], [`RetainError::Version`], [`RetainError::Unfit`] for a damaged one.
    pub fn read(dir: &Path) -> Result<Self, RetainError> {
        let path = dir.join(Self::FILE);
        let not_a_state = |problem: String| RetainError::NotAState { path: dir.to_owned(), problem };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(_) if !dir.exists() => {
                return Err(not_a_state(
                    "there is nothing; begin one with `skillweld retain init STATE --base B`".to_owned(),
                ));
            }
            Err(_) if !path.exists() => {
                return Err(not_a_state(format!(
                    "it holds no {}; `skillweld retain init` makes one in a new folder",
                    Self::FILE
                )));
            }
            Err(error) => return Err(StoreError::io("read", &path)(error).into()),
        };
        let damaged = |problem: String| RetainError::Unfit {
            path: path.clone(),
            problem: format!("is damaged: {problem}"),
        };
        let document: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let version = &document["format_version"];
        if version.as_u64() != Some(Self::FORMAT_VERSION) {
            let newer = version.as_u64().is_some_and(|version| version > Self::FORMAT_VERSION);
            let remedy = if newer { "install a newer Skillweld" } else { "is it a ledger at all?" };
            return Err(RetainError::Version {
                path,
                found: version.to_string(),
                expected: Self::FORMAT_VERSION,
                remedy,
            });
        }
        serde_json::from_value(document).map_err(|error| damaged(error.to_string()))
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), RetainError> {
        let path = dir.join(Self::FILE);
        let value = serde_json::to_value(self)
            .map_err(|error| RetainError::Unfit { path: path.clone(), problem: error.to_string() })?;
        Ok(write_json(&path, &value)?)
    }

    /// What the policy of the first `count` skills consists of.
    pub(crate) fn contents_after(&self, count: usize) -> &Contents {
        match count.checked_sub(1) {
            Some(last) => &self.skills[last].result_blake3,
            None => &self.base.blake3,
        }
    }
}
