//! Which kernel runs: what the processor has, the environment allows, and a first product shows to be right.

use std::fmt;
use std::sync::OnceLock;

use half::bf16;
use ndarray::{Array2, Axis, s};
use skillweld_simd::{LEVEL_VARIABLE, Level};

use super::{Bands, COLUMNS, Element, PANELS_TOGETHER, Place, multiply, pack_band, pack_panel};

/// The instruction sets that products are written for, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// What the target triple guarantees.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F.
    Avx512,
    /// AVX-512 with dot products of bf16 (`vdpbf16ps`).
    Avx512Bf16,
    /// AMX with tiles of bf16 (`tdpbf16ps`).
    Amx,
}

impl InstructionSet {
    /// All of them, best last.
    pub const ALL: [Self; 5] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::Amx];

    /// The name, as [`LEVEL_VARIABLE`] takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    fn detected(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            match self {
                Self::Portable => true,
                Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
                Self::Avx512 => Self::Avx2.detected() && is_x86_feature_detected!("avx512f"),
                Self::Avx512Bf16 => Self::Avx512.detected() && is_x86_feature_detected!("avx512bf16"),
                Self::Amx => Self::Avx512.detected() && super::amx::available(),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Self::Portable
        }
    }

    /// Whether [`LEVEL_VARIABLE`] leaves this set in use. `SKILLWELD_SIMD=avx512` means AVX-512 F.
    fn allowed(self, limit: Option<&str>, level: Level) -> bool {
        let of_level = match self {
            Self::Portable => Level::Portable,
            Self::Avx2 => Level::Avx2,
            Self::Avx512 | Self::Avx512Bf16 | Self::Amx => Level::Avx512,
        };
        let named = Self::ALL.into_iter().find(|set| Some(set.name()) == limit);
        of_level <= level && named.is_none_or(|named| self <= named)
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An instruction set that this processor has, that [`LEVEL_VARIABLE`] allows, and whose product was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(InstructionSet);

/// Why a kernel is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The processor or the operating system lacks it.
    #[error("this processor or its operating system lacks it")]
    Lacking,
    /// The environment lowers the level below it.
    #[error("{LEVEL_VARIABLE} lowers the level below it")]
    Lowered,
    /// The product of its first use differs from the portable one, which means a bug here or in an emulated processor.
    #[error("its trial product differs from the portable one; please report this processor")]
    Wrong,
}

impl Kernel {
    /// Plain Rust: everywhere, and what the others are compared with.
    pub const PORTABLE: Self = Self(InstructionSet::Portable);

    /// The kernel of one instruction set. The first call for each tries it on a small product.
    ///
    /// # Errors
    /// Why it is not used.
    pub fn of(set: InstructionSet) -> Result<Self, Refusal> {
        static TRIED: [OnceLock<Result<Kernel, Refusal>>; InstructionSet::ALL.len()] =
            [const { OnceLock::new() }; InstructionSet::ALL.len()];
        *TRIED[set as usize].get_or_init(|| {
            let limit = std::env::var(LEVEL_VARIABLE).ok();
            if !set.allowed(limit.as_deref(), skillweld_simd::level()) {
                return Err(if set.detected() { Refusal::Lowered } else { Refusal::Lacking });
            }
            if !set.detected() {
                return Err(Refusal::Lacking);
            }
            let kernel = Self(set);
            if kernel.is_right() { Ok(kernel) } else { Err(Refusal::Wrong) }
        })
    }

    /// The fastest for f32 weights.
    pub fn fastest_f32() -> Self {
        Self::best_of(&[InstructionSet::Avx512, InstructionSet::Avx2])
    }

    /// The fastest for bf16 weights.
    pub fn fastest_bf16() -> Self {
        use InstructionSet::{Amx, Avx2, Avx512, Avx512Bf16};
        Self::best_of(&[Amx, Avx512Bf16, Avx512, Avx2])
    }

    fn best_of(sets: &[InstructionSet]) -> Self {
        sets.iter().find_map(|set| Self::of(*set).ok()).unwrap_or(Self::PORTABLE)
    }

    /// Its instruction set.
    pub const fn instruction_set(self) -> InstructionSet {
        self.0
    }

    /// Whether it multiplies bf16 weights with bf16 inputs, by instructions for that, and not both as f32.
    pub(crate) fn takes_bf16(self) -> bool {
        matches!(self.0, InstructionSet::Avx512Bf16 | InstructionSet::Amx)
    }

