//! One tensor, slab by slab, from its sources to its places in the output.

use std::ops::Range;

use skillweld_linalg::Threads;
use skillweld_simd::vectorize;
use skillweld_store::is_unused;
use skillweld_tensor::{BitMask, TensorView, convert};

use super::Executor;
use super::buffers::{Buffers, byte_range, sized};
use super::worked::{BASE, Worked, add, non_finite};
use crate::MergeError;
use crate::measure::Distances;
use crate::output::Slot;
use crate::plan::{Action, PlannedTensor};
use crate::source::{Source, product_block};

impl Executor<'_> {
    /// Makes the `index`-th tensor of the plan.
    pub(super) fn work_off(&self, index: usize, threads: Threads) -> Result<(), MergeError> {
        let tensor = &self.plan.tensors[index];
        match &tensor.action {
            Action::Refuse(_) | Action::LeaveOut(_) => Ok(()),
            Action::Merge(_) => self.merge(index, threads),
            Action::Copy(view) => {
                let slot = self.outputs.slots(index).value;
                self.each_slab(tensor, threads, |buffers, slab| {
                    self.check_copied(tensor, view, slab, buffers)?;
                    match slot {
                        Some(slot) => self.copy(tensor, view, slot, slab, buffers)?,
                        // It stays in the base model's file.
                        None => self.hashes.offer(view, slab.start, slab.end),
                    }
                    Ok(())
                })
            }
            Action::Average(sources) => {
                let Some(slot) = self.outputs.slots(index).value else { return Ok(()) };
                self.each_slab(tensor, threads, |buffers, slab| {
                    let distances = self.average(tensor, sources, slot, slab, buffers)?;
                    self.measures.add_distances(index, slab.start, distances);
                    Ok(())
                })
            }
            Action::PerTask(views) => self.each_slab(tensor, threads, |buffers, slab| {
                let stored = views.iter().map(|view| Source::Stored(*view));
                let sources: Vec<_> = self.plan.tasks().into_iter().zip(stored).collect();
                if tensor.dtype.is_computable() {
                    let distances = self.load_experts(tensor, &sources, slab, buffers)?;
                    self.measures.add_distances(index, slab.start, distances);
                }
                for (view, &slot) in views.iter().zip(&self.outputs.slots(index).per_task) {
                    self.copy(tensor, view, slot, slab, buffers)?;
                }
                Ok(())
            }),
        }
    }

    fn each_slab(
        &self,
        tensor: &PlannedTensor<'_>,
        threads: Threads,
        work: impl Fn(&mut Buffers, &Range<usize>) -> Result<(), MergeError> + Sync,
    ) -> Result<(), MergeError> {
        let units: Vec<_> = self.cut().slabs(0, tensor.numel(), false).collect();
        threads.for_each(
            units.len(),
            || self.pool.take(),
            |buffers, i| {
                self.control.check()?;
                work(buffers, &units[i].range)?;
                (self.control.advance)(units[i].range.len() as u64);
                Ok(())
            },
        )
    }

    /// Refuses NaN and infinity in what all models share and no method looks at.
    fn check_copied(
        &self,
        tensor: &PlannedTensor<'_>,
        view: &TensorView<'_>,
        slab: &Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), MergeError> {
        let may_be_anything = self.plan.recipe.allow_non_finite || is_unused(&tensor.key);
        if may_be_anything || !view.dtype().is_computable() {
            return Ok(());
        }
        let model = match (self.plan.recipe.base, self.plan.recipe.models.first()) {
            (None, Some(first)) => &first.name,
            _ => BASE,
        };
        for block in self.cut().blocks(slab, false) {
            let values = sized(&mut buffers.outputs.merged, block.len());
            let finite = view.decode_block(block.start, values).map_err(MergeError::tensor(&tensor.key))?;
            self.hashes.offer(view, block.start, block.end);
            if !finite {
                return Err(non_finite(&tensor.key, model, values, block.start));
            }
        }
        Ok(())
    }

    /// Copies a slab as it is, or converts it where the output has another dtype.
    fn copy(
        &self,
        tensor: &PlannedTensor<'_>,
        view: &TensorView<'_>,
        slot: Slot,
        slab: &Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<(), MergeError> {
        self.hashes.offer(view, slab.start, slab.end);
        let from = byte_range(slab, 0, view.dtype().bits());
        if view.dtype() == tensor.dtype {
            return self.outputs.write(slot, from.start, &view.bytes()[from]);
        }
        let to = byte_range(slab, 0, tensor.dtype.bits());
        let values = sized(&mut buffers.outputs.merged, slab.len());
        let bytes = &mut buffers.outputs.bytes;
        bytes.resize(to.len(), 0);
        view.decode_block(slab.start, values).map_err(MergeError::tensor(&tensor.key))?;
        self.encode(tensor, "copy", values, slab.start, bytes)?;
        self.outputs.write(slot, to.start, bytes)
    }

    /// Decodes a slab of every expert into `inputs.experts` and measures how far apart they are.
    fn load_experts(
        &self,
        tensor: &PlannedTensor<'_>,
        sources: &[(&str, Source<'_>)],
        slab: &Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<Distances, MergeError> {
        let inputs = &mut buffers.inputs;
        inputs.experts.resize_with(sources.len().max(inputs.experts.len()), Vec::new);
        inputs.products.resize_with(1.max(inputs.products.len()), Vec::new);
        for ((model, source), expert) in sources.iter().zip(&mut inputs.experts) {
            let (view, values) = (source.stored(), sized(expert, slab.len()));
            self.hashes.offer(&view, slab.start, slab.end);
            let mut finite =
                view.decode_block(slab.start, values).map_err(MergeError::tensor(&tensor.key))?;
            if let Some(factors) = source.factors()? {
                let product = sized(&mut inputs.products[0], slab.len());
                product_block(&factors, slab.start, product, &mut inputs.rows);
                add(values, product);
                finite = convert::all_finite(values);
            }
            if !finite && !self.plan.recipe.allow_non_finite {
                return Err(non_finite(&tensor.key, model, values, slab.start));
            }
        }
        let experts = inputs.experts.iter().take(sources.len()).map(|expert| &expert[..slab.len()]);
        Ok(Distances::between(&experts.collect::<Vec<_>>()))
    }

    /// The plain mean over experts, summed in f32 in their order.
    fn average(
        &self,
        tensor: &PlannedTensor<'_>,
        sources: &[(&str, Source<'_>)],
        slot: Slot,
        slab: &Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<Distances, MergeError> {
        let distances = self.load_experts(tensor, sources, slab, buffers)?;
        let Buffers { inputs, outputs } = buffers;
        let mean = sized(&mut outputs.merged, slab.len());
        mean.fill(0.0);
        inputs.experts.iter().take(sources.len()).for_each(|expert| add(mean, &expert[..slab.len()]));
        divide(mean, sources.len() as f32);
        let place = byte_range(slab, 0, tensor.dtype.bits());
        outputs.bytes.resize(place.len(), 0);
        self.encode(tensor, "average", mean, slab.start, &mut outputs.bytes)?;
        self.outputs.write(slot, place.start, &outputs.bytes)?;
        Ok(distances)
    }

    fn merge(&self, index: usize, threads: Threads) -> Result<(), MergeError> {
        let Some(work) = self.worked(index) else { return Ok(()) };
        let totals = self.totals_of(&work, threads)?;
        let mask_totals = self.mask_totals_of(&work, threads)?;
        if work.merges_whole() {
            return self.merge_whole(index, &work, &totals, &mask_totals);
        }
        let units: Vec<_> = work.cut(self.cut()).slabs(index, work.tensor.numel(), work.whole()).collect();
        threads.for_each(
            units.len(),
            || self.pool.take(),
            |buffers, i| {
                self.control.check()?;
                // A mask method that wants whole tensors; there is one unit then.
                let _room = work.whole().then(|| self.room.take(work.tensor.numel()));
                self.merge_slab(index, &work, &units[i].range, buffers, (Some(&*totals), &mask_totals))?;
                (self.control.advance)(units[i].range.len() as u64);
                Ok(())
            },
        )
    }

    /// A matrix that its method takes in one piece; what comes after goes slab by slab, as with all others.
    fn merge_whole(
        &self,
        index: usize,
        work: &Worked<'_>,
        totals: &[f64],
        mask_totals: &[f64],
    ) -> Result<(), MergeError> {
        let numel = work.tensor.numel();
        let _room = self.room.take(numel);
        let mut buffers = self.pool.take();
        self.control.check()?;
        if let Some(path) = self.run_whole(work, &mut buffers, totals)? {
            self.measures.add_path(index, path);
        }
        let rest = Worked { multiplied_out: true, ..*work };
        for unit in work.cut(self.cut()).slabs(index, numel, work.masks_whole()) {
            self.control.check()?;
            self.merge_slab(index, &rest, &unit.range, &mut buffers, (None, mask_totals))?;
            (self.control.advance)(unit.range.len() as u64);
        }
        buffers.shrink(self.cut().whole_room);
        Ok(())
    }

    /// Merges a whole tensor into `outputs.merged`; the way by which the method says that it computed.
    pub(super) fn run_whole(
        &self,
        work: &Worked<'_>,
        buffers: &mut Buffers,
        totals: &[f64],
    ) -> Result<Option<String>, MergeError> {
        let whole = 0..work.tensor.numel();
        let Buffers { inputs, outputs } = buffers;
        work.load_whole(&whole, inputs)?;
        work.run(&whole, inputs, outputs, totals)
    }

    /// Merges, masks and writes one slab. `None` in place of the merge method's totals: `outputs.merged` holds the whole
    /// tensor already.
    pub(super) fn merge_slab(
        &self,
        index: usize,
        work: &Worked<'_>,
        slab: &Range<usize>,
        buffers: &mut Buffers,
        (totals, mask_totals): (Option<&[f64]>, &[f64]),
    ) -> Result<(), MergeError> {
        let slots = self.outputs.slots(index);
        let Buffers { inputs, outputs } = buffers;
        let dtype = work.tensor.dtype;
        let tasks = slots.masks.len();
        outputs.bytes.resize(byte_range(slab, slab.start, dtype.bits()).len(), 0);
        outputs.masks.resize_with(tasks.max(outputs.masks.len()), Vec::new);
        for mask in &mut outputs.masks {
            // A task that this tensor is not merged from keeps nothing of it.
            mask.clear();
            mask.resize(BitMask::byte_len(slab.len()), 0);
        }
        let mask = work.merge.mask.as_ref().filter(|_| tasks > 0);
        let sees_experts = totals.is_some() || mask.is_some();
        if sees_experts {
            work.load_slab(slab, inputs)?;
        }
        let whole = if totals.is_some() { work.whole() } else { work.masks_whole() };
        for block in work.cut(self.cut()).blocks(slab, whole) {
            if sees_experts {
                work.load_block(slab, &block, inputs)?;
            } else {
                work.load_base(&block, inputs)?;
            }
            let first = match totals {
                Some(totals) => {
                    if let Some(path) = work.run(&block, inputs, outputs, totals)? {
                        self.measures.add_path(index, path);
                    }
                    0
                }
                None => block.start,
            };
            if let Some(mask) = mask {
                let place = byte_range(&block, slab.start, 1);
                work.run_mask(mask, (&block, first), inputs, outputs, mask_totals, &place)?;
            }
            let merged = &mut outputs.merged[first..first + block.len()];
            if work.merge.on_task_vectors() && !self.plan.masked {
                add(merged, &inputs.base[..block.len()]);
            }
            let bytes = &mut outputs.bytes[byte_range(&block, slab.start, dtype.bits())];
            self.encode(work.tensor, work.merge.method.method().id(), merged, block.start, bytes)?;
        }
        if let Some(slot) = slots.value {
            self.outputs.write(slot, byte_range(slab, 0, dtype.bits()).start, &outputs.bytes)?;
        }
        if let (Some(slot), Some(base)) = (slots.base, &work.merge.base) {
            let place = byte_range(slab, 0, base.dtype().bits());
            self.outputs.write(slot, place.start, &base.bytes()[place])?;
        }
        let masks = &outputs.masks[..tasks];
        for (mask, &slot) in masks.iter().zip(&slots.masks) {
            self.outputs.write(slot, slab.start / 8, mask)?;
        }
        self.measures.count_masks(index, slab.len(), masks);
        Ok(())
    }

    /// Rounds to the output's dtype; refuses results that it cannot hold.
    fn encode(
        &self,
        tensor: &PlannedTensor<'_>,
        method: &str,
        values: &[f32],
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), MergeError> {
        let dtype = tensor.dtype;
        let finite = convert::encode(dtype, values, bytes).map_err(MergeError::tensor(&tensor.key))?;
        if finite || self.plan.recipe.allow_non_finite {
            return Ok(());
        }
        let limit = convert::overflow_from(dtype);
        let first = values.iter().position(|v| v.abs() >= limit || v.is_nan()).unwrap_or(0);
        let (key, method) = (tensor.key.clone(), method.to_owned());
        Err(MergeError::Overflow { key, method, dtype, element: offset + first })
    }
}

vectorize! {
    fn divide(values: &mut [f32], divisor: f32) {
        for v in values {
            *v /= divisor;
        }
    }
}
