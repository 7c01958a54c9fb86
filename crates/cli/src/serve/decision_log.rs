//! The file that `--decision-log` names.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::{Map, json};
use skillweld_serve::Decision;

use crate::console::Console;

/// One JSON document a line, appended.
pub(super) struct DecisionLog {
    path: PathBuf,
    console: Console,
    state: Mutex<State>,
}

struct State {
    file: File,
    /// Whether the last line could not be written whole.
    failing: bool,
}

impl DecisionLog {
    pub(super) fn open(path: &Path, console: Console) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), console, state: Mutex::new(State { file, failing: false }) })
    }

    /// Appends a line. A full disk must not stop a robot: that is said once, and again only after lines could be written.
    pub(super) fn write(&self, decision: &Decision) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // What a failed write may have left is no document; the next line must be one.
        let line = format!("{}{}\n", if state.failing { "\n" } else { "" }, document(decision));
        let written = state.file.write_all(line.as_bytes());
        if let (Err(error), false) = (&written, state.failing) {
            let path = self.path.display();
            self.console
                .warn(&format!("cannot write {path}: {error}; decisions are lost until it can be written"));
        }
        state.failing = written.is_err();
    }
}

fn document(decision: &Decision) -> serde_json::Value {
    let time_s = SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |time| time.as_secs_f64());
    let scores = decision.outcome.scores();
    let by_task = |all: &[(String, f64)]| -> Map<_, _> {
        all.iter().map(|(task, score)| (task.clone(), json!(score))).collect()
    };
    json!({
        "unix_time_s": time_s,
        "client": decision.client,
        "episode": decision.episode,
        "chunk": decision.chunk,
        "prompt": decision.prompt,
        "outcome": decision.outcome.as_str(),
        "task": decision.outcome.task(),
        "scores": scores.map(|scores| by_task(&scores.candidates)),
        "margin": scores.map(|scores| scores.margin),
    })
}