    /// Small whole numbers multiply and add up exactly in any order, so a right kernel gives equal results.
    fn is_right(self) -> bool {
        let expected = trial::<f32>(Self::PORTABLE, |whole| whole);
        if self.takes_bf16() {
            trial(self, bf16::from_f32) == expected
        } else {
            trial::<f32>(self, |whole| whole) == expected
        }
    }
}

/// Twice x · w added up, 55 × 192 by 192 × 90: whole and partial tiles of every kernel. Whole numbers up to 2⁷, which bf16
/// holds exactly, and sums below 2²⁴.
fn trial<T: Element>(kernel: Kernel, element: impl Fn(f32) -> T) -> Array2<f32> {
    const ROWS: usize = 55;
    const DEPTH: usize = 192;
    const WIDTH: usize = 90;
    // Any full-period generator does: what counts is that no two rows or columns are alike.
    let mut state = 1u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        element((state >> 24) as f32 - 128.0)
    };
    let band_rows = T::shape(kernel).band_rows;
    let mut x = Array2::from_elem((ROWS.next_multiple_of(band_rows), DEPTH), T::default());
    x.slice_mut(s![..ROWS, ..]).mapv_inplace(|_| number());
    let panels = WIDTH.div_ceil(COLUMNS).next_multiple_of(PANELS_TOGETHER);
    let weight = Array2::from_shape_simple_fn((panels * COLUMNS, DEPTH), number);
    let mut bands = vec![T::default(); x.len()];
    for (rows, band) in x.axis_chunks_iter(Axis(0), band_rows).zip(bands.chunks_exact_mut(band_rows * DEPTH))
    {
        pack_band(kernel, rows.to_slice().unwrap_or_default(), DEPTH, DEPTH, band);
    }
    let mut packed = vec![T::default(); weight.len()];
    for (columns, panel) in
        weight.axis_chunks_iter(Axis(0), COLUMNS).zip(packed.chunks_exact_mut(COLUMNS * DEPTH))
    {
        pack_panel(kernel, &columns, panel, Place::Cache);
    }
    let stride = panels * COLUMNS;
    let mut out = vec![0.0; x.nrows() * stride];
    let (bands, packed) = (Bands::new(&bands, DEPTH), (&packed[..], COLUMNS * DEPTH));
    for accumulate in [false, true] {
        multiply(kernel, bands, (0..ROWS, 0..DEPTH), packed, WIDTH, (&mut out, stride), accumulate);
    }
    Array2::from_shape_fn((ROWS, WIDTH), |(row, column)| out[row * stride + column])
}

#[cfg(test)]
mod tests {
    use super::InstructionSet::{Amx, Avx2, Avx512, Avx512Bf16, Portable};
    use super::*;

    #[test]
    fn the_variable_lowers_and_never_raises() {
        let allowed = |limit, level| {
            InstructionSet::ALL.into_iter().filter(|set| set.allowed(limit, level)).collect::<Vec<_>>()
        };
        assert_eq!(allowed(None, Level::Avx512), InstructionSet::ALL);
        assert_eq!(allowed(Some("sse9"), Level::Avx512), InstructionSet::ALL);
        assert_eq!(allowed(Some("amx"), Level::Avx2), [Portable, Avx2]);
        assert_eq!(allowed(Some("avx512bf16"), Level::Avx512), [Portable, Avx2, Avx512, Avx512Bf16]);
        assert_eq!(allowed(Some("avx512"), Level::Avx512), [Portable, Avx2, Avx512]);
        assert_eq!(allowed(Some("portable"), Level::Portable), [Portable]);
    }

    #[test]
    fn what_the_processor_has_multiplies_right() {
        for set in InstructionSet::ALL {
            match Kernel::of(set) {
                Ok(kernel) => assert_eq!(kernel.instruction_set(), set),
                Err(refusal) => {
                    eprintln!("skipped: {set}: {refusal}");
                    assert_ne!(refusal, Refusal::Wrong, "{set}");
                }
            }
        }
        assert_eq!(Kernel::of(Portable), Ok(Kernel::PORTABLE));
        assert!(!Kernel::fastest_f32().takes_bf16());
        assert!(Kernel::fastest_bf16().instruction_set() <= Amx);
    }
}
