//! One tensor in the hands of a worker: blocks are decoded, handed to plugins, and come back merged.

use std::ops::{ControlFlow, Range};

use skillweld_plugin_host::{BlockInputs, Bound, ExpertBlock, HostHooks, flags};
use skillweld_simd::vectorize;
use skillweld_tensor::{TensorView, convert, row_step};

use super::buffers::{Inputs, Outputs, sized};
use super::hashing::HashBook;
use super::units::Cut;
use crate::MergeError;
use crate::plan::{Input, Merge, PlannedTensor};
use crate::source::{Source, product_block};

/// A tensor that a plugin merges.
#[derive(Clone, Copy)]
pub(crate) struct Worked<'a> {
    pub(crate) tensor: &'a PlannedTensor<'a>,
    pub(crate) merge: &'a Merge<'a>,
    pub(crate) allow_non_finite: bool,
    pub(crate) hooks: &'a HostHooks<'a>,
    /// `None`: blocks are seen in part only, so their bytes are hashed another time.
    pub(crate) hashes: Option<&'a HashBook>,
    /// Adapters are multiplied out although the merge method takes factors: for what comes after it.
    pub(crate) multiplied_out: bool,
}

/// NaN or infinity among the values of `model` from element `offset` of tensor `key` on.
pub(super) fn non_finite(key: &str, model: &str, values: &[f32], offset: usize) -> MergeError {
    let first = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    MergeError::NonFinite { key: key.to_owned(), model: model.to_owned(), element: offset + first }
}

pub(super) const BASE: &str = "the base model";

