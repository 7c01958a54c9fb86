//! What a sweep has found out so far, in a file that survives whatever happens to the process.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use skillweld_merge::model_files;
use skillweld_merge::recipe::{Draft, Recipe};
use skillweld_store::replace_file;

use crate::{Axis, EvalCommand, Score, SweepError};

/// The ledger's name.
const FILE: &str = "sweep.json";
/// Held for as long as a process works in the folder.
const LOCK: &str = ".lock";
/// Where checkpoints lie while they are evaluated.
pub(crate) const POINTS: &str = ".points";
const FORMAT_VERSION: u32 = 2;

/// What a sweep is about. Evaluations of another one say nothing about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// BLAKE3 of the recipe's text.
    pub recipe_blake3: String,
    /// What is swept.
    pub axes: Vec<Axis>,
    /// The command, as written.
    pub eval: String,
    /// The models' files, by model as written. Of models that are not on this machine (trials may run elsewhere) nothing
    /// is known.
    pub models: BTreeMap<String, Written>,
}

/// When a file was last written: enough to see that a model has changed, without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The file's length.
    pub len_bytes: u64,
    /// Milliseconds since 1970.
    pub modified_ms: u64,
}

impl Definition {
    /// Of a sweep of `draft`, whose points are `recipes`.
    pub fn new(draft: &Draft, axes: Vec<Axis>, command: &EvalCommand, recipes: &[Recipe]) -> Self {
        let files = recipes.iter().filter_map(|recipe| model_files(recipe).ok()).flatten();
        let models = files.filter_map(|(name, path)| Some((name, Written::of(&path)?))).collect();
        let recipe_blake3 = blake3::hash(draft.text().as_bytes()).to_hex().to_string();
        Self { recipe_blake3, axes, eval: command.text().to_owned(), models }
    }
}

impl Written {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(Self {
            len_bytes: metadata.len(),
            modified_ms: u64::try_from(modified.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The point's label.
    pub point: String,
    /// The number of the repeat.
    pub seed: u64,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A score.
    Scored(Score),
    /// Why there is none.
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    format_version: u32,
    #[serde(flatten)]
    definition: Definition,
    trials: Vec<Trial>,
}

/// The folder of a sweep, locked.
#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    contents: Contents,
    _lock: File,
}

impl Ledger {
    /// Opens the folder, or makes it. Checkpoints that a killed process left in it are removed.
    pub(crate) fn open(dir: &Path, definition: Definition, restart: bool) -> Result<Self, SweepError> {
        fs::create_dir_all(dir).map_err(SweepError::io("create", dir))?;
        let path = dir.join(FILE);
        let folder = |problem: String| SweepError::Folder { dir: dir.to_owned(), problem };
        if !path.exists() {
            let entries = fs::read_dir(dir).map_err(SweepError::io("read", dir))?;
            // Killed while it was first written, a sweep leaves the ledger under its other name.
            let ours = |name: &std::ffi::OsString| name == LOCK || *name == *format!(".{FILE}.partial");
            let foreign = entries.flatten().map(|entry| entry.file_name()).find(|name| !ours(name));
            if let Some(name) = foreign {
                let name = name.to_string_lossy();
                return Err(folder(format!(
                    "is no folder of a sweep (`{name}` lies in it, and no {FILE}); name a new one"
                )));
            }
        }
        let lock_path = dir.join(LOCK);
        let lock = File::create(&lock_path).map_err(SweepError::io("create", &lock_path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(folder("is in use by another sweep; wait for it, or name another folder".to_owned()));
        }
        let read = || -> Result<Option<Contents>, SweepError> {
            if restart || !path.exists() {
                return Ok(None);
            }
            let text = fs::read(&path).map_err(SweepError::io("read", &path))?;
            serde_json::from_slice(&text).map(Some).map_err(|error| {
                folder(format!("has a {FILE} that cannot be read ({error}); begin anew with --restart"))
            })
        };
        let contents = match read()? {
            Some(found) => {
                if let Some(what) = difference(&found, &definition) {
                    return Err(SweepError::Changed {
                        dir: dir.to_owned(),
                        what,
                        trials: found.trials.len(),
                    });
                }
                found
            }
            None => Contents { format_version: FORMAT_VERSION, definition, trials: Vec::new() },
        };
        let left = dir.join(POINTS);
        if left.exists() {
            fs::remove_dir_all(&left).map_err(SweepError::io("remove", &left))?;
        }
        let ledger = Self { dir: dir.to_owned(), contents, _lock: lock };
        ledger.save()?;
        Ok(ledger)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.contents.definition
    }

    pub(crate) fn outcome(&self, point: &str, seed: u64) -> Option<&Outcome> {
        let found = self.contents.trials.iter().find(|trial| trial.seed == seed && trial.point == point);
        found.map(|trial| &trial.outcome)
    }

    /// Writes an evaluation down; an earlier one of the same point and seed is forgotten.
    pub(crate) fn record(&mut self, trial: Trial) -> Result<(), SweepError> {
        let trials = &mut self.contents.trials;
        trials.retain(|other| other.seed != trial.seed || other.point != trial.point);
        trials.push(trial);
        self.save()
    }

    fn save(&self) -> Result<(), SweepError> {
        let text = serde_json::to_string_pretty(&self.contents).unwrap_or_default();
        Ok(replace_file(&self.dir.join(FILE), (text + "\n").as_bytes())?)
    }
}

/// What the sweep in the folder is about that this one is not.
fn difference(found: &Contents, definition: &Definition) -> Option<String> {
    let Definition { recipe_blake3, axes, eval, models } = &found.definition;
    if found.format_version != FORMAT_VERSION {
        return Some(format!("format version {}", found.format_version));
    }
    if *recipe_blake3 != definition.recipe_blake3 {
        return Some("another recipe (its text has changed)".to_owned());
    }
    if *axes != definition.axes {
        let sets = axes.iter().map(|axis| format!("--set {}={}", axis.field, axis.values.join(",")));
        return Some(format!("other values ({})", sets.collect::<Vec<_>>().join(" ")));
    }
    if *eval != definition.eval {
        return Some(format!("another evaluation (--eval '{eval}')"));
    }
    let now = &definition.models;
    let changed = models.keys().chain(now.keys()).find(|name| models.get(*name) != now.get(*name));
    changed.map(|name| format!("models as they were ({name} has been written, added or removed since)"))
}
