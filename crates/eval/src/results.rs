use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skillweld_rate::{Paired, Rate};

use crate::{EvalError, Trial};

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Which.
    pub trial: Trial,
    /// Whether the task was done within its steps.
    pub success: bool,
    /// Control steps that it took.
    pub steps: u32,
    /// How often the policy was asked.
    pub inferences: u32,
    /// The task of the merged policy that its router chose; none where no router was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<String>,
}

/// Results in `FOLDER/trials.jsonl`: its first line says of what, every other is a [`TrialResult`]. A line that an interruption has
/// cut off is dropped, and its trial run again.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    file: File,
    of: String,
    all: Vec<TrialResult>,
    done: HashSet<Trial>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Heading {
    of: String,
}

const FILE: &str = "trials.jsonl";

impl Results {
    /// Begins a folder, or goes on with one. `of` says what gave the results: the policy and all that decides on them.
    ///
    /// # Errors
    /// [`EvalError::Another`] for a folder of other results, [`EvalError::Busy`], [`EvalError::Damaged`], or what the disk says.
    pub fn open(folder: &Path, of: &str) -> Result<Self, EvalError> {
        fs::create_dir_all(folder).map_err(EvalError::io("make", folder))?;
        let path = folder.join(FILE);
        if !path.exists() {
            let heading = line(&Heading { of: of.to_owned() });
            let pending = folder.join(format!(".{FILE}.{}", std::process::id()));
            // Never without its heading, and never in place of one that another process has made meanwhile.
            fs::write(&pending, heading).map_err(EvalError::io("write", &pending))?;
            let made = fs::hard_link(&pending, &path);
            fs::remove_file(&pending).map_err(EvalError::io("remove", &pending))?;
            match made {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made.map_err(EvalError::io("make", &path))?,
            }
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(EvalError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EvalError::Busy(path)),
            Err(TryLockError::Error(error)) => return Err(EvalError::io("lock", &path)(error)),
        }
        let (there, all, whole) = read(&path)?;
        if there != of {
            return Err(EvalError::Another { path, there, wanted: of.to_owned() });
        }
        file.set_len(whole).map_err(EvalError::io("shorten", &path))?;
        let done = all.iter().map(|result| result.trial.clone()).collect();
        Ok(Self { path, file, of: there, all, done })
    }

    /// Those of a folder, to look at.
    ///
    /// # Errors
    /// [`EvalError::Damaged`], or what the disk says.
    pub fn read(folder: &Path) -> Result<(String, Vec<TrialResult>), EvalError> {
        let (of, all, _) = read(&folder.join(FILE))?;
        Ok((of, all))
    }

    /// What gave them.
    pub fn of(&self) -> &str {
        &self.of
    }

    /// Whether the trial has a result.
    pub fn has(&self, trial: &Trial) -> bool {
        self.done.contains(trial)
    }

    /// All so far, in the order in which they were run.
    pub fn all(&self) -> &[TrialResult] {
        &self.all
    }

    /// Adds one. It is in the file when this returns.
    ///
    /// # Errors
    /// What the disk says.
    pub fn add(&mut self, result: TrialResult) -> Result<(), EvalError> {
        self.file.write_all(line(&result).as_bytes()).map_err(EvalError::io("write", &self.path))?;
        self.done.insert(result.trial.clone());
        self.all.push(result);
        Ok(())
    }
}

/// Successes among results.
pub fn rate<'r>(results: impl IntoIterator<Item = &'r TrialResult>) -> Rate {
    results.into_iter().map(|result| result.success).collect()
}

/// Of the trials that both have.
pub fn paired(first: &[TrialResult], second: &[TrialResult]) -> Paired {
    let theirs: HashMap<&Trial, bool> = second.iter().map(|result| (&result.trial, result.success)).collect();
    let both = first.iter().filter_map(|result| Some((result.success, *theirs.get(&result.trial)?)));
    both.collect()
}

fn line(value: &impl Serialize) -> String {
    // Strings and numbers, which always are JSON.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// What they are of, all results, and how many bytes of the file are whole lines.
fn read(path: &Path) -> Result<(String, Vec<TrialResult>, u64), EvalError> {
    let bytes = fs::read(path).map_err(EvalError::io("read", path))?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let damaged = |line: usize, problem: String| EvalError::Damaged { path: path.to_owned(), line, problem };
    let mut lines = bytes[..whole].split_inclusive(|&byte| byte == b'\n').enumerate();
    let (_, heading) = lines.next().ok_or_else(|| damaged(1, "it does not say of what it is".into()))?;
    let heading: Heading = serde_json::from_slice(heading).map_err(|error| damaged(1, error.to_string()))?;
    let results = lines.map(|(number, line)| {
        serde_json::from_slice(line).map_err(|error| damaged(number + 1, error.to_string()))
    });
    Ok((heading.of, results.collect::<Result<_, _>>()?, whole as u64))
}
