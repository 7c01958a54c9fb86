//! Blocks of a merge between their files and a method.

use skillweld_tensor::Dtype;

use super::pieces::{EIGHT, grid, suffix, table};
use super::table::Table;
use crate::error::require;
use crate::{Argument, GpuError, Launch, Result, Target, View, ViewMut};

const DECODE: &str = "blocks_decode";
const ENCODE: &str = "blocks_encode";
/// As in `kernels/src/blocks.cu`.
const THREADS: u32 = 256;

/// A block as it is stored, and where its values go.
#[derive(Debug)]
pub struct StoredBlock<'a> {
    /// BF16, F16 or F32.
    pub stored: View<'a>,
    /// Subtracted once both are f32; BF16, F16 or F32, as long.
    pub less: Option<View<'a>>,
    /// Where the values go: F32, at least as long.
    pub out: ViewMut<'a>,
}

/// True for what [`decode_blocks`] and [`encode_block`] take.
pub fn is_block_dtype(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32)
}

/// Decodes the first `numel` elements of every block in one launch: out = stored − less.
///
/// `flags` is U32, one a block: set to 1 where something stored is NaN or infinite, else left alone.
///
/// Twins: [`skillweld_tensor::convert::decode`] and [`skillweld_tensor::convert::decode_difference`]; the same bits, but for
/// those of NaN.
///
/// # Errors
/// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; whatever the target refuses.
pub fn decode_blocks<T: Target>(
    target: &T,
    rows: &mut Table<T>,
    numel: usize,
    blocks: &[StoredBlock<'_>],
    flags: &ViewMut<'_>,
) -> Result<()> {
    if numel == 0 || blocks.is_empty() {
        return Ok(());
    }
    require(flags.dtype == Dtype::U32 && flags.numel >= blocks.len(), DECODE, || {
        format!("`flags` is {} elements of {} for {} blocks", flags.numel, flags.dtype, blocks.len())
    })?;
    let mut words = Vec::with_capacity(4 * blocks.len());
    for block in blocks {
        let format = format_of(DECODE, block.stored)?;
        let less_format = block.less.map_or(Ok(0), |less| format_of(DECODE, less))?;
        fits(DECODE, "stored", block.stored, numel)?;
        block.less.map_or(Ok(()), |less| fits(DECODE, "less", less, numel))?;
        fits(DECODE, "out", block.out.as_view(), numel)?;
        require(block.out.dtype == Dtype::F32, DECODE, || format!("`out` is of {}", block.out.dtype))?;
        let less = block.less.map_or(0, |less| less.address);
        words.extend([block.stored.address, less, block.out.address, format | less_format << 32]);
    }
    let rows = rows.write(target, &table(words))?;
    let arguments = [
        Argument::U64(rows),
        Argument::U32(blocks.len() as u32),
        Argument::U64(numel as u64),
        Argument::U64(flags.address),
    ];
    let launch = Launch {
        kernel: DECODE,
        grid: [groups(DECODE, numel, blocks.len())?, 1, 1],
        threads: THREADS,
        shared_bytes: 0,
        cooperative: false,
        arguments: &arguments,
    };
    // SAFETY: every operand was checked above, is borrowed until the launch is asked for, and is used and freed in the
    // target's order.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        target.launch(&launch)
    }
}

/// What [`encode_block`] rounds.
#[derive(Debug)]
pub struct MergedBlock<'a> {
    /// F32.
    pub values: View<'a>,
    /// Added before rounding: BF16, F16 or F32 as it is stored, as long.
    pub plus: Option<View<'a>>,
    /// Where it goes: BF16, F16 or F32, as long.
    pub out: ViewMut<'a>,
}

/// Rounds the first `numel` elements once, to nearest, ties to even: out = values + plus.
///
/// `flag` is one U32: set to 1 where a result is NaN or infinite, else left alone.
///
/// Twin: [`skillweld_tensor::convert::encode`]; the same bits, but for those of NaN.
///
/// # Errors
/// Operands whose dtypes or lengths do not fit, or that do not begin on 16 bytes; whatever the target refuses.
pub fn encode_block<T: Target>(
    target: &T,
    numel: usize,
    block: &MergedBlock<'_>,
    flag: &ViewMut<'_>,
) -> Result<()> {
    let MergedBlock { values, plus, out } = block;
    let kernel = format!("{ENCODE}_{}", suffix(ENCODE, out.dtype)?);
    let format = plus.map_or(Ok(0), |plus| format_of(ENCODE, plus))?;
    require(values.dtype == Dtype::F32, ENCODE, || format!("`values` is of {}", values.dtype))?;
    require(flag.dtype == Dtype::U32 && flag.numel == 1, ENCODE, || {
        format!("`flag` is {} elements of {}", flag.numel, flag.dtype)
    })?;
    fits(ENCODE, "values", *values, numel)?;
    plus.map_or(Ok(()), |plus| fits(ENCODE, "plus", plus, numel))?;
    fits(ENCODE, "out", out.as_view(), numel)?;
    if numel == 0 {
        return Ok(());
    }
    let arguments = [
        Argument::U64(values.address),
        Argument::U64(plus.map_or(0, |plus| plus.address)),
        Argument::U32(format as u32),
        Argument::U64(out.address),
        Argument::U64(numel as u64),
        Argument::U64(flag.address),
    ];
    let launch = Launch {
        kernel: &kernel,
        grid: [groups(ENCODE, numel, 1)?, 1, 1],
        threads: THREADS,
        shared_bytes: 0,
        cooperative: false,
        arguments: &arguments,
    };
    // SAFETY: as in `decode_blocks`.
    #[expect(unsafe_code, reason = "a checked launch")]
    unsafe {
        target.launch(&launch)
    }
}

/// The number by which kernels know how an array is stored.
fn format_of(operation: &'static str, view: View<'_>) -> Result<u64> {
    match view.dtype {
        Dtype::BF16 => Ok(1),
        Dtype::F16 => Ok(2),
        Dtype::F32 => Ok(3),
        other => Err(GpuError::Operands {
            operation,
            problem: format!("blocks of {other}; BF16, F16 and F32 are taken"),
        }),
    }
}

fn fits(operation: &'static str, name: &str, view: View<'_>, numel: usize) -> Result<()> {
    require(view.numel >= numel, operation, || format!("`{name}` has {} of {numel} elements", view.numel))?;
    require(view.address.is_multiple_of(16), operation, || format!("`{name}` does not begin on 16 bytes"))
}

/// Blocks of threads that take eight elements each, of so many arrays.
fn groups(operation: &'static str, numel: usize, arrays: usize) -> Result<u32> {
    grid(operation, numel.div_ceil(EIGHT * THREADS as usize).saturating_mul(arrays))
}
