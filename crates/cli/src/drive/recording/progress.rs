//! What a recording, its keys and its view know of one another.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skillweld_recorder::Saved;

/// What a person asks of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// This part is done: save the episode, or begin the next.
    Advance,
    /// Forget the episode and begin it again.
    Again,
}

/// What a recording, its keys and its view know of one another. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    asked: Option<Next>,
    saved: Vec<Saved>,
    problems: Vec<String>,
    remarks: Vec<String>,
    line: String,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing is left half done in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ask(&self, next: Next) {
        self.lock().asked = Some(next);
    }

    pub(crate) fn take(&self) -> Option<Next> {
        self.lock().asked.take()
    }

    /// Episodes that are on the disk.
    pub(crate) fn saved(&self) -> Vec<Saved> {
        self.lock().saved.clone()
    }

    pub(super) fn keep(&self, saved: Saved) {
        self.lock().saved.push(saved);
    }

    /// What went wrong with recording.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// What people should know of what was recorded.
    pub(crate) fn remarks(&self) -> Vec<String> {
        self.lock().remarks.clone()
    }

    pub(crate) fn remark(&self, remark: String) {
        self.lock().remarks.push(remark);
    }

    /// What is going on, in a line.
    pub(crate) fn line(&self) -> String {
        self.lock().line.clone()
    }

    pub(super) fn say(&self, line: String) {
        self.lock().line = line;
    }

    pub(crate) fn problem(&self, problem: String) {
        let mut shared = self.lock();
        if !shared.problems.contains(&problem) {
            shared.problems.push(problem);
        }
    }
}
