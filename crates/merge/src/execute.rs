//! Runs a plan: tensors stream through the plugins into the output files.
//!
//! Peak memory is threads × one slab of everything that a tensor needs, whatever the model's size; only methods that
//! want whole tensors take more. Which thread does what never changes a byte: blocks are cut at fixed places, sums are
//! added in a fixed order, and every byte has one place in one file.

mod buffers;
mod device;
mod hashing;
mod room;
mod slab;
mod totals;
mod units;
mod worked;

#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use skillweld_gpu::Fork;
use skillweld_linalg::Threads;
use skillweld_plugin_host::{Bound, HostHooks, Scope};

pub use device::DeviceReport;
pub(crate) use hashing::{BlockHashes, HashBook};
pub(crate) use units::Cut;
use worked::Worked;

use crate::MergeError;
use crate::measure::Measures;
use crate::output::Outputs;
use crate::plan::{Action, Plan};
use buffers::{Buffers, Pool};
use room::Room;
use totals::Pass;

/// How a merge is watched and stopped.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Threads to work with.
    pub threads: Threads,
    /// What plugins may say and ask. `cancelled` also stops the merge itself.
    pub hooks: HostHooks<'a>,
    /// Told the number of elements done since the last call; the plan knows how many there are.
    pub advance: &'a (dyn Fn(u64) + Sync),
}

impl Control<'_> {
    /// One thread, and nobody watches.
    pub const SILENT: Self = Self { threads: Threads::ONE, hooks: HostHooks::SILENT, advance: &|_| {} };

    /// Fails once the user has asked to stop.
    ///
    /// # Errors
    /// [`MergeError::Cancelled`].
    pub fn check(&self) -> Result<(), MergeError> {
        if (self.hooks.cancelled)() { Err(MergeError::Cancelled) } else { Ok(()) }
    }
}

/// Everything that workers share.
struct Executor<'a> {
    plan: &'a Plan<'a>,
    outputs: &'a Outputs,
    control: &'a Control<'a>,
    hashes: &'a HashBook,
    measures: &'a Measures,
    pool: Pool,
    /// For whole matrices.
    room: Room,
    /// Totals of a merge method with statistics over all tensors.
    merge_totals: Vec<f64>,
    /// Totals of a mask method with statistics over all tensors.
    mask_totals: Vec<f64>,
}

/// What came of a plan besides its files.
#[derive(Debug, Default)]
pub(crate) struct Executed {
    /// The factor of each task, where the mask method has them.
    pub(crate) rescalers: Option<Vec<f32>>,
    /// Where tensors were merged, if there was a GPU to do it.
    pub(crate) device: Option<DeviceReport>,
}

/// Works off the plan into `outputs`; on the GPU of `fork` too, if there is one.
///
/// # Errors
/// The first error, by tensor; outputs are then incomplete and must be dropped.
pub(crate) fn execute<F: Fork>(
    plan: &Plan<'_>,
    outputs: &Outputs,
    control: &Control<'_>,
    hashes: &HashBook,
    measures: &Measures,
    fork: Option<&F>,
) -> Result<Executed, MergeError> {
    let mut executor = Executor {
        plan,
        outputs,
        control,
        hashes,
        measures,
        pool: Pool::default(),
        room: Room::new(control.threads.count() * outputs.cut().whole_room),
        merge_totals: Vec::new(),
        mask_totals: Vec::new(),
    };
    executor.merge_totals = executor.global_merge_totals()?;
    executor.mask_totals = executor.global_mask_totals()?;
    let rescalers = executor.rescalers()?;
    let done = AtomicBool::new(false);
    let device = std::thread::scope(|scope| {
        // Writing to the disk goes on while the next tensors are computed.
        let syncer = scope.spawn(|| outputs.sync_until(&done));
        let ends = EndOnDrop { done: &done, syncer: syncer.thread() };
        let result = executor.work_off_all(fork);
        drop(ends);
        let synced = syncer.join().unwrap_or(Ok(()));
        result.and_then(|device| synced.map(|()| device))
    })?;
    Ok(Executed { rescalers, device })
}

/// Ends the syncer, also when the work panics: the scope waits for it before it lets the panic through.
struct EndOnDrop<'a> {
    done: &'a AtomicBool,
    syncer: &'a Thread,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.syncer.unpark();
    }
}

impl<'a> Executor<'a> {
    /// Makes every tensor of the plan: on the GPU what that takes, then the rest.
    fn work_off_all<F: Fork>(&self, fork: Option<&F>) -> Result<Option<DeviceReport>, MergeError> {
        let Some(fork) = fork else {
            self.each_tensor(|index, threads| self.work_off(index, threads))?;
            return Ok(None);
        };
        let (done, report) = self.merge_on(fork)?;
        self.each_tensor(|index, threads| if done[index] { Ok(()) } else { self.work_off(index, threads) })?;
        Ok(Some(report))
    }