impl Worked<'_> {
    /// A method wants the tensor in one piece.
    pub(crate) fn whole(&self) -> bool {
        self.merges_whole() || self.masks_whole()
    }

    /// The merge method wants the tensor in one piece.
    pub(crate) fn merges_whole(&self) -> bool {
        self.merge.method.plan().whole
    }

    /// The mask method wants the tensor in one piece.
    pub(crate) fn masks_whole(&self) -> bool {
        self.merge.mask.as_ref().is_some_and(|mask| mask.plan().whole)
    }

    /// `cut`, or between rows where a method wants these whole.
    pub(crate) fn cut(&self, cut: Cut) -> Cut {
        if self.wants(flags::ROWS) { cut.between_rows(row_step(self.tensor.shape)) } else { cut }
    }

    fn wants(&self, flag: u64) -> bool {
        let wants = |bound: &Bound| bound.method().has(flag);
        wants(&self.merge.method) || self.merge.mask.as_ref().is_some_and(wants)
    }

    /// Loads the whole tensor as the merge method takes it: Θ₀ only where somebody looks at it.
    pub(crate) fn load_whole(&self, whole: &Range<usize>, inputs: &mut Inputs) -> Result<(), MergeError> {
        self.load_slab(whole, inputs)?;
        let dense = self.merge.inputs.iter().any(|input| !self.passes_factors(&input.source));
        if self.wants(flags::NEEDS_BASE) || (dense && self.merge.on_task_vectors()) {
            self.load_base(whole, inputs)?;
        }
        (0..self.merge.inputs.len()).try_for_each(|k| self.load_expert(k, whole, whole, inputs))?;
        self.load_statistics(whole, inputs)
    }

    /// Decodes the adapters of a tensor and multiplies them out for one slab; comes before its blocks.
    pub(crate) fn load_slab(&self, slab: &Range<usize>, inputs: &mut Inputs) -> Result<(), MergeError> {
        let Inputs { experts, products, rows, factors, .. } = inputs;
        let count = self.merge.inputs.len();
        experts.resize_with(count.max(experts.len()), Vec::new);
        products.resize_with(count.max(products.len()), Vec::new);
        if factors.as_ref().is_none_or(|(key, _)| *key != self.tensor.key) {
            let decoded: Result<_, _> =
                self.merge.inputs.iter().map(|input| input.source.factors()).collect();
            *factors = Some((self.tensor.key.clone(), decoded?));
        }
        let factors = factors.iter().flat_map(|(_, factors)| factors);
        for ((input, product), factors) in self.merge.inputs.iter().zip(products).zip(factors) {
            if let Some(factors) = factors.as_ref().filter(|_| !self.passes_factors(&input.source)) {
                product_block(factors, slab.start, sized(product, slab.len()), rows);
            }
        }
        Ok(())
    }

    /// Decodes one block of a loaded slab, hashing the stored bytes in passing.
    pub(crate) fn load_block(
        &self,
        slab: &Range<usize>,
        block: &Range<usize>,
        inputs: &mut Inputs,
    ) -> Result<(), MergeError> {
        self.load_base(block, inputs)?;
        (0..self.merge.inputs.len()).try_for_each(|k| self.load_expert(k, slab, block, inputs))?;
        // Of a tensor that is merged already nobody looks at them.
        if self.multiplied_out { Ok(()) } else { self.load_statistics(block, inputs) }
    }

    /// Decodes the experts' statistics for a block, where the method weighs them by such.
    fn load_statistics(&self, block: &Range<usize>, inputs: &mut Inputs) -> Result<(), MergeError> {
        let count = self.merge.inputs.len();
        inputs.statistics.resize_with(count.max(inputs.statistics.len()), Vec::new);
        for (input, values) in self.merge.inputs.iter().zip(&mut inputs.statistics) {
            let Some(view) = &input.statistics else { continue };
            let range = self.statistics_range(view, block);
            self.hash(view, &range);
            let values = sized(values, range.len());
            let finite =
                view.decode_block(range.start, values).map_err(MergeError::tensor(&self.tensor.key))?;
            // `allow_non_finite` is about weights; nothing can be weighed by NaN.
            if !finite {
                let first = values.iter().position(|x| !x.is_finite()).unwrap_or(0);
                let (key, model) = (self.tensor.key.clone(), input.model.to_owned());
                return Err(MergeError::StatisticsNonFinite { key, model, element: range.start + first });
            }
        }
        Ok(())
    }

    /// What of an expert's statistics belongs to a block: the same elements, or all of a Gram matrix.
    fn statistics_range(&self, view: &TensorView<'_>, block: &Range<usize>) -> Range<usize> {
        if self.merge.method.method().has(flags::MATRIX) { 0..view.numel() } else { block.clone() }
    }

    /// Θ₀ of a block, where there is a base model.
    pub(crate) fn load_base(&self, block: &Range<usize>, inputs: &mut Inputs) -> Result<(), MergeError> {
        let Some(view) = &self.merge.base else { return Ok(()) };
        self.decode(view, BASE, block, sized(&mut inputs.base, block.len()))
    }

    /// Expert `k` of a block as the method takes it, unless it goes there as factors; comes after
    /// [`load_slab`](Self::load_slab) and [`load_base`](Self::load_base).
    pub(crate) fn load_expert(
        &self,
        k: usize,
        slab: &Range<usize>,
        block: &Range<usize>,
        inputs: &mut Inputs,
    ) -> Result<(), MergeError> {
        let Inputs { base, experts, products, .. } = inputs;
        let base = &base[..base.len().min(block.len())];
        let Input { source, model, .. } = &self.merge.inputs[k];
        if self.passes_factors(source) {
            return Ok(());
        }
        let out = sized(&mut experts[k], block.len());
        let product =
            source.is_adapted().then(|| &products[k][block.start - slab.start..block.end - slab.start]);
        let on_base = self.merge.on_task_vectors() && source.is_on(self.merge.base.as_ref());
        match product {
            Some(product) if on_base => out.copy_from_slice(product),
            None if on_base => out.fill(0.0),
            None if self.merge.on_task_vectors() => {
                self.decode_difference(&source.stored(), model, block, base, out)?;
            }
            _ => self.decode(&source.stored(), model, block, out)?,
        }
        if let Some(product) = product {
            if !on_base {
                add(out, product);
            }
            if !convert::all_finite(out) {
                self.refuse_non_finite(model, out, block.start)?;
            }
            if self.merge.on_task_vectors() && !on_base {
                subtract(out, base);
            }
        }
        Ok(())
    }

    /// What is stored of expert `k` in a block, less nothing; comes after [`load_slab`](Self::load_slab).
    pub(crate) fn load_stored(
        &self,
        k: usize,
        block: &Range<usize>,
        inputs: &mut Inputs,
    ) -> Result<(), MergeError> {
        let Input { source, model, .. } = &self.merge.inputs[k];
        self.decode(&source.stored(), model, block, sized(&mut inputs.experts[k], block.len()))
    }

    fn decode(
        &self,
        view: &TensorView<'_>,
        model: &str,
        block: &Range<usize>,
        out: &mut [f32],
    ) -> Result<(), MergeError> {
        self.hash(view, block);
        let finite = view.decode_block(block.start, out).map_err(MergeError::tensor(&self.tensor.key))?;
        if finite { Ok(()) } else { self.refuse_non_finite(model, out, block.start) }
    }

    /// As `decode`, less the base: a block of the task vector in one pass.
    fn decode_difference(
        &self,
        view: &TensorView<'_>,
        model: &str,
        block: &Range<usize>,
        base: &[f32],
        out: &mut [f32],
    ) -> Result<(), MergeError> {
        let name = MergeError::tensor(&self.tensor.key);
        self.hash(view, block);
        if view.decode_difference(block.start, base, out).map_err(name)? {
            return Ok(());
        }
        // Slowly again, for the place: the difference of finite values may have overflowed before it.
        self.decode(view, model, block, out)?;
        subtract(out, base);
        Ok(())
    }

    /// Comes before decoding: BLAKE3 has more to compute while it waits for memory.
    pub(crate) fn hash(&self, view: &TensorView<'_>, block: &Range<usize>) {
        if let Some(hashes) = self.hashes {
            hashes.offer(view, block.start, block.end);
        }
    }

    fn refuse_non_finite(&self, model: &str, values: &[f32], offset: usize) -> Result<(), MergeError> {
        if self.allow_non_finite { Ok(()) } else { Err(non_finite(&self.tensor.key, model, values, offset)) }
    }

    /// This expert goes to the plugins as factors: an adapter on the base itself, and all that see it so accept low rank. The
    /// mask method sees what a method on whole matrices merged block by block, multiplied out.
    pub(crate) fn passes_factors(&self, source: &Source<'_>) -> bool {
        let accepts = |bound: &Bound| bound.method().has(flags::LOW_RANK);
        source.is_adapted()
            && !self.multiplied_out
            && accepts(&self.merge.method)
            && (self.merges_whole() || self.merge.mask.as_ref().is_none_or(accepts))
            && self.merge.on_task_vectors()
            && source.is_on(self.merge.base.as_ref())
    }

    /// Calls `call` with a loaded block as plugins take it; `merged` is for mask methods.
    fn with_block<T>(
        &self,
        block: &Range<usize>,
        inputs: &Inputs,
        merged: Option<&[f32]>,
        call: impl FnOnce(&BlockInputs<'_>) -> T,
    ) -> T {
        let factors = inputs.factors.iter().flat_map(|(_, factors)| factors);
        let experts = self.merge.inputs.iter().zip(&inputs.experts).zip(factors);
        let experts = experts.map(|((input, values), factors)| {
            match factors.as_ref().filter(|_| self.passes_factors(&input.source)) {
                Some(factors) => ExpertBlock::LowRank(factors),
                None => ExpertBlock::Dense(&values[..block.len()]),
            }
        });
        let statistics = self.merge.inputs.iter().zip(&inputs.statistics).filter_map(|(input, values)| {
            let range = self.statistics_range(input.statistics.as_ref()?, block);
            Some(&values[..range.len()])
        });
        call(&BlockInputs {
            key: &self.tensor.key,
            shape: self.tensor.shape,
            offset: block.start,
            len: block.len(),
            experts: &experts.collect::<Vec<_>>(),
            statistics: &statistics.collect::<Vec<_>>(),
            base: self
                .merge
                .base
                .filter(|_| self.wants(flags::NEEDS_BASE))
                .map(|_| &inputs.base[..block.len()]),
            merged,
            seed: self.merge.seed,
            hooks: self.hooks,
        })
    }

    /// Adds a loaded block to the sums of one pass of the merge method; `Break` when the pass has nothing to add.
    pub(crate) fn observe(
        &self,
        block: &Range<usize>,
        inputs: &Inputs,
        outputs: &mut Outputs,
        (pass, totals): (usize, &[f64]),
        sums: &mut [f64],
    ) -> Result<ControlFlow<()>, MergeError> {
        let bound = &self.merge.method;
        let scratch = sized(&mut outputs.scratch, bound.plan().scratch_per_element * block.len());
        Ok(self.with_block(block, inputs, None, |call| bound.observe(call, pass, totals, sums, scratch))?)
    }

    /// Merges a loaded block into `outputs.merged`: τ, or Θ for methods on weights. The way by which the method says that it
    /// computed.
    pub(crate) fn run(
        &self,
        block: &Range<usize>,
        inputs: &Inputs,
        outputs: &mut Outputs,
        totals: &[f64],
    ) -> Result<Option<String>, MergeError> {
        let bound = &self.merge.method;
        let scratch = sized(&mut outputs.scratch, bound.plan().scratch_per_element * block.len());
        let merged = sized(&mut outputs.merged, block.len());
        Ok(self.with_block(block, inputs, None, |call| bound.run(call, totals, merged, scratch))?)
    }

    /// Adds a block that has just been merged, from element `first` of `outputs.merged` on, to the sums of one pass of the mask
    /// method; `Break` as for [`observe`](Self::observe).
    pub(crate) fn observe_mask(
        &self,
        mask: &Bound,
        (block, first): (&Range<usize>, usize),
        inputs: &Inputs,
        outputs: &mut Outputs,
        (pass, totals): (usize, &[f64]),
        sums: &mut [f64],
    ) -> Result<ControlFlow<()>, MergeError> {
        let scratch = sized(&mut outputs.scratch, mask.plan().scratch_per_element * block.len());
        let merged = Some(&outputs.merged[first..first + block.len()]);
        Ok(self.with_block(block, inputs, merged, |call| mask.observe(call, pass, totals, sums, scratch))?)
    }

    /// Makes the masks of a block that has just been merged, from element `first` of `outputs.merged` on, each at `place` (bytes) of its task's of `outputs.masks`.
    /// Those of other tasks stay as they are.
    pub(crate) fn run_mask(
        &self,
        mask: &Bound,
        (block, first): (&Range<usize>, usize),
        inputs: &Inputs,
        outputs: &mut Outputs,
        totals: &[f64],
        place: &Range<usize>,
    ) -> Result<(), MergeError> {
        let Outputs { merged, scratch, masks, .. } = outputs;
        let scratch = sized(scratch, mask.plan().scratch_per_element * block.len());
        let mut places: Vec<_> = masks.iter_mut().map(|mask| Some(&mut mask[place.clone()])).collect();
        let tasks = self.merge.inputs.iter().filter_map(|input| input.task);
        let mut bits: Vec<&mut [u8]> = tasks.filter_map(|task| places[task].take()).collect();
        let merged = Some(&merged[first..first + block.len()]);
        Ok(self.with_block(block, inputs, merged, |call| mask.run_mask(call, totals, &mut bits, scratch))?)
    }
}

vectorize! {
    /// out += x.
    pub(crate) fn add(out: &mut [f32], x: &[f32]) {
        for (o, x) in out.iter_mut().zip(x) {
            *o += x;
        }
    }

    /// out −= x.
    fn subtract(out: &mut [f32], x: &[f32]) {
        for (o, x) in out.iter_mut().zip(x) {
            *o -= x;
        }
    }
}
