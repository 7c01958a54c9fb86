//! Parts of a forward that are asked for with one call, once they have been recorded.

use std::sync::{Arc, Mutex, PoisonError};

use skillweld_gpu::Target;
use skillweld_tensor::Dtype;

use super::matrix::GpuMatrix;
use super::shared::{Kept, Shared};
use crate::PolicyError;
use crate::backend::{Matrix, Repeated, Result};

/// Recordings that are kept, the one used last at the end. Each keeps the memory of its part of a forward.
const MOST: usize = 24;

/// What was done before, for one target.
pub(super) struct Recordings<T: Target>(Mutex<Vec<Entry<T>>>);

struct Entry<T: Target> {
    what: Repeated,
    /// Address, rows, columns and dtype of every input: the same ones are read by what was recorded.
    inputs: Vec<(u64, usize, usize, Dtype)>,
    /// Memory that only this part's matrices use, so that nothing else lies there when it is done again.
    kept: Arc<Kept<T::Memory>>,
    outputs: Vec<GpuMatrix<T>>,
    recording: Recording<T::Recording>,
}

enum Recording<R> {
    /// It was done once.
    NotYet,
    /// It is replayed.
    Done(R),
    /// It asks for something that cannot be recorded.
    Never,
}

impl<T: Target> Default for Recordings<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Target + Send> Recordings<T> {
    /// The first time, does the work in memory of its own; the second, records it; from then on, replays it. Only inputs at
    /// the same places count as the same, and only when nobody holds what came of the time before, for it is overwritten.
    pub(super) fn repeated(
        &self,
        shared: &Shared<T>,
        what: Repeated,
        inputs: &[&GpuMatrix<T>],
        work: &dyn Fn() -> Result<Vec<GpuMatrix<T>>>,
    ) -> Result<Vec<GpuMatrix<T>>> {
        let inputs = inputs.iter().map(|input| input.identity()).collect::<Result<Vec<_>>>()?;
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |entry: &Entry<T>| entry.what == what && entry.inputs == inputs && entry.is_free();
        let Some(index) = entries.iter().position(same) else {
            let kept = Kept::own();
            let outputs = shared.alone(&kept, work)?;
            let given = shares(&outputs);
            if entries.len() >= MOST {
                entries.remove(0);
            }
            entries.push(Entry { what, inputs, kept, outputs, recording: Recording::NotYet });
            return Ok(given);
        };
        let mut entry = entries.remove(index);
        if matches!(entry.recording, Recording::NotYet) {
            entry.record(shared, work);
        }
        match &entry.recording {
            Recording::Done(recording) => shared.state().target.replay(recording)?,
            _ => {
                entry.outputs.clear();
                entry.outputs = shared.alone(&entry.kept, work)?;
            }
        }
        let given = shares(&entry.outputs);
        entries.push(entry);
        Ok(given)
    }
}

/// The same matrices once more.
fn shares<T: Target + Send>(matrices: &[GpuMatrix<T>]) -> Vec<GpuMatrix<T>> {
    matrices.iter().map(|matrix| matrix.slice(0..matrix.rows())).collect()
}

impl<T: Target + Send> Entry<T> {
    /// Whether nobody else holds its outputs.
    fn is_free(&self) -> bool {
        self.outputs.iter().all(|output| {
            output.sharing() == self.outputs.iter().filter(|other| output.shares_with(other)).count()
        })
    }

    /// Records the work. What cannot be recorded is done again instead.
    fn record(&mut self, shared: &Shared<T>, work: &dyn Fn() -> Result<Vec<GpuMatrix<T>>>) {
        self.outputs.clear(); // their memory is needed again
        let recorded = shared.alone(&self.kept, || {
            shared.begin_recording()?;
            let outputs = work();
            // Ended whatever came of the work.
            let recording = shared.end_recording();
            Ok::<_, PolicyError>((outputs?, recording?))
        });
        self.recording = match recorded {
            Ok((outputs, recording)) => {
                self.outputs = outputs;
                Recording::Done(recording)
            }
            Err(_) => Recording::Never,
        };
    }
}
