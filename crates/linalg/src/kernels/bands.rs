//! x in bands: as a kernel walks through it.

use super::{Element, Kernel, Shape};
#[cfg(target_arch = "x86_64")]
use super::{InstructionSet, avx512};

/// Rows of x in bands of `depth` steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bands<'a, T> {
    pub(super) values: &'a [T],
    pub(super) depth: usize,
}

impl<'a, T: Element> Bands<'a, T> {
    /// As many bands as `values` holds.
    pub(crate) fn new(values: &'a [T], depth: usize) -> Self {
        Self { values, depth }
    }

    /// Steps of k.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }
}

/// Packs some steps of as many rows as a band has, `stride` values apart, into the band, from its beginning on.
///
/// # Panics
/// When `steps` is no multiple of the unit, or there are fewer values.
pub(crate) fn pack_band<T: Element>(kernel: Kernel, rows: &[T], stride: usize, steps: usize, band: &mut [T]) {
    let Shape { band_rows, unit, .. } = T::shape(kernel);
    assert!(
        steps.is_multiple_of(unit) && stride >= steps,
        "{steps} steps, {stride} apart, in units of {unit}"
    );
    let (rows, band) = (&rows[..(band_rows - 1) * stride + steps], &mut band[..band_rows * steps]);
    #[cfg(target_arch = "x86_64")]
    if unit == T::PER_WORD && kernel.instruction_set() >= InstructionSet::Avx512 {
        // SAFETY: `rows` and `band` were cut to exactly what is read and written. A kernel of AVX-512 or above exists only
        // where that was detected.
        unsafe {
            avx512::pack_band(
                rows.as_ptr().cast(),
                stride * size_of::<T>(),
                band_rows,
                steps / unit,
                band.as_mut_ptr().cast(),
            );
        }
        return;
    }
    match unit {
        1 => pack_units::<T, 1>(rows, stride, steps, band_rows, band),
        2 => pack_units::<T, 2>(rows, stride, steps, band_rows, band),
        _ => pack_units::<T, 32>(rows, stride, steps, band_rows, band),
    }
}

/// Units of known length, for which a copy is a load and a store.
fn pack_units<T: Element, const UNIT: usize>(
    rows: &[T],
    stride: usize,
    steps: usize,
    band_rows: usize,
    band: &mut [T],
) {
    for (row, values) in rows.chunks(stride).enumerate() {
        let units = band.as_chunks_mut::<UNIT>().0.iter_mut().skip(row).step_by(band_rows);
        for (unit, values) in units.zip(values[..steps].as_chunks::<UNIT>().0) {
            *unit = *values;
        }
    }
}
