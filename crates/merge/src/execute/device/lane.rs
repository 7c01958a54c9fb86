//! One slab on its way through a GPU.

use std::ops::Range;

use skillweld_gpu::ops::{
    MergedBlock, PluginBlock, PluginKernel, PluginOutput, StoredBlock, Table, decode_blocks, encode_block,
    is_block_dtype, run_plugin,
};
use skillweld_gpu::{Array, GpuError, Staging, Target, View};
use skillweld_plugin_host::{Bound, CudaCode, flags};
use skillweld_tensor::Dtype;

use super::super::Executor;
use super::super::buffers::{Buffers, Inputs, byte_range};
use super::Job;
use super::operand::{Operand, uploaded_as};
use super::places::{LaneSize, Results};
use crate::MergeError;

/// Bytes of a call with its parameters, for a few experts; tables grow.
const TABLE_BYTES: usize = 1024;

/// Totals of a tensor's passes in the GPU's memory.
type Totals<T> = Option<(usize, Array<<T as Target>::Memory>)>;

/// The memory of one slab, here and on the GPU. Everything in it stays in the order of the lane's target.
pub(super) struct Lane<T: Target> {
    base: Operand<T>,
    experts: Vec<Operand<T>>,
    /// f32 of the base, then of the experts.
    values: Vec<Array<T::Memory>>,
    merged: Array<T::Memory>,
    /// What comes back, at the places of [`Results`].
    results: Array<T::Memory>,
    fetched: T::Staging,
    stored_blocks: Table<T>,
    call: Table<T>,
    mask_call: Table<T>,
    totals: Totals<T>,
    mask_totals: Totals<T>,
}

impl<T: Target> Lane<T> {
    pub(super) fn new(target: &T, size: &LaneSize) -> Result<Self, GpuError> {
        let stored_bytes = size.numel * size.stored_bytes;
        let operand = || Operand::new(target, stored_bytes);
        let values = || target.array(Dtype::F32, size.numel);
        let results = size.results().end;
        Ok(Self {
            base: operand()?,
            experts: (0..size.experts).map(|_| operand()).collect::<Result<_, _>>()?,
            values: (0..=size.experts).map(|_| values()).collect::<Result<_, _>>()?,
            merged: values()?,
            results: target.array(Dtype::U8, results)?,
            fetched: target.stage(results)?,
            stored_blocks: Table::new(target, TABLE_BYTES)?,
            call: Table::new(target, TABLE_BYTES)?,
            mask_call: Table::new(target, TABLE_BYTES)?,
            totals: None,
            mask_totals: None,
        })
    }

    /// Reads and hashes a slab, and asks for all that the GPU is to do with it.
    pub(super) fn start(
        &mut self,
        target: &T,
        job: &Job<'_>,
        executor: &Executor<'_>,
        slab: &Range<usize>,
        inputs: &mut Inputs,
    ) -> Result<(), MergeError> {
        self.upload(target, job, executor, slab, inputs)?;
        let (merge, len) = (job.work.merge, slab.len());
        let place = Results::of(job, len);
        // No flag is set, no bit of a mask.
        target.fill(self.results.memory_mut(), 0)?;
        self.decode(target, job, len, place)?;
        keep_totals(target, &mut self.totals, job.index, &job.totals)?;
        keep_totals(target, &mut self.mask_totals, job.index, &job.mask_totals)?;
        let experts: Vec<View<'_>> = self.values[1..][..merge.inputs.len()].iter().map(Array::view).collect();
        let block = |bound| block_of(job, slab, &experts, bound);
        let needs_base = merge.method.method().has(flags::NEEDS_BASE);
        let call = PluginBlock {
            base: merge.base.filter(|_| needs_base).map(|_| self.values[0].view()),
            totals: self.totals.as_ref().map(|(_, totals)| totals.view()),
            ..block(&merge.method)
        };
        let output = PluginOutput::Values(self.merged.view_mut());
        run_plugin(target, &mut self.call, kernel(job.code), &call, &output)?;
        if let Some((mask, code)) = job.mask {
            let needs_base = mask.method().has(flags::NEEDS_BASE);
            let call = PluginBlock {
                base: merge.base.filter(|_| needs_base).map(|_| self.values[0].view()),
                merged: Some(self.merged.view()),
                totals: self.mask_totals.as_ref().map(|(_, totals)| totals.view()),
                ..block(mask)
            };
            let (_, masks) = self.results.view_mut().split_at(place.masks);
            let (masks, _) = masks.split_at(merge.inputs.len() * place.mask_stride);
            let output = PluginOutput::Masks(masks.chunks(place.mask_stride));
            run_plugin(target, &mut self.mask_call, kernel(code), &call, &output)?;
        }
        let adds_base = merge.on_task_vectors() && !executor.plan.masked;
        self.encode(target, job, (len, adds_base), place)?;
        target.download_staged(self.results.memory(), 0..place.end, &mut self.fetched, 0)?;
        Ok(())
    }

