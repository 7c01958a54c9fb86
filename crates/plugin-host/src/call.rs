use core::ops::ControlFlow;
use core::ptr::{null, null_mut};

use skillweld_plugin_abi::{self as abi, flags, status};
use skillweld_tensor::{BitMask, LowRank, numel, row_len};

use crate::few::Few;
use crate::hooks::Context;
use crate::{Bound, HostHooks, Kind, Method, PluginError};

/// One block of one tensor, as all experts have it. Values are f32, row-major.
#[derive(Debug, Clone, Copy)]
pub struct BlockInputs<'a> {
    /// Name of the tensor.
    pub key: &'a str,
    /// Shape of the whole tensor.
    pub shape: &'a [usize],
    /// First element of the block within the flattened tensor; a multiple of 8.
    pub offset: usize,
    /// Elements in the block; whole rows for methods with [`flags::ROWS`], all of the tensor where the plan says `whole`.
    pub len: usize,
    /// Task vectors or weights, one an expert (see [`Method::takes_task_vectors`]).
    pub experts: &'a [ExpertBlock<'a>],
    /// With [`flags::NEEDS_STATISTICS`] one an expert, ignored without: `len` values, or for methods with
    /// [`flags::MATRIX`] and a tensor of m × n all n × n of its inputs.
    pub statistics: &'a [&'a [f32]],
    /// Θ₀, `len` values; needed with [`flags::NEEDS_BASE`], ignored without.
    pub base: Option<&'a [f32]>,
    /// The merged task vector τ, `len` values; needed by mask methods, ignored by merge methods.
    pub merged: Option<&'a [f32]>,
    /// Differs for every tensor and recipe seed; the same for every block of a tensor.
    pub seed: u64,
    /// What the plugin may tell and ask meanwhile.
    pub hooks: &'a HostHooks<'a>,
}

