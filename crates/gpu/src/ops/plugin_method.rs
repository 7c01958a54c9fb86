//! Device code that came with a plugin.

use core::ptr::{null, null_mut, without_provenance, without_provenance_mut};

use skillweld_plugin_abi::CudaCall;
use skillweld_tensor::{BitMask, Dtype};

use super::pieces::{EIGHT, table};
use super::table::Table;
use crate::error::require;
use crate::{Argument, Launch, Result, Target, View, ViewMut};

const OPERATION: &str = "plugin method";

/// A kernel of a plugin.
#[derive(Debug, Clone, Copy)]
pub struct PluginKernel<'a> {
    /// The image that holds it.
    pub image: &'static [u8],
    /// Its name.
    pub name: &'a str,
    /// Threads of a block.
    pub threads: u32,
}

/// One block of one tensor in the GPU's memory. Values are f32 and have room up to the next multiple of 8 elements.
#[derive(Debug)]
pub struct PluginBlock<'a> {
    /// Elements in the block.
    pub len: usize,
    /// First element of the block within the flattened tensor; a multiple of 8.
    pub offset: usize,
    /// Elements of the whole tensor.
    pub numel: usize,
    /// The same for every block of a tensor.
    pub seed: u64,
    /// Task vectors or weights, one an expert.
    pub experts: Vec<View<'a>>,
    /// Θ₀, where the method reads it.
    pub base: Option<View<'a>>,
    /// The merged task vector, for mask methods.
    pub merged: Option<View<'a>>,
    /// Totals of all passes, F64; none where there are no passes.
    pub totals: Option<View<'a>>,
    /// Parameters that all experts share.
    pub global: &'a [f64],
    /// The others: that of the j-th for expert k at `j * experts + k`.
    pub per_expert: &'a [f64],
}

/// What comes out.
#[derive(Debug)]
pub enum PluginOutput<'a> {
    /// Of a merge method: f32, as long as the experts.
    Values(ViewMut<'a>),
    /// Of a mask method, one an expert: U8, zeroed, ceil(len / 8) bytes.
    Masks(Vec<ViewMut<'a>>),
}

/// Runs a plugin's kernel over a block.
///
/// Twin: the method's own `run`, by the boundary's promise; the same bits.
///
/// # Errors
/// Operands that do not fit; an image that does not load; whatever the target refuses.
pub fn run_plugin<T: Target>(
    target: &T,
    call: &mut Table<T>,
    kernel: PluginKernel<'_>,
    block: &PluginBlock<'_>,
    output: &PluginOutput<'_>,
) -> Result<()> {
    check(block, output)?;
    if block.len == 0 {
        return Ok(());
    }
    let masks: &[ViewMut<'_>] = match output {
        PluginOutput::Values(_) => &[],
        PluginOutput::Masks(masks) => masks,
    };
    // The call, then what it points to.
    let arrays = [
        size_of::<CudaCall>(),
        8 * block.experts.len(),
        8 * masks.len(),
        8 * block.global.len(),
        8 * block.per_expert.len(),
    ];
    let address = call.room(target, arrays.iter().sum())?;
    let at = |array: usize| address + arrays[..array].iter().sum::<usize>() as u64;
    let bytes = {
        let mut bytes = head(block, output, &at);
        bytes.extend(table(block.experts.iter().map(|expert| expert.address)));
        bytes.extend(table(masks.iter().map(|mask| mask.address)));
        bytes.extend(block.global.iter().chain(block.per_expert).flat_map(|value| value.to_le_bytes()));
        bytes
    };
    let address = call.write(target, &bytes)?;
    let PluginKernel { image, name, threads } = kernel;
    let wanted = block.len.div_ceil(EIGHT).div_ceil(threads.max(1) as usize) as u64;
    let at_once = u64::from(target.resident_blocks_in(image, name, threads, 0)?.max(1));
    let launch = Launch {
        kernel: name,
        grid: [wanted.min(at_once) as u32, 1, 1],
        threads,
        shared_bytes: 0,
        cooperative: false,
        arguments: &[Argument::U64(address)],
    };
    // SAFETY: the call was made from operands that were checked above, are borrowed until the launch is asked for, and are
    // used and freed in the target's order. That the kernel keeps to them is the plugin's promise, as it is for its
    // functions on the CPU.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        target.launch_in(image, &launch)
    }
}

