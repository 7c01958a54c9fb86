//! What a method sees of one call.

use core::cell::Cell;
use core::marker::PhantomData;
use core::ops::Deref;

use skillweld_plugin_abi as abi;

use crate::params::Slot;
use crate::{Params, Random, Result, Stop, raw};

/// One block of one tensor: the experts' values, parameters, totals of earlier passes, callbacks into the host.
///
/// Parameters are read from it directly: `block.number("lambda")` (see [`Params`]). All values are f32, row-major.
pub struct Block<'a> {
    call: abi::Call,
    host: abi::Host,
    params: Params<'a>,
    /// A flag, not the slice itself: that would forbid to shorten `'a`.
    scratch_taken: Cell<bool>,
    borrows: PhantomData<&'a abi::Call>,
}

impl<'a> Deref for Block<'a> {
    type Target = Params<'a>;

    fn deref(&self) -> &Params<'a> {
        &self.params
    }
}

/// τ_k = B·A of one expert, any scale folded in.
#[derive(Debug, Clone, Copy)]
pub struct Factors<'a> {
    /// m × rank, row-major.
    pub b: &'a [f32],
    /// rank × n, row-major.
    pub a: &'a [f32],
    /// Columns of B, rows of A.
    pub rank: usize,
}

/// How urgent a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Something failed.
    Error = 1,
    /// The result may not be what the user wants.
    Warning = 2,
    /// Worth knowing.
    Info = 3,
    /// For the method's author.
    Debug = 4,
}

impl<'a> Block<'a> {
    /// # Safety
    /// `call` is as the boundary's documentation describes it, and valid for `'a`.
    pub(crate) unsafe fn new(call: &'a abi::Call, slots: &'a [Slot]) -> Option<Self> {
        // SAFETY: the caller's promise: each pointer is valid, or null.
        unsafe {
            let params = raw::read_sized(call.params)?;
            Some(Self {
                call: *call,
                host: raw::read_sized(call.host)?,
                params: Params::new(&params, slots),
                scratch_taken: Cell::new(false),
                borrows: PhantomData,
            })
        }
    }

