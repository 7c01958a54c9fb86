//! Tensors whose methods bring device code along, on a GPU: the host reads, hashes and writes, the GPU computes.
//!
//! Every worker has a target of its own and two lanes on it. While the GPU works on the slab in one lane (bytes up, decode,
//! method, mask, round, bytes down), the worker fills the other with the next slab, or writes what came back. A slab in
//! which the GPU saw NaN or infinity is worked off again by the CPU: for the place, or for the bits of NaN, in which
//! processors differ.

mod lane;
mod operand;
mod places;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use skillweld_gpu::ops::is_block_dtype;
use skillweld_gpu::{Fork, Target};
use skillweld_plugin_host::{Bound, CudaCode};

use super::Executor;
use super::units::{Cut, Unit};
use super::worked::Worked;
use crate::MergeError;
use crate::plan::Action;
use lane::Lane;
use places::LaneSize;

/// What all lanes together may take of a GPU's memory, unless it is one worker's.
const MOST_BYTES: usize = 4 << 30;

/// Where tensors were merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeviceReport {
    /// Tensors that were merged on the GPU.
    pub on_device: usize,
    /// Tensors that were merged on the CPU: small ones, and those whose method or dtype the GPU does not take.
    pub on_cpu: usize,
    /// Slabs that the CPU worked off again, because the GPU saw something in them that is not finite.
    pub again: usize,
}

/// One tensor for the GPU.
struct Job<'a> {
    index: usize,
    work: Worked<'a>,
    code: &'a CudaCode,
    mask: Option<(&'a Bound, &'a CudaCode)>,
    totals: Cow<'a, [f64]>,
    mask_totals: Cow<'a, [f64]>,
}

impl<'a> Executor<'a> {
    /// The device code of tensor `index`: of its merge method, and of its mask method where it has one. `None`: it is the
    /// CPU's.
    fn device_code(&self, index: usize) -> Option<(&'a CudaCode, Option<(&'a Bound, &'a CudaCode)>)> {
        let tensor = &self.plan.tensors[index];
        let Action::Merge(merge) = &tensor.action else { return None };
        let work = self.worked(index)?;
        let has_masks = !self.outputs.slots(index).masks.is_empty();
        let mask = match merge.mask.as_ref().filter(|_| has_masks) {
            Some(mask) => Some((mask, mask.method().cuda()?)),
            None => None,
        };
        let every_task = merge.inputs.iter().all(|input| input.task.is_some());
        let as_factors = merge.inputs.iter().any(|input| work.passes_factors(&input.source));
        let taken = tensor.numel() >= self.cut().device_from.max(1)
            && is_block_dtype(tensor.dtype)
            && !work.whole()
            && !as_factors
            && (mask.is_none() || every_task);
        Some((merge.method.method().cuda().filter(|_| taken)?, mask))
    }

    /// Merges on the GPU what it takes, and says of each tensor whether that was so.
    pub(super) fn merge_on<F: Fork>(&self, fork: &F) -> Result<(Vec<bool>, DeviceReport), MergeError> {
        let mut jobs = Vec::new();
        let mut done = vec![false; self.plan.tensors.len()];
        for (index, done) in done.iter_mut().enumerate() {
            let (Some(work), Some((code, mask))) = (self.worked(index), self.device_code(index)) else {
                continue;
            };
            let totals = self.totals_of(&work, self.control.threads)?.into_owned().into();
            let mask_totals = self.mask_totals_of(&work, self.control.threads)?.into_owned().into();
            jobs.push(Job { index, work, code, mask, totals, mask_totals });
            *done = true;
        }
        let merged = |action: &Action<'_>| matches!(action, Action::Merge(_));
        let merged = self.plan.tensors.iter().filter(|tensor| merged(&tensor.action)).count();
        let again = self.work_off_on(fork, &jobs)?;
        Ok((done, DeviceReport { on_device: jobs.len(), on_cpu: merged - jobs.len(), again }))
    }

    /// Works off all slabs of the jobs; gives the number of those that the CPU did again.
    fn work_off_on<F: Fork>(&self, fork: &F, jobs: &[Job<'_>]) -> Result<usize, MergeError> {
        let cut = Cut { slab: self.cut().device_slab, ..self.cut() };
        let slabs = |(job, at): (usize, &Job<'_>)| cut.slabs(job, at.work.tensor.numel(), false);
        let units: Vec<Unit> = jobs.iter().enumerate().flat_map(slabs).collect();
        if units.is_empty() {
            return Ok(0);
        }
        let size = LaneSize::of(jobs, cut);
        let affordable = MOST_BYTES / (2 * size.bytes()).max(1);
        let workers = self.control.threads.count().min(units.len()).min(affordable.max(1));
        let queue =
            Queue { next: AtomicUsize::new(0), again: AtomicUsize::new(0), failures: Mutex::default() };
        let work = |(): &mut (), _| {
            let made = fork.fork_target().and_then(|target| {
                // Two lanes: one on the GPU, one with the host.
                let lanes = [Lane::new(&target, &size)?, Lane::new(&target, &size)?];
                Ok((target, lanes))
            });
            match made {
                Ok((target, lanes)) => self.drive(&target, lanes, (jobs, &units), &queue),
                Err(error) => queue.fail(units.len(), error.into(), units.len()),
            }
            Ok::<_, Infallible>(())
        };
        let Ok(()) = self.control.threads.for_each(workers, || (), work);
        let failures = queue.failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failures.into_iter().min_by_key(|(unit, _)| *unit) {
            Some((_, error)) => Err(error),
            None => Ok(queue.again.into_inner()),
        }
    }

    /// One worker: takes slab after slab, and leaves none in a lane.
    fn drive<T: Target>(
        &self,
        target: &T,
        mut lanes: [Lane<T>; 2],
        (jobs, units): (&[Job<'_>], &[Unit]),
        queue: &Queue,
    ) {
        let mut buffers = self.pool.take();
        // The unit in each lane, the older one first.
        let mut under_way: [Option<usize>; 2] = [None, None];
        loop {
            let taken = queue.take(units.len());
            if let Some(unit) = under_way[0].take() {
                let Unit { job, range } = &units[unit];
                match self.finish(&lanes[0], &jobs[*job], range, &mut buffers) {
                    Ok(again) => drop(queue.again.fetch_add(usize::from(again), Ordering::Relaxed)),
                    Err(error) => queue.fail(unit, error, units.len()),
                }
            }
            if let Some(unit) = taken {
                let Unit { job, range } = &units[unit];
                let started = self
                    .control
                    .check()
                    .and_then(|()| lanes[0].start(target, &jobs[*job], self, range, &mut buffers.inputs));
                match started {
                    Ok(()) => under_way[0] = Some(unit),
                    Err(error) => queue.fail(unit, error, units.len()),
                }
            } else if under_way == [None, None] {
                return;
            }
            lanes.swap(0, 1);
            under_way.swap(0, 1);
        }
    }
}

/// What is left to do, and what came of it.
struct Queue {
    next: AtomicUsize,
    again: AtomicUsize,
    /// By unit.
    failures: Mutex<Vec<(usize, MergeError)>>,
}

impl Queue {
    fn take(&self, count: usize) -> Option<usize> {
        let unit = self.next.fetch_add(1, Ordering::Relaxed);
        (unit < count).then_some(unit)
    }

    /// Nobody takes another unit; those before this one are under way and report for themselves.
    fn fail(&self, unit: usize, error: MergeError, count: usize) {
        self.next.store(count, Ordering::Relaxed);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push((unit, error));
    }
}
