//! One run of a method on a case, as a merge would run it, with every buffer guarded.

use skillweld_plugin_host::{
    BlockInputs, Bound, ExpertBlock, HostHooks, Kind, Method, PluginError, UNWRITTEN_BITS, flags,
};
use skillweld_tensor::{BitMask, LowRank};

use crate::case::Case;
use crate::guarded::Guarded;

/// How to run; `Setup::default()` = in one block, dense.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// Where to cut the tensor: ascending multiples of 8 below its length. A method that wants it whole gets it whole.
    pub(crate) cuts: &'a [usize],
    /// Totals to use instead of observing.
    pub(crate) totals: Option<&'a [f64]>,
    /// Experts as factors, in place of the case's dense ones; none = all dense.
    pub(crate) factors: &'a [Option<LowRank>],
    /// What stands in the scratch before each call.
    pub(crate) scratch_fill: f32,
    pub(crate) hooks: HostHooks<'a>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { cuts: &[], totals: None, factors: &[], scratch_fill: 0.0, hooks: HostHooks::SILENT }
    }
}

/// All that a method gives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Output {
    /// Merge methods: the merged tensor.
    pub(crate) values: Vec<f32>,
    /// Mask methods: one mask an expert.
    pub(crate) masks: Vec<Vec<u8>>,
    /// Mask methods with rescalers: one an expert.
    pub(crate) rescalers: Vec<f32>,
    /// Totals of all passes.
    pub(crate) totals: Vec<f64>,
    /// What the method wrote that it must not write.
    pub(crate) trespasses: Vec<&'static str>,
}

impl Output {
    /// The same bytes, totals aside.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        bits(&self.values) == bits(&other.values)
            && self.masks == other.masks
            && bits(&self.rescalers) == bits(&other.rescalers)
    }

    /// Whether expert k's mask keeps element i.
    pub(crate) fn keeps(&self, k: usize, i: usize) -> bool {
        self.masks[k][i / 8] >> (i % 8) & 1 == 1
    }
}

/// Runs `method` on `case`.
pub(crate) fn run(method: &Method, case: &Case, setup: &Setup<'_>) -> Result<Output, PluginError> {
    let bound = case.parameters.bind(method, case.experts.len(), &setup.hooks)?;
    run_bound(&bound, case, setup)
}

/// [`run`] with parameters that are bound already.
pub(crate) fn run_bound(bound: &Bound, case: &Case, setup: &Setup<'_>) -> Result<Output, PluginError> {
    let mut output = Output { totals: setup.totals.unwrap_or_default().to_vec(), ..Output::default() };
    let cuts = if bound.plan().whole { &[] } else { setup.cuts };
    let blocks = blocks(case.numel(), cuts);
    let poison = f32::from_bits(UNWRITTEN_BITS);
    if setup.totals.is_none() {
        for pass in 0..bound.plan().passes() {
            let mut sums = Guarded::new(&vec![0.0; bound.plan().sums_len[pass]], BAND as f64);
            for &(offset, len) in &blocks {
                let mut call = Call::new(bound, case, setup, offset, len, &output.totals);
                call.make(|inputs, totals, scratch| {
                    // Every pass over everything, as any host may.
                    bound.observe(inputs, pass, totals, sums.content_mut(), scratch).map(drop)
                })?;
                call.report(&mut output.trespasses);
            }
            note(&mut output.trespasses, "outside of the sums", sums.is_intact());
            output.totals.extend_from_slice(sums.content());
        }
    }
    if bound.method().kind() == Kind::Merge {
        output.values = vec![poison; case.numel()];
    } else {
        output.masks = vec![vec![0; BitMask::byte_len(case.numel())]; case.experts.len()];
    }
    for &(offset, len) in &blocks {
        let mut call = Call::new(bound, case, setup, offset, len, &output.totals);
        match bound.method().kind() {
            Kind::Merge => {
                let mut out = Guarded::new(&vec![poison; len], BAND);
                call.make(|inputs, totals, scratch| {
                    bound.run(inputs, totals, out.content_mut(), scratch).map(drop)
                })?;
                note(&mut output.trespasses, "outside of the output", out.is_intact());
                output.values[offset..offset + len].copy_from_slice(out.content());
            }
            Kind::Mask => {
                let blank = vec![0; BitMask::byte_len(len)];
                let mut masks: Vec<_> = case.experts.iter().map(|_| Guarded::new(&blank, 0xa5)).collect();
                let mut slices: Vec<&mut [u8]> = masks.iter_mut().map(Guarded::content_mut).collect();
                call.make(|inputs, totals, scratch| bound.run_mask(inputs, totals, &mut slices, scratch))?;
                for (whole, mask) in output.masks.iter_mut().zip(&masks) {
                    note(&mut output.trespasses, "outside of a mask", mask.is_intact());
                    whole[offset / 8..offset / 8 + blank.len()].copy_from_slice(mask.content());
                }
            }
        }
        call.report(&mut output.trespasses);
    }
    if bound.method().kind() == Kind::Mask && bound.method().has(flags::EMITS_MASKS) {
        output.rescalers = bound.rescale(&output.totals, &setup.hooks)?;
    }
    Ok(output)
}