    /// Bytes of every model, block by block: hashed, copied, and sent off.
    fn upload(
        &mut self,
        target: &T,
        job: &Job<'_>,
        executor: &Executor<'_>,
        slab: &Range<usize>,
        inputs: &mut Inputs,
    ) -> Result<(), MergeError> {
        let (work, merge) = (&job.work, job.work.merge);
        let blocks = || executor.cut().blocks(slab, false);
        if let Some(view) = &merge.base {
            if is_block_dtype(view.dtype()) {
                self.base.send(target, view, slab, blocks(), |block| work.hash(view, block))?;
            } else {
                let load = |block: &Range<usize>, inputs: &mut Inputs| work.load_base(block, inputs);
                self.base.send_decoded(target, slab, blocks(), inputs, load, |inputs| &inputs.base)?;
            }
        }
        work.load_slab(slab, inputs)?;
        for (k, (input, operand)) in merge.inputs.iter().zip(&mut self.experts).enumerate() {
            let view = input.source.stored();
            if input.source.is_adapted() {
                let load = |block: &Range<usize>, inputs: &mut Inputs| {
                    if merge.on_task_vectors() && !input.source.is_on(merge.base.as_ref()) {
                        work.load_base(block, inputs)?;
                    }
                    work.load_expert(k, slab, block, inputs)
                };
                operand.send_decoded(target, slab, blocks(), inputs, load, |inputs| &inputs.experts[k])?;
            } else if input.source.is_on(merge.base.as_ref()) {
                // It is there already.
            } else if is_block_dtype(view.dtype()) {
                operand.send(target, &view, slab, blocks(), |block| work.hash(&view, block))?;
            } else {
                let load = |block: &Range<usize>, inputs: &mut Inputs| work.load_stored(k, block, inputs);
                operand.send_decoded(target, slab, blocks(), inputs, load, |inputs| &inputs.experts[k])?;
            }
        }
        Ok(())
    }

    /// Everything to f32, and to task vectors where the method takes those.
    fn decode(&mut self, target: &T, job: &Job<'_>, len: usize, place: Results) -> Result<(), GpuError> {
        let merge = job.work.merge;
        let Self { base, experts, values, results, stored_blocks, .. } = self;
        let base = merge.base.map(|view| base.stored.view().of_dtype(uploaded_as(view.dtype())));
        let mut blocks = Vec::with_capacity(experts.len() + 1);
        let mut outs = values.iter_mut().map(Array::view_mut);
        let base_out = outs.next();
        let of_experts = merge.inputs.iter().zip(experts).zip(outs).map(|((input, operand), out)| {
            let source = &input.source;
            if source.is_adapted() {
                // The CPU has made of it what the method takes.
                return StoredBlock { stored: operand.stored.view().of_dtype(Dtype::F32), less: None, out };
            }
            let stored = match base.filter(|_| source.is_on(merge.base.as_ref())) {
                Some(base) => base,
                None => operand.stored.view().of_dtype(uploaded_as(source.stored().dtype())),
            };
            StoredBlock { stored, less: base.filter(|_| merge.on_task_vectors()), out }
        });
        blocks.extend(of_experts);
        // The base's flag is the last.
        if let (Some(stored), Some(out)) = (base, base_out) {
            blocks.push(StoredBlock { stored, less: None, out });
        }
        let (flags, _) = results.view_mut().split_at(place.out);
        decode_blocks(target, stored_blocks, len, &blocks, &flags.of_dtype(Dtype::U32))
    }

    /// Rounds the output.
    fn encode(
        &mut self,
        target: &T,
        job: &Job<'_>,
        (len, adds_base): (usize, bool),
        place: Results,
    ) -> Result<(), GpuError> {
        let Self { base, merged, results, .. } = self;
        let plus = job.work.merge.base.filter(|_| adds_base);
        let plus = plus.map(|view| base.stored.view().of_dtype(uploaded_as(view.dtype())));
        let (flags, out) = results.view_mut().split_at(place.out);
        let (out, _) = out.split_at(place.out_end - place.out);
        let block = MergedBlock { values: merged.view(), plus, out: out.of_dtype(job.work.tensor.dtype) };
        let (_, flag) = flags.of_dtype(Dtype::U32).split_at(place.flags - 1);
        let (flag, _) = flag.split_at(1);
        encode_block(target, len, &block, &flag)
    }