    /// Calls `work` for every tensor: large ones one after the other with all threads, then the rest side by side. A method
    /// that takes whole matrices computes on one thread, however large they are.
    fn each_tensor(
        &self,
        work: impl Fn(usize, Threads) -> Result<(), MergeError> + Sync,
    ) -> Result<(), MergeError> {
        let threads = self.control.threads;
        let numel = |index: &usize| self.plan.tensors[*index].numel();
        let (large, mut small): (Vec<usize>, Vec<usize>) = (0..self.plan.tensors.len()).partition(|index| {
            let whole = self.worked(*index).is_some_and(|work| work.whole());
            threads.count() > 1 && !whole && numel(index) > self.cut().shared_from
        });
        for index in large {
            work(index, threads)?;
        }
        // Largest first: whoever finishes early takes the small change.
        small.sort_by_key(|index| std::cmp::Reverse(numel(index)));
        threads.for_each(small.len(), || (), |(), i| work(small[i], Threads::ONE))
    }

    fn cut(&self) -> Cut {
        self.outputs.cut()
    }

    fn worked(&self, index: usize) -> Option<Worked<'_>> {
        let tensor = &self.plan.tensors[index];
        let Action::Merge(merge) = &tensor.action else { return None };
        let allow_non_finite = self.plan.recipe.allow_non_finite;
        Some(Worked {
            tensor,
            merge,
            allow_non_finite,
            hooks: &self.control.hooks,
            hashes: Some(self.hashes),
            multiplied_out: false,
        })
    }

    /// All tensors that plugins merge.
    fn all_worked(&self) -> impl Iterator<Item = Worked<'_>> {
        (0..self.plan.tensors.len()).filter_map(|index| self.worked(index))
    }

    /// The totals of a merge method with global statistics; empty for others.
    fn global_merge_totals(&self) -> Result<Vec<f64>, MergeError> {
        let all: Vec<Worked<'_>> = self.all_worked().collect();
        let Some(first) = all.first().filter(|work| work.merge.method.plan().scope == Scope::Global) else {
            return Ok(Vec::new());
        };
        let units: Vec<_> = all
            .iter()
            .enumerate()
            .flat_map(|(job, work)| work.cut(self.cut()).slabs(job, work.tensor.numel(), work.whole()))
            .collect();
        let plan = first.merge.method.plan();
        totals::totals(plan, self.control.threads, &self.pool, units.len(), |buffers, unit, pass, sums| {
            let unit = &units[unit];
            self.observe(&all[unit.job], &unit.range, buffers, pass, sums)
        })
    }

    /// Totals of the merge method for one tensor: those of all tensors, or its own.
    fn totals_of(
        &self,
        work: &Worked<'_>,
        threads: Threads,
    ) -> Result<std::borrow::Cow<'_, [f64]>, MergeError> {
        let plan = work.merge.method.plan();
        if plan.scope == Scope::Global || plan.passes() == 0 {
            return Ok(self.merge_totals.as_slice().into());
        }
        let units: Vec<_> = work.cut(self.cut()).slabs(0, work.tensor.numel(), work.whole()).collect();
        let totals = totals::totals(plan, threads, &self.pool, units.len(), |buffers, unit, pass, sums| {
            self.observe(work, &units[unit].range, buffers, pass, sums)
        })?;
        Ok(totals.into())
    }

    fn observe(
        &self,
        work: &Worked<'_>,
        slab: &std::ops::Range<usize>,
        buffers: &mut Buffers,
        pass: &Pass<'_>,
        sums: &mut [f64],
    ) -> Result<(), MergeError> {
        self.control.check()?;
        if pass.is_settled() {
            (self.control.advance)(slab.len() as u64);
            return Ok(());
        }
        let _room = work.whole().then(|| self.room.take(slab.len()));
        let Buffers { inputs, outputs } = &mut *buffers;
        let sampled = pass.sample > 1 && !work.whole();
        let work = if sampled { Worked { hashes: None, ..*work } } else { *work };
        work.load_slab(slab, inputs)?;
        for mut block in work.cut(self.cut()).blocks(slab, work.whole()) {
            if sampled {
                block = units::sampled(&block, pass.sample);
            }
            work.load_block(slab, &block, inputs)?;
            if work.observe(&block, inputs, outputs, (pass.index, pass.totals), sums)?.is_break() {
                pass.settle();
                break;
            }
        }
        if work.whole() {
            buffers.shrink(self.cut().whole_room);
        }
        (self.control.advance)(slab.len() as u64);
        Ok(())
    }

    /// The totals of a mask method with global statistics; empty for others. Each tensor is merged for every pass: what
    /// the method wants to see is the merged task vector.
    fn global_mask_totals(&self) -> Result<Vec<f64>, MergeError> {
        let all: Vec<Worked<'_>> = self.all_worked().collect();
        let Some(plan) = all.iter().find_map(|work| work.merge.mask.as_ref()).map(Bound::plan) else {
            return Ok(Vec::new());
        };
        if plan.scope != Scope::Global {
            return Ok(Vec::new());
        }
        let mut totals = Vec::with_capacity(plan.totals_len());
        for (pass, &len) in plan.sums_len.iter().enumerate() {
            let parts: Vec<Mutex<Vec<f64>>> = self.plan.tensors.iter().map(|_| Mutex::default()).collect();
            self.each_tensor(|index, threads| {
                let Some(work) = self.worked(index) else { return Ok(()) };
                let sums = self.mask_sums(&work, threads, (pass, &totals), len)?;
                *parts[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sums;
                Ok(())
            })?;
            let parts = parts.into_iter().map(|part| part.into_inner().unwrap_or_default());
            totals.append(&mut totals::sum(len, parts));
        }
        Ok(totals)
    }

    /// Sums of one mask pass over one tensor.
    fn mask_sums(
        &self,
        work: &Worked<'_>,
        threads: Threads,
        at: (usize, &[f64]),
        len: usize,
    ) -> Result<Vec<f64>, MergeError> {
        let Some(mask) = &work.merge.mask else { return Ok(vec![0.0; len]) };
        let merge_totals = self.totals_of(work, threads)?;
        let units: Vec<_> = work.cut(self.cut()).slabs(0, work.tensor.numel(), work.whole()).collect();
        // One pass at a time, over everything: `totals` sees a plan of just this one.
        let plan = skillweld_plugin_host::Plan { sums_len: vec![len], ..Default::default() };
        totals::totals(&plan, threads, &self.pool, units.len(), |buffers, unit, pass, sums| {
            self.control.check()?;
            let slab = &units[unit].range;
            let merged_whole = work.merges_whole();
            let _room = merged_whole.then(|| self.room.take(slab.len()));
            if merged_whole {
                self.run_whole(work, buffers, &merge_totals)?;
            }
            let rest = Worked { multiplied_out: merged_whole, ..*work };
            let Buffers { inputs, outputs } = buffers;
            // What the mask method sees of a whole matrix goes slab by slab, as with all others.
            let cut = work.cut(self.cut());
            let parts: Vec<_> = match merged_whole {
                true => cut.slabs(0, slab.len(), work.masks_whole()).map(|unit| unit.range).collect(),
                false => vec![slab.clone()],
            };
            let whole = if merged_whole { work.masks_whole() } else { work.whole() };
            'parts: for part in &parts {
                rest.load_slab(part, inputs)?;
                for block in cut.blocks(part, whole) {
                    rest.load_block(part, &block, inputs)?;
                    if !merged_whole {
                        rest.run(&block, inputs, outputs, &merge_totals)?;
                    }
                    let first = if merged_whole { block.start } else { 0 };
                    if rest.observe_mask(mask, (&block, first), inputs, outputs, at, sums)?.is_break() {
                        pass.settle();
                        break 'parts;
                    }
                }
            }
            if merged_whole {
                buffers.shrink(self.cut().whole_room);
            }
            (self.control.advance)(slab.len() as u64);
            Ok(())
        })
    }

    /// Totals of the mask method for one tensor.
    fn mask_totals_of(
        &self,
        work: &Worked<'_>,
        threads: Threads,
    ) -> Result<std::borrow::Cow<'_, [f64]>, MergeError> {
        let plan = match &work.merge.mask {
            Some(mask) if mask.plan().scope == Scope::Tensor => mask.plan(),
            _ => return Ok(self.mask_totals.as_slice().into()),
        };
        let mut totals = Vec::with_capacity(plan.totals_len());
        for (pass, &len) in plan.sums_len.iter().enumerate() {
            let mut sums = self.mask_sums(work, threads, (pass, &totals), len)?;
            totals.append(&mut sums);
        }
        Ok(totals.into())
    }

    /// One factor a task, for mask methods that rescale.
    fn rescalers(&self) -> Result<Option<Vec<f32>>, MergeError> {
        let masked = self.all_worked().find_map(|work| Some((work.merge, work.merge.mask.as_ref()?)));
        let Some((merge, mask)) = masked else { return Ok(None) };
        if !mask.method().has(skillweld_plugin_host::flags::EMITS_MASKS) {
            return Ok(None);
        }
        // A task with no part in any of these tensors has empty masks, whose factor is of no account.
        let mut rescalers = vec![1.0; self.plan.tasks().len()];
        let factors = mask.rescale(&self.mask_totals, &self.control.hooks)?;
        for (input, factor) in merge.inputs.iter().zip(factors) {
            input.task.into_iter().for_each(|task| rescalers[task] = factor);
        }
        Ok(Some(rescalers))
    }
}