    /// Name of the tensor.
    pub fn key(&self) -> &'a str {
        // SAFETY: valid for 'a by `new`.
        unsafe { raw::text(self.call.key) }
    }

    /// Shape of the whole tensor.
    pub fn shape(&self) -> &'a [u64] {
        // SAFETY: valid for 'a by `new`.
        unsafe { raw::slice(self.call.shape, self.call.ndim as usize) }
    }

    /// Elements of the whole tensor.
    pub fn numel(&self) -> u64 {
        self.call.numel
    }

    /// Elements of a row, of which a block of a method with [`Spec::rows`](crate::Spec::rows) has whole ones: what lies
    /// under one index of the first axis, or all of a vector.
    pub fn row_len(&self) -> u64 {
        match self.shape() {
            [_, rest @ ..] if !rest.is_empty() => rest.iter().product(),
            _ => self.numel(),
        }
    }

    /// First element of this block within the flattened tensor, a multiple of 8.
    pub fn offset(&self) -> u64 {
        self.call.offset
    }

    /// Elements in this block.
    pub fn len(&self) -> usize {
        self.call.len as usize
    }

    /// True for the block of a tensor without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of expert `k`: its task vector with [`Spec::task_vectors`](crate::Spec::task_vectors), else its weights.
    /// Empty when it comes as factors.
    pub fn expert(&self, k: usize) -> &'a [f32] {
        // SAFETY: `dense` is null or points to `len` values, valid for 'a by `new`.
        unsafe { raw::slice(self.tensor(k).dense, self.len()) }
    }

    /// Values of all experts.
    pub fn all_experts(&self) -> Vec<&'a [f32]> {
        (0..self.experts()).map(|k| self.expert(k)).collect()
    }

    /// Factors of expert `k`; `None` when it comes dense. The whole tensor, whatever the block.
    pub fn low_rank(&self, k: usize) -> Option<Factors<'a>> {
        let tensor = self.tensor(k);
        let &[rows, columns] = self.shape() else { return None };
        if tensor.rank == 0 {
            return None;
        }
        let rank = tensor.rank as usize;
        // SAFETY: B is rows × rank and A rank × columns, valid for 'a by `new`; null gives an empty slice.
        unsafe {
            Some(Factors {
                b: raw::slice(tensor.b, rows as usize * rank),
                a: raw::slice(tensor.a, rank * columns as usize),
                rank,
            })
        }
    }

    /// Statistics of expert `k`, with [`Spec::needs_statistics`](crate::Spec::needs_statistics): one value an element of the
    /// block, or for matrix methods and a tensor of m × n the n × n matrix of its inputs, row-major. Finite.
    ///
    /// # Errors
    /// When the host hands over none: it is older than 1.3.
    pub fn statistics(&self, k: usize) -> Result<&'a [f32]> {
        let tensor = self.tensor(k);
        if tensor.statistics.is_null() {
            return Err("this version of the host knows no statistics of experts: use a newer one".into());
        }
        // SAFETY: not null, so that many values, valid for 'a by `new`.
        Ok(unsafe { raw::slice(tensor.statistics, tensor.statistics_len as usize) })
    }

    /// Θ₀ with [`Spec::needs_base`](crate::Spec::needs_base), else empty.
    pub fn base(&self) -> &'a [f32] {
        // SAFETY: null or `len` values, valid for 'a by `new`.
        unsafe { raw::slice(self.call.base, self.len()) }
    }

    /// Mask methods: the merged task vector τ. Else empty.
    pub fn merged(&self) -> &'a [f32] {
        // SAFETY: null or `len` values, valid for 'a by `new`.
        unsafe { raw::slice(self.call.merged, self.len()) }
    }

    /// Totals of all finished passes, one pass after the other.
    pub fn totals(&self) -> &'a [f64] {
        // SAFETY: null or `totals_len` values, valid for 'a by `new`.
        unsafe { raw::slice(self.call.totals, self.call.totals_len as usize) }
    }

    /// The scratch that the plan asked for, with whatever was in it. The second call gives an empty slice.
    pub fn take_scratch(&self) -> &'a mut [f32] {
        if self.scratch_taken.replace(true) {
            return &mut [];
        }
        // SAFETY: null or `scratch_len` values, valid for 'a by `new`, this call's alone, and handed out only once.
        unsafe { raw::slice_mut(self.call.scratch, self.call.scratch_len as usize) }
    }

    /// Differs for every tensor and recipe seed; the same for every block of a tensor.
    pub fn seed(&self) -> u64 {
        self.call.seed
    }

    /// Random numbers for expert `k`, indexed by the element within the tensor ([`Block::offset`]).
    pub fn random(&self, k: usize) -> Random {
        Random::new(self.seed(), k as u32)
    }

    /// Writes a line to the host's log.
    pub fn log(&self, level: Level, message: &str) {
        if let Some(log) = self.host.log {
            // SAFETY: the host's own callback and context, during the call.
            unsafe { log(self.host.context, level as u32, abi::Str::borrow(message)) }
        }
    }

    /// Tells the host which fraction (0..=1) of a long call is done.
    pub fn progress(&self, fraction: f64) {
        if let Some(progress) = self.host.progress {
            // SAFETY: the host's own callback and context, during the call.
            unsafe { progress(self.host.context, fraction) }
        }
    }

    /// Tells the host, in `observe`, that this pass has nothing to add, here or in any other block, because
    /// [`totals`](Self::totals) settle already what it is for. The host may leave out the rest of the pass; its sums are
    /// then zeros.
    pub fn settled(&self) {
        if let Some(settled) = self.host.settled {
            // SAFETY: the host's own callback and context, during the call.
            unsafe { settled(self.host.context) }
        }
    }

    /// Tells the host, in `run`, by which of its ways the method computes this tensor, such as `factored` or `dense`: the
    /// report of a merge counts tensors by it. The last one counts.
    pub fn path(&self, name: &str) {
        if let Some(path) = self.host.path {
            // SAFETY: the host's own callback and context, during the call.
            unsafe { path(self.host.context, abi::Str::borrow(name)) }
        }
    }

    /// `Err(Stop::Cancelled)` when the user wants to stop: `block.check_cancelled()?` now and then in a long call.
    pub fn check_cancelled(&self) -> Result {
        // SAFETY: the host's own callback and context, during the call.
        let cancelled =
            self.host.cancelled.is_some_and(|cancelled| unsafe { cancelled(self.host.context) } != 0);
        if cancelled { Err(Stop::Cancelled) } else { Ok(()) }
    }

    fn tensor(&self, k: usize) -> abi::Tensor {
        assert!(k < self.experts(), "expert {k} of {}", self.experts());
        if self.call.experts.is_null() {
            // In `rescale` there is no tensor data.
            return abi::Tensor {
                dense: core::ptr::null(),
                b: core::ptr::null(),
                a: core::ptr::null(),
                rank: 0,
                statistics: core::ptr::null(),
                statistics_len: 0,
            };
        }
        let stride = self.call.expert_stride as usize;
        // SAFETY: `expert_count` tensors stand `expert_stride` bytes apart, each that long, valid for 'a by `new`.
        unsafe { raw::read(self.call.experts.byte_add(k * stride), stride) }
    }
}