    /// Waits for the slab that was started; `None` when something in it is not finite.
    fn results(&self, job: &Job<'_>, len: usize) -> Result<Option<(Results, &[u8])>, GpuError> {
        let place = Results::of(job, len);
        let bytes = self.fetched.bytes()?;
        let finite = bytes[..4 * place.flags].iter().all(|&byte| byte == 0);
        Ok(finite.then_some((place, bytes)))
    }
}

impl Executor<'_> {
    /// Waits for the slab in a lane and writes it; true when the CPU had to do it again.
    pub(super) fn finish<T: Target>(
        &self,
        lane: &Lane<T>,
        job: &Job<'_>,
        slab: &Range<usize>,
        buffers: &mut Buffers,
    ) -> Result<bool, MergeError> {
        let Job { index, work, totals, mask_totals, .. } = job;
        let results = lane.results(job, slab.len())?;
        let again = results.is_none();
        if let Some((place, bytes)) = results {
            let slots = self.outputs.slots(*index);
            let dtype = work.tensor.dtype;
            if let Some(slot) = slots.value {
                let start = byte_range(slab, 0, dtype.bits()).start;
                self.outputs.write(slot, start, &bytes[place.out..place.out_end])?;
            }
            if let (Some(slot), Some(base)) = (slots.base, &work.merge.base) {
                let place = byte_range(slab, 0, base.dtype().bits());
                self.outputs.write(slot, place.start, &base.bytes()[place])?;
            }
            let masks = &mut buffers.outputs.masks;
            masks.resize_with(slots.masks.len().max(masks.len()), Vec::new);
            for mask in &mut masks[..slots.masks.len()] {
                // A task that this tensor is not merged from keeps nothing of it.
                mask.clear();
                mask.resize(place.mask_bytes, 0);
            }
            for (k, input) in work.merge.inputs.iter().enumerate().filter(|_| job.mask.is_some()) {
                let Some(task) = input.task else { continue };
                masks[task].copy_from_slice(&bytes[place.mask(k)]);
                clear_tail(&mut masks[task], slab.len());
            }
            for (mask, &slot) in masks.iter().zip(&slots.masks) {
                self.outputs.write(slot, slab.start / 8, mask)?;
            }
            self.measures.count_masks(*index, slab.len(), &masks[..slots.masks.len()]);
        } else {
            self.merge_slab(*index, work, slab, buffers, (Some(&**totals), mask_totals))?;
        }
        (self.control.advance)(slab.len() as u64);
        Ok(again)
    }
}

/// Bits past the last element are nobody's.
fn clear_tail(mask: &mut [u8], len: usize) {
    if let Some(last) = mask.last_mut().filter(|_| !len.is_multiple_of(8)) {
        *last &= (1 << (len % 8)) - 1;
    }
}

/// Sends a tensor's totals, if the lane has those of another.
fn keep_totals<T: Target>(
    target: &T,
    kept: &mut Totals<T>,
    index: usize,
    totals: &[f64],
) -> Result<(), GpuError> {
    if totals.is_empty() {
        *kept = None;
    } else if kept.as_ref().is_none_or(|(of, _)| *of != index) {
        let bytes: Vec<u8> = totals.iter().flat_map(|total| total.to_le_bytes()).collect();
        *kept = Some((index, target.array_of(Dtype::F64, &bytes)?));
    }
    Ok(())
}

fn kernel(code: &CudaCode) -> PluginKernel<'_> {
    PluginKernel { image: code.image, name: &code.run, threads: code.threads }
}

/// What the calls of both methods have in common.
fn block_of<'a>(
    job: &Job<'_>,
    slab: &Range<usize>,
    experts: &[View<'a>],
    bound: &'a Bound,
) -> PluginBlock<'a> {
    PluginBlock {
        len: slab.len(),
        offset: slab.start,
        numel: job.work.tensor.numel(),
        seed: job.work.merge.seed,
        experts: experts.to_vec(),
        base: None,
        merged: None,
        totals: None,
        global: bound.global(),
        per_expert: bound.per_expert(),
    }
}
