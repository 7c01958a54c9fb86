use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use skillweld_gpu::ops::LinearScratch;
use skillweld_gpu::{Array, GpuError, Memory, Target};
use skillweld_tensor::Dtype;

use crate::backend::Result;
use crate::pool::Pool;

/// A target, and memory of dropped matrices, kept for the next: asking a driver for memory takes as long as many a kernel,
/// and is not allowed while launches are recorded. All work is asked for in one order, so memory may be written again as
/// soon as nobody can ask for what it held.
pub(super) struct Shared<T: Target> {
    state: Mutex<State<T>>,
    /// Told when a thread has ceased to have the target for itself.
    free: Condvar,
    kept: Arc<Kept<T::Memory>>,
}

pub(super) struct State<T: Target> {
    pub(super) target: T,
    pub(super) scratch: LinearScratch<T::Memory>,
    /// Where memory comes from now.
    kept: Arc<Kept<T::Memory>>,
    /// The thread that has the target for itself.
    owner: Option<ThreadId>,
    /// Whether launches are recorded.
    recording: bool,
}

impl<T: Target> State<T> {
    /// Copies bytes of the host into an array, from its beginning on.
    pub(super) fn upload(&self, to: &mut Array<T::Memory>, bytes: &[u8]) -> Result<()> {
        self.not_while_recording("copying from the host")?;
        Ok(self.target.upload(to.memory_mut(), 0, bytes)?)
    }

    /// A driver would take it, and do something else than was meant.
    fn not_while_recording(&self, operation: &'static str) -> Result<()> {
        if self.recording {
            let problem = "it cannot be recorded".to_owned();
            return Err(GpuError::Operands { operation, problem }.into());
        }
        Ok(())
    }
}

/// Memory that is not in use.
pub(super) enum Kept<M> {
    /// For any matrices.
    Any(Pool<M>),
    /// For what is recorded, by exact length: work that is done again finds all that it needs, in whatever order.
    Own(Mutex<HashMap<usize, Vec<M>>>),
}

impl<M> Kept<M> {
    pub(super) fn own() -> Arc<Self> {
        Arc::new(Self::Own(Mutex::default()))
    }

    fn take(&self, bytes: usize) -> Option<M> {
        match self {
            Self::Any(pool) => pool.take(bytes),
            Self::Own(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&bytes)?.pop(),
        }
    }

    fn put(&self, bytes: usize, memory: M) {
        match self {
            Self::Any(pool) => pool.put(bytes, memory),
            Self::Own(kept) => {
                kept.lock().unwrap_or_else(PoisonError::into_inner).entry(bytes).or_default().push(memory);
            }
        }
    }
}

impl<T: Target> Shared<T> {
    pub(super) fn new(target: T) -> Result<Self> {
        let scratch = LinearScratch::new(&target)?;
        let kept = Arc::new(Kept::Any(Pool::default()));
        let state =
            Mutex::new(State { target, scratch, kept: Arc::clone(&kept), owner: None, recording: false });
        Ok(Self { state, free: Condvar::new(), kept })
    }

    /// Waits while another thread has the target for itself.
    pub(super) fn state(&self) -> MutexGuard<'_, State<T>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = |state: &mut State<T>| state.owner.is_some_and(|owner| owner != thread::current().id());
        self.free.wait_while(state, mine).unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` with the target for this thread alone, and memory from `kept`.
    pub(super) fn alone<R>(&self, kept: &Arc<Kept<T::Memory>>, work: impl FnOnce() -> R) -> R {
        let mut state = self.state();
        state.owner = Some(thread::current().id());
        state.kept = Arc::clone(kept);
        drop(state);
        // Also when `work` panics: others would wait for ever.
        let _ends = Alone(self);
        work()
    }

    /// Launches are recorded from now on; only within [`Shared::alone`].
    pub(super) fn begin_recording(&self) -> Result<()> {
        let mut state = self.state();
        state.target.begin_recording()?;
        state.recording = true;
        Ok(())
    }

    /// What was recorded.
    pub(super) fn end_recording(&self) -> Result<T::Recording> {
        let mut state = self.state();
        state.recording = false;
        Ok(state.target.end_recording()?)
    }

    /// An array whose elements are not said; NaN in debug builds.
    pub(super) fn array(self: &Arc<Self>, state: &State<T>, dtype: Dtype, numel: usize) -> Result<Buffer<T>> {
        let bytes = numel * dtype.bits() / 8;
        let mut memory = match state.kept.take(bytes) {
            Some(memory) => memory,
            None => {
                state.not_while_recording("allocating")?;
                state.target.allocate(bytes)?
            }
        };
        if cfg!(debug_assertions) {
            state.target.fill(&mut memory, 0xff)?;
        }
        let array = Some(Array::in_memory(memory, dtype, numel)?);
        Ok(Buffer { array, shared: Arc::clone(self), kept: Arc::clone(&state.kept) })
    }
}

struct Alone<'a, T: Target>(&'a Shared<T>);

impl<T: Target> Drop for Alone<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.owner = None;
        state.kept = Arc::clone(&self.0.kept);
        self.0.free.notify_all();
    }
}

/// An array whose memory is kept when it is dropped.
pub(super) struct Buffer<T: Target> {
    /// `None` only while it is dropped.
    array: Option<Array<T::Memory>>,
    shared: Arc<Shared<T>>,
    /// Where its memory came from, and goes.
    kept: Arc<Kept<T::Memory>>,
}

impl<T: Target> Buffer<T> {
    pub(super) fn array(&self) -> &Array<T::Memory> {
        self.array.as_ref().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }

    pub(super) fn array_mut(&mut self) -> &mut Array<T::Memory> {
        self.array.as_mut().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }

    pub(super) fn shared(&self) -> &Arc<Shared<T>> {
        &self.shared
    }
}

impl<T: Target> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(array) = self.array.take() {
            let memory = array.into_memory();
            self.kept.put(memory.byte_len(), memory);
        }
    }
}