/// Content of the guard bands.
const BAND: f32 = 1.234_567_9e-30;

/// Offset and length of each block; a tensor of no elements is one empty block.
fn blocks(numel: usize, cuts: &[usize]) -> Vec<(usize, usize)> {
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([numel]);
    starts.zip(ends).map(|(start, end)| (start, end - start)).collect()
}

fn note(trespasses: &mut Vec<&'static str>, what: &'static str, fine: bool) {
    if !fine && !trespasses.contains(&what) {
        trespasses.push(what);
    }
}

/// The inputs of one call in buffers of their own, so that a method that writes to them harms no other call.
struct Call<'a> {
    case: &'a Case,
    setup: &'a Setup<'a>,
    offset: usize,
    len: usize,
    experts: Vec<Guarded<f32>>,
    statistics: Vec<Guarded<f32>>,
    base: Option<Guarded<f32>>,
    merged: Option<Guarded<f32>>,
    totals: Guarded<f64>,
    scratch: Guarded<f32>,
    /// The totals as they were.
    original_totals: Vec<f64>,
}

impl<'a> Call<'a> {
    fn new(
        bound: &Bound,
        case: &'a Case,
        setup: &'a Setup<'a>,
        offset: usize,
        len: usize,
        totals: &[f64],
    ) -> Self {
        let block = |values: &[f32]| Guarded::new(&values[offset..offset + len], BAND);
        let matrix = bound.method().has(flags::MATRIX);
        let scratch_len = bound.plan().scratch_per_element * len;
        Self {
            case,
            setup,
            offset,
            len,
            experts: case.experts.iter().map(|expert| block(expert)).collect(),
            statistics: (case.statistics.iter().take(case.experts.len()))
                .map(|values| if matrix { Guarded::new(values, BAND) } else { block(values) })
                .collect(),
            base: bound.method().has(flags::NEEDS_BASE).then(|| block(&case.base)),
            merged: (bound.method().kind() == Kind::Mask).then(|| block(&case.merged)),
            totals: Guarded::new(totals, f64::from(BAND)),
            scratch: Guarded::new(&vec![setup.scratch_fill; scratch_len], BAND),
            original_totals: totals.to_vec(),
        }
    }

    fn make(
        &mut self,
        function: impl FnOnce(&BlockInputs<'_>, &[f64], &mut [f32]) -> Result<(), PluginError>,
    ) -> Result<(), PluginError> {
        let experts: Vec<ExpertBlock<'_>> = (self.experts.iter().enumerate())
            .map(|(k, expert)| match self.setup.factors.get(k) {
                Some(Some(factors)) => ExpertBlock::LowRank(factors),
                _ => ExpertBlock::Dense(expert.content()),
            })
            .collect();
        let inputs = BlockInputs {
            key: "model.layers.0.weight",
            shape: &self.case.shape,
            offset: self.offset,
            len: self.len,
            experts: &experts,
            statistics: &self.statistics.iter().map(Guarded::content).collect::<Vec<_>>(),
            base: self.base.as_ref().map(Guarded::content),
            merged: self.merged.as_ref().map(Guarded::content),
            seed: self.case.seed,
            hooks: &self.setup.hooks,
        };
        function(&inputs, self.totals.content(), self.scratch.content_mut())
    }

    /// Notes every buffer that is not as it was and should be.
    fn report(&self, trespasses: &mut Vec<&'static str>) {
        let range = self.offset..self.offset + self.len;
        let untouched = |buffer: &Guarded<f32>, original: &[f32]| {
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            buffer.is_intact()
                && bits(std::hint::black_box(buffer.content())) == bits(&original[range.clone()])
        };
        let experts =
            self.experts.iter().zip(&self.case.experts).all(|(buffer, expert)| untouched(buffer, expert));
        note(trespasses, "to an expert", experts);
        note(trespasses, "to statistics", self.statistics.iter().all(Guarded::is_intact));
        note(
            trespasses,
            "to the base",
            self.base.as_ref().is_none_or(|base| untouched(base, &self.case.base)),
        );
        note(
            trespasses,
            "to τ",
            self.merged.as_ref().is_none_or(|merged| untouched(merged, &self.case.merged)),
        );
        let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let totals = bits(std::hint::black_box(self.totals.content())) == bits(&self.original_totals);
        note(trespasses, "to the totals", totals && self.totals.is_intact());
        note(trespasses, "outside of the scratch", self.scratch.is_intact());
    }
}