/// One expert's values in a block.
#[derive(Debug, Clone, Copy)]
pub enum ExpertBlock<'a> {
    /// `len` values.
    Dense(&'a [f32]),
    /// The whole matrix as factors; only for methods with [`flags::LOW_RANK`].
    LowRank(&'a LowRank),
}

/// What a method said in a call that went well.
struct Called {
    /// The pass has nothing to add.
    settled: bool,
    /// The way by which it computed.
    path: Option<String>,
}
/// An expert of which nothing is handed over.
const ABSENT: abi::Tensor =
    abi::Tensor { dense: null(), b: null(), a: null(), rank: 0, statistics: null(), statistics_len: 0 };

/// Experts and dimensions that take no allocation in a call.
const FEW: usize = 16;

/// Bits of the NaN in an element of the output that a method has not written; no arithmetic gives its payload.
pub const UNWRITTEN_BITS: u32 = 0x7fe5_b10d;

impl Bound {
    /// Adds the block's statistics of `pass` (from 0) to `sums`, which is `plan().sums_len[pass]` long.
    ///
    /// `totals` are those of the earlier passes, one after the other; `scratch` holds at least
    /// `plan().scratch_per_element * block.len` values and is overwritten. `Break`: the method has nothing to add in any
    /// block of this pass; its sums are zeros.
    ///
    /// # Errors
    /// [`PluginError::BadCall`] when a length does not fit, else what the method fails with.
    pub fn observe(
        &self,
        block: &BlockInputs<'_>,
        pass: usize,
        totals: &[f64],
        sums: &mut [f64],
        scratch: &mut [f32],
    ) -> Result<ControlFlow<()>, PluginError> {
        let Some(observe) = self.method.functions().observe.filter(|_| pass < self.plan().passes()) else {
            return Err(self.bad_call(block.key, format!("there is no observe pass {pass}")));
        };
        let range = self.plan().totals_of(pass);
        self.check_len(block.key, "sums", sums.len(), range.len())?;
        self.check_len(block.key, "totals", totals.len(), range.start)?;
        let called = self.with_call(block, totals, null_mut(), null(), scratch, |call| {
            // SAFETY: `with_call` has checked and filled in everything; `sums` has the length that the plan asked for.
            unsafe { observe(call, pass as u32, sums.as_mut_ptr()) }
        })?;
        Ok(if called.settled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// Runs a merge method: fills `out`, `block.len` values; in builds with debug assertions an element that the method
    /// leaves out comes back as NaN ([`UNWRITTEN_BITS`]). `totals` are those of all passes; `scratch` as in
    /// [`observe`](Self::observe). Gives the way by which the method says that it computed, such as `factored`.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub fn run(
        &self,
        block: &BlockInputs<'_>,
        totals: &[f64],
        out: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<Option<String>, PluginError> {
        if self.method.kind() != Kind::Merge {
            return Err(self.bad_call(block.key, "a mask method gives masks, not values".into()));
        }
        self.check_len(block.key, "output", out.len(), block.len)?;
        self.check_len(block.key, "totals", totals.len(), self.plan().totals_len())?;
        if cfg!(debug_assertions) {
            // What the buffer held of another block must not pass for a result.
            out.fill(f32::from_bits(UNWRITTEN_BITS));
        }
        let called =
            self.with_call(block, totals, out.as_mut_ptr(), null(), scratch, |call| self.call_run(call));
        called.map(|called| called.path)
    }

    /// Runs a mask method: fills one mask an expert, `ceil(block.len / 8)` bytes each; element 8j + i of the block is
    /// bit i of byte j, bits past the end come out zero whatever the plugin wrote.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    pub fn run_mask(
        &self,
        block: &BlockInputs<'_>,
        totals: &[f64],
        masks: &mut [&mut [u8]],
        scratch: &mut [f32],
    ) -> Result<(), PluginError> {
        if self.method.kind() != Kind::Mask {
            return Err(self.bad_call(block.key, "a merge method gives values, not masks".into()));
        }
        self.check_len(block.key, "list of masks", masks.len(), self.expert_count)?;
        for mask in masks.iter_mut() {
            self.check_len(block.key, "mask", mask.len(), BitMask::byte_len(block.len))?;
            mask.fill(0);
        }
        self.check_len(block.key, "totals", totals.len(), self.plan().totals_len())?;
        let pointers = Few::<_, FEW>::collect(null_mut(), masks.iter_mut().map(|mask| mask.as_mut_ptr()));
        let pointers = pointers.as_slice().as_ptr();
        self.with_call(block, totals, null_mut(), pointers, scratch, |call| self.call_run(call)).map(drop)?;
        let tail = block.len % 8;
        for mask in masks.iter_mut().filter(|_| tail != 0) {
            if let Some(last) = mask.last_mut() {
                *last &= (1 << tail) - 1;
            }
        }
        Ok(())
    }

    /// The rescaler of each expert, from the totals of all passes: for mask methods with [`flags::EMITS_MASKS`].
    ///
    /// # Errors
    /// As [`observe`](Self::observe); a rescaler that is NaN or infinite is [`PluginError::Failed`].
    pub fn rescale(&self, totals: &[f64], hooks: &HostHooks<'_>) -> Result<Vec<f32>, PluginError> {
        let gives = self.method.kind() == Kind::Mask && self.method.has(flags::EMITS_MASKS);
        let Some(rescale) = self.method.functions().rescale.filter(|_| gives) else {
            return Err(self.bad_call("", "the method gives no rescalers".into()));
        };
        self.check_len("", "totals", totals.len(), self.plan().totals_len())?;
        let mut rescalers = vec![f32::NAN; self.expert_count];
        let (context, params) = (Context::new(hooks), self.abi_params());
        let host = context.host();
        let call = abi::Call {
            totals: totals.as_ptr(),
            totals_len: totals.len() as u64,
            ..self.blank(&host, &params)
        };
        // SAFETY: pointers in `call` are null or good for the lengths beside them; one rescaler an expert is allocated.
        let status = unsafe { rescale(&raw const call, rescalers.as_mut_ptr()) };
        check_status(status, context, &self.method, "")?;
        match rescalers.iter().position(|rescaler| !rescaler.is_finite()) {
            None => Ok(rescalers),
            Some(k) => Err(PluginError::Failed {
                method: self.method.id().into(),
                key: String::new(),
                message: format!("the rescaler of expert {k} is {}", rescalers[k]),
            }),
        }
    }

    fn call_run(&self, call: *const abi::Call) -> i32 {
        match self.method.functions().run {
            // SAFETY: `with_call` has checked and filled in everything, and the caller the output behind it.
            Some(run) => unsafe { run(call) },
            None => status::ERROR, // the handshake lets no method without `run` through
        }
    }

    /// Builds the call, makes it and translates its status. `out` and
    /// `masks` are null or as [`abi::Call`] asks.
    fn with_call(
        &self,
        block: &BlockInputs<'_>,
        totals: &[f64],
        out: *mut f32,
        masks: *const *mut u8,
        scratch: &mut [f32],
        function: impl FnOnce(*const abi::Call) -> i32,
    ) -> Result<Called, PluginError> {
        let numel = self.check_block(block)?;
        let scratch_len = self.check_scratch(block, scratch.len())?;
        let shape = Few::<_, FEW>::collect(0, block.shape.iter().map(|&d| d as u64));
        let needs_statistics = self.method.has(flags::NEEDS_STATISTICS);
        let tensors = block.experts.iter().enumerate().map(|(k, expert)| match block.statistics.get(k) {
            Some(values) if needs_statistics => abi::Tensor {
                statistics: values.as_ptr(),
                statistics_len: values.len() as u64,
                ..expert.to_abi()
            },
            _ => expert.to_abi(),
        });
        let experts = Few::<_, FEW>::collect(ABSENT, tensors);
        let needs_base = self.method.has(flags::NEEDS_BASE);
        let is_mask = self.method.kind() == Kind::Mask;
        let (context, params) = (Context::new(block.hooks), self.abi_params());
        let host = context.host();
        let call = abi::Call {
            key: abi::Str::borrow(block.key),
            shape: shape.as_slice().as_ptr(),
            ndim: block.shape.len() as u64,
            numel: numel as u64,
            offset: block.offset as u64,
            len: block.len as u64,
            seed: block.seed,
            experts: experts.as_slice().as_ptr(),
            base: block.base.filter(|_| needs_base).map_or(null(), <[f32]>::as_ptr),
            merged: block.merged.filter(|_| is_mask).map_or(null(), <[f32]>::as_ptr),
            totals: totals.as_ptr(),
            totals_len: totals.len() as u64,
            out,
            masks,
            scratch: if scratch_len == 0 { null_mut() } else { scratch.as_mut_ptr() },
            scratch_len: scratch_len as u64,
            ..self.blank(&host, &params)
        };
        let status = function(&raw const call);
        let called = Called { settled: context.is_settled(), path: context.take_path() };
        check_status(status, context, &self.method, block.key)?;
        Ok(called)
    }

    /// A call without tensor data.
    fn blank(&self, host: &abi::Host, params: &abi::Params) -> abi::Call {
        abi::Call {
            size: size_of::<abi::Call>() as u64,
            host,
            params,
            key: abi::Str::new(""),
            shape: null(),
            ndim: 0,
            numel: 0,
            offset: 0,
            len: 0,
            seed: 0,
            expert_count: self.expert_count as u64,
            experts: null(),
            expert_stride: size_of::<abi::Tensor>() as u64,
            base: null(),
            merged: null(),
            totals: null(),
            totals_len: 0,
            out: null_mut(),
            masks: null(),
            scratch: null_mut(),
            scratch_len: 0,
        }
    }

    /// Checks every input of a call against the block; gives the elements of the whole tensor.
    fn check_block(&self, block: &BlockInputs<'_>) -> Result<usize, PluginError> {
        let bad = |reason: String| self.bad_call(block.key, reason);
        let numel = numel(block.shape)
            .ok_or_else(|| bad(format!("shape {:?} has more elements than fit into memory", block.shape)))?;
        let (offset, len) = (block.offset, block.len);
        if offset % 8 != 0 {
            return Err(bad(format!("a block must start at a multiple of 8, not at {offset}")));
        }
        if offset.checked_add(len).is_none_or(|end| end > numel) {
            return Err(bad(format!(
                "a block of {len} at {offset} reaches past the tensor's {numel} elements"
            )));
        }
        if self.plan().whole && len != numel {
            return Err(bad(format!("the method wants whole tensors, not {len} of {numel} elements")));
        }
        let row = row_len(block.shape);
        if self.method.has(flags::ROWS) && (offset % row != 0 || len % row != 0) {
            return Err(bad(format!(
                "the method wants whole rows of {row}, not {len} elements from {offset} on"
            )));
        }
        self.check_len(block.key, "list of experts", block.experts.len(), self.expert_count)?;
        for expert in block.experts {
            match expert {
                ExpertBlock::Dense(values) => self.check_len(block.key, "expert", values.len(), len)?,
                ExpertBlock::LowRank(_) if !self.method.has(flags::LOW_RANK) => {
                    return Err(bad("the method does not take experts as factors: multiply them out".into()));
                }
                ExpertBlock::LowRank(factors) if factors.shape()[..] != *block.shape => {
                    return Err(bad(format!(
                        "factors of shape {:?} in a tensor of {:?}",
                        factors.shape(),
                        block.shape
                    )));
                }
                ExpertBlock::LowRank(_) => {}
            }
        }
        if self.method.has(flags::NEEDS_STATISTICS) {
            self.check_len(block.key, "list of statistics", block.statistics.len(), self.expert_count)?;
            let needed = match block.shape {
                [_, columns] if self.method.has(flags::MATRIX) => columns * columns,
                _ => len,
            };
            let mut statistics = block.statistics.iter();
            statistics
                .try_for_each(|values| self.check_len(block.key, "statistics", values.len(), needed))?;
        }
        let wanted = [
            ("base", self.method.has(flags::NEEDS_BASE), block.base),
            ("merged task vector", self.method.kind() == Kind::Mask, block.merged),
        ];
        for (what, wanted, values) in wanted {
            match values {
                Some(values) if wanted => self.check_len(block.key, what, values.len(), len)?,
                None if wanted => return Err(bad(format!("the method needs the {what}"))),
                _ => {}
            }
        }
        Ok(numel)
    }

    /// The f32 of scratch that the method gets, of `available`.
    fn check_scratch(&self, block: &BlockInputs<'_>, available: usize) -> Result<usize, PluginError> {
        match self.plan().scratch_per_element.checked_mul(block.len) {
            Some(needed) if needed <= available => Ok(needed),
            needed => {
                let needed =
                    needed.map_or("more floats than fit into memory".into(), |n| format!("{n} floats"));
                Err(self
                    .bad_call(block.key, format!("the method needs scratch of {needed}, got {available}")))
            }
        }
    }

    fn check_len(&self, key: &str, what: &str, actual: usize, expected: usize) -> Result<(), PluginError> {
        if actual == expected {
            return Ok(());
        }
        Err(self.bad_call(key, format!("the {what} has length {actual}, needed is {expected}")))
    }

    fn bad_call(&self, key: &str, reason: String) -> PluginError {
        PluginError::BadCall { method: self.method.id().into(), key: key.into(), reason }
    }
}

impl ExpertBlock<'_> {
    fn to_abi(self) -> abi::Tensor {
        match self {
            Self::Dense(values) => abi::Tensor { dense: values.as_ptr(), ..ABSENT },
            // `LowRank` keeps both factors row-major without gaps.
            Self::LowRank(factors) => abi::Tensor {
                b: factors.b().as_ptr(),
                a: factors.a().as_ptr(),
                rank: factors.rank() as u64,
                ..ABSENT
            },
        }
    }
}

/// Turns what a plugin's function returned, with the message it pushed, into a result.
pub(crate) fn check_status(
    code: i32,
    context: Context<'_>,
    method: &Method,
    key: &str,
) -> Result<(), PluginError> {
    if code == status::OK {
        return Ok(());
    }
    let (method, key, message) = (method.id().to_owned(), key.to_owned(), context.into_message());
    Err(match code {
        status::ERROR => PluginError::Failed { method, key, message },
        status::PANIC => PluginError::Panicked { method, key, message },
        status::CANCELLED => PluginError::Cancelled { method, key },
        status => PluginError::UnknownStatus { method, key, status, message },
    })
}