/// The call itself; `at` says where the arrays behind it begin.
fn head(block: &PluginBlock<'_>, output: &PluginOutput<'_>, at: &impl Fn(usize) -> u64) -> Vec<u8> {
    let pointer = |view: Option<View<'_>>| view.map_or(0, |view| view.address as usize);
    let experts = block.experts.len();
    let call = CudaCall {
        size: size_of::<CudaCall>() as u64,
        len: block.len as u64,
        offset: block.offset as u64,
        numel: block.numel as u64,
        seed: block.seed,
        expert_count: experts as u64,
        experts: without_provenance(at(1) as usize),
        base: without_provenance(pointer(block.base)),
        merged: without_provenance(pointer(block.merged)),
        totals: without_provenance(pointer(block.totals)),
        totals_len: block.totals.map_or(0, |totals| totals.numel as u64),
        global: without_provenance(at(3) as usize),
        global_count: block.global.len() as u64,
        per_expert: without_provenance(at(4) as usize),
        per_expert_count: (block.per_expert.len() / experts.max(1)) as u64,
        out: match output {
            PluginOutput::Values(out) => without_provenance_mut(out.address as usize),
            PluginOutput::Masks(_) => null_mut(),
        },
        masks: match output {
            PluginOutput::Values(_) => null(),
            PluginOutput::Masks(_) => without_provenance(at(2) as usize),
        },
    };
    // SAFETY: integers and pointers of eight bytes each, without gaps.
    #[expect(unsafe_code, reason = "a view of the struct's bytes")]
    let bytes = unsafe { core::slice::from_raw_parts((&raw const call).cast::<u8>(), size_of::<CudaCall>()) };
    bytes.to_vec()
}

fn check(block: &PluginBlock<'_>, output: &PluginOutput<'_>) -> Result<()> {
    let (room, end) = (block.len.next_multiple_of(EIGHT), block.offset.checked_add(block.len));
    require(
        block.offset.is_multiple_of(EIGHT) && end.is_some_and(|end| end <= block.numel),
        OPERATION,
        || format!("a block of {} at {} of {} elements", block.len, block.offset, block.numel),
    )?;
    require(block.per_expert.len().is_multiple_of(block.experts.len().max(1)), OPERATION, || {
        format!("{} values of parameters for {} experts", block.per_expert.len(), block.experts.len())
    })?;
    let values = |name: &str, view: View<'_>| {
        require(
            view.dtype == Dtype::F32 && view.numel >= room && view.address.is_multiple_of(16),
            OPERATION,
            || format!("`{name}` is {} of {}, and room for {room} of F32 is needed", view.numel, view.dtype),
        )
    };
    block.experts.iter().try_for_each(|expert| values("experts", *expert))?;
    block.base.map_or(Ok(()), |base| values("base", base))?;
    block.merged.map_or(Ok(()), |merged| values("merged", merged))?;
    if let Some(totals) = block.totals {
        require(totals.dtype == Dtype::F64, OPERATION, || format!("`totals` is of {}", totals.dtype))?;
    }
    match output {
        PluginOutput::Values(out) => values("out", out.as_view()),
        PluginOutput::Masks(masks) => {
            require(masks.len() == block.experts.len(), OPERATION, || {
                format!("{} masks for {} experts", masks.len(), block.experts.len())
            })?;
            let bytes = BitMask::byte_len(block.len);
            masks.iter().try_for_each(|mask| {
                require(
                    mask.dtype == Dtype::U8 && mask.numel >= bytes && mask.address.is_multiple_of(16),
                    OPERATION,
                    || {
                        format!(
                            "a mask is {} elements of {}, and {bytes} of U8 are needed",
                            mask.numel, mask.dtype
                        )
                    },
                )
            })
        }
    }
}
