//! The two kinds of method.

use skillweld_plugin_abi as abi;

use crate::{Block, Masks, Params, Spec};

/// Experts → one tensor, or one task vector with [`Spec::task_vectors`].
///
/// A method is a type without values: it keeps no state, so none of the functions takes `self`, and each depends on its
/// arguments alone. They may run on several threads at once. A panic in one becomes an error of the merge.
pub trait MergeMethod: Send + Sync + 'static {
    /// Who it is and what it needs.
    fn spec() -> Spec;

    /// Passes over the data before [`run`](Self::run), for these parameters. Default: none.
    fn plan(params: &Params<'_>) -> Result<Plan> {
        let _ = params;
        Ok(Plan::default())
    }

    /// *Adds* one block's statistics of pass `pass` to `sums`, which is as long as the plan says. Totals of earlier
    /// passes stand in [`Block::totals`].
    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        let _ = (block, pass, sums);
        Ok(())
    }

    /// Fills `out`, [`Block::len`] values.
    fn run(block: &Block<'_>, out: &mut [f32]) -> Result;

    /// A kernel that does what [`run`](Self::run) does, for methods that work in blocks. Default: none.
    const CUDA: Option<CudaCode> = None;
}

/// Task vectors of the experts and the merged one → one bit an element and expert.
///
/// As stateless as [`MergeMethod`].
pub trait MaskMethod: Send + Sync + 'static {
    /// Who it is and what it needs.
    fn spec() -> Spec;

    /// Passes over the data before [`run`](Self::run), for these parameters. Default: none.
    fn plan(params: &Params<'_>) -> Result<Plan> {
        let _ = params;
        Ok(Plan::default())
    }

    /// *Adds* one block's statistics of pass `pass` to `sums`.
    fn observe(block: &Block<'_>, pass: usize, sums: &mut [f64]) -> Result {
        let _ = (block, pass, sums);
        Ok(())
    }

    /// Sets the bits of what each expert keeps of [`Block::merged`].
    fn run(block: &Block<'_>, masks: &mut Masks<'_>) -> Result;

    /// A kernel that does what [`run`](Self::run) does, for methods that work in blocks. Default: none.
    const CUDA: Option<CudaCode> = None;

    /// With [`Spec::rescales`]: one factor an expert, from [`Block::totals`]; the block holds no tensor data.
    fn rescale(block: &Block<'_>, rescalers: &mut [f32]) -> Result {
        let _ = block;
        rescalers.fill(1.0);
        Ok(())
    }
}

/// Device code of a method: `CudaCode::new(include_bytes!("../device/mine.fatbin"), "mine_run", 256)`.
///
/// The kernel gives the same bits as `run`; `skillweld_cuda.h` says what it is handed. It cannot fail, so a method that
/// refuses parameters does so in `plan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaCode {
    pub(crate) image: &'static [u8],
    pub(crate) run: &'static str,
    pub(crate) threads: u32,
}

impl CudaCode {
    /// `image` is a fatbin as nvcc writes it, `run` the kernel's name in it, `threads` those of a block: a multiple of 32,
    /// at most 1024, and what the source says in `SKW_KERNEL`.
    pub const fn new(image: &'static [u8], run: &'static str, threads: u32) -> Self {
        Self { image, run, threads }
    }
}

/// How a method wants to be run with given parameters. The default: no passes, no scratch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub(crate) global: bool,
    pub(crate) sums: Vec<usize>,
    pub(crate) scratch_per_element: usize,
    pub(crate) sample: [usize; abi::MAX_PASSES],
    pub(crate) whole: bool,
}

impl Plan {
    /// Passes whose sums run over each tensor by itself; one length of sums a pass.
    pub fn per_tensor(sums: impl Into<Vec<usize>>) -> Self {
        Self { sums: sums.into(), ..Self::default() }
    }

    /// Passes whose sums run over all tensors of the merge; one length of sums a pass.
    pub fn global(sums: impl Into<Vec<usize>>) -> Self {
        Self { global: true, ..Self::per_tensor(sums) }
    }

    /// Asks for `count` f32 of scratch for each element of a block: [`Block::take_scratch`].
    pub fn scratch_per_element(mut self, count: usize) -> Self {
        self.scratch_per_element = count;
        self
    }

    /// One element of `one_of`, taken anywhere, is enough for pass `pass`: its blocks may be shorter than those of other
    /// passes, with gaps between them. A host may show it all elements nevertheless.
    ///
    /// # Panics
    /// When there is no such pass.
    pub fn sample(mut self, pass: usize, one_of: usize) -> Self {
        assert!(pass < self.passes(), "pass {pass} of {}", self.passes());
        self.sample[pass] = one_of;
        self
    }

    /// Each tensor comes in one piece, of whatever dimensions: for parameters with which an elementwise method needs a
    /// tensor's rows, or the order of its elements. It costs memory; sums over passes do not.
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Number of passes.
    pub fn passes(&self) -> usize {
        self.sums.len()
    }
}

/// Why a method did not finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It failed; the text says why, and what to do about it.
    Failed(String),
    /// The user asked it to stop.
    Cancelled,
}

/// Result of a method's functions. `Err("why".into())` is enough to fail.
pub type Result<T = ()> = core::result::Result<T, Stop>;

impl From<String> for Stop {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for Stop {
    fn from(message: &str) -> Self {
        Self::Failed(message.to_owned())
    }
}
