//! Conversion between stored dtypes and f32, in blocks.
//!
//! Decoding is exact for every dtype but F64 (rounded to nearest even). Encoding rounds once, to nearest even;
//! NaN stays NaN (quiet), overflow becomes infinity where the type has one and NaN where it has none (F8_E4M3, as
//! PyTorch converts). The slow, obvious forms that the fast ones are tested against stand in `convert/tests.rs`.

use skillweld_simd::vectorize;

use crate::rounding::rounded;
use crate::{Dtype, TensorError};

/// Decodes `bytes` (little-endian elements of `dtype`) into `out`; true when every value is finite.
///
/// # Errors
/// [`TensorError::NotComputable`] for integers, booleans and packed types.
///
/// # Panics
/// When `bytes` does not hold exactly `out.len()` elements.
pub fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Result<bool, TensorError> {
    assert_eq!(Some(bytes.len()), dtype.byte_len(out.len()), "byte length must fit the element count");
    match dtype {
        Dtype::BF16 => return Ok(decode_bf16(bytes, out)),
        Dtype::F32 => return Ok(decode_f32(bytes, out)),
        Dtype::F16 => decode_f16(bytes, out),
        Dtype::F64 => decode_f64(bytes, out),
        Dtype::F8E4M3 => decode_f8(bytes, out, &F8_E4M3_VALUES),
        Dtype::F8E5M2 => decode_f8(bytes, out, &F8_E5M2_VALUES),
        _ => return Err(TensorError::NotComputable { dtype }),
    }
    Ok(all_finite(out))
}

/// out = decoded − base, rounded once: the task vector of a block. True when every decoded value is finite; a
/// difference of finite values may still overflow.
///
/// # Errors
/// As [`decode`].
///
/// # Panics
/// When `bytes` or `base` does not hold exactly `out.len()` elements.
pub fn decode_difference(
    dtype: Dtype,
    bytes: &[u8],
    base: &[f32],
    out: &mut [f32],
) -> Result<bool, TensorError> {
    assert_eq!(base.len(), out.len(), "the base must fit the element count");
    if dtype == Dtype::BF16 {
        assert_eq!(bytes.len(), 2 * out.len(), "byte length must fit the element count");
        return Ok(decode_difference_bf16(bytes, base, out));
    }
    let finite = decode(dtype, bytes, out)?;
    subtract(out, base);
    Ok(finite)
}

/// Encodes `values` into `out` as little-endian elements of `dtype`, each rounded once to nearest even; true when every
/// result is finite.
///
/// # Errors
/// [`TensorError::NotComputable`] for integers, booleans and packed types.
///
/// # Panics
/// When `out` does not hold exactly `values.len()` elements.
pub fn encode(dtype: Dtype, values: &[f32], out: &mut [u8]) -> Result<bool, TensorError> {
    assert_eq!(Some(out.len()), dtype.byte_len(values.len()), "byte length must fit the element count");
    match dtype {
        Dtype::BF16 => return Ok(encode_bf16(values, out)),
        Dtype::F32 => encode_f32(values, out),
        Dtype::F64 => encode_f64(values, out),
        Dtype::F16 => encode_f16(values, out),
        Dtype::F8E4M3 => encode_f8(values, out, F8_E4M3),
        Dtype::F8E5M2 => encode_f8(values, out, F8_E5M2),
        _ => return Err(TensorError::NotComputable { dtype }),
    }
    Ok(all_below(values, overflow_from(dtype)))
}

/// The smallest magnitude that [`encode`] turns into infinity (or NaN, in F8_E4M3): half an ulp above the largest
/// finite value; infinity where every f32 fits.
pub fn overflow_from(dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => 65520.0,
        Dtype::BF16 => f32::from_bits(0x7f7f_8000),
        Dtype::F8E5M2 => 61440.0,
        // Half an ulp above 448 is a tie that goes to the even 448.
        Dtype::F8E4M3 => 464.0f32.next_up(),
        _ => f32::INFINITY,
    }
}

const EXPONENT: u32 = 0x7f80_0000;

vectorize! {
    /// True when every value is finite (neither NaN nor infinite).
    pub fn all_finite(values: &[f32]) -> bool {
        // No early exit: a plain reduction vectorises, and blocks are small.
        let bad = values.iter().fold(0u32, |bad, v| bad | u32::from(v.to_bits() & EXPONENT == EXPONENT));
        bad == 0
    }

    /// True when every magnitude is below `limit`; NaN never is.
    fn all_below(values: &[f32], limit: f32) -> bool {
        values.iter().fold(true, |all, v| all & (v.abs() < limit))
    }

    /// out −= x.
    fn subtract(out: &mut [f32], x: &[f32]) {
        for (o, x) in out.iter_mut().zip(x) {
            *o -= x;
        }
    }

    fn decode_bf16(bytes: &[u8], out: &mut [f32]) -> bool {
        let mut bad = 0;
        for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let bits = u32::from(u16::from_le_bytes([b[0], b[1]])) << 16;
            bad |= u32::from(bits & EXPONENT == EXPONENT);
            *o = f32::from_bits(bits);
        }
        bad == 0
    }

    fn decode_difference_bf16(bytes: &[u8], base: &[f32], out: &mut [f32]) -> bool {
        let mut bad = 0;
        for ((o, b), base) in out.iter_mut().zip(bytes.chunks_exact(2)).zip(base) {
            let bits = u32::from(u16::from_le_bytes([b[0], b[1]])) << 16;
            bad |= u32::from(bits & EXPONENT == EXPONENT);
            *o = f32::from_bits(bits) - base;
        }
        bad == 0
    }

    fn encode_bf16(values: &[f32], out: &mut [u8]) -> bool {
        let mut bad = 0;
        for (o, v) in out.chunks_exact_mut(2).zip(values) {
            let bits = rounded(v.to_bits());
            bad |= u32::from(bits & EXPONENT == EXPONENT);
            o.copy_from_slice(&((bits >> 16) as u16).to_le_bytes());
        }
        bad == 0
    }

    fn decode_f16(bytes: &[u8], out: &mut [f32]) {
        // Shifted into f32 position, exponent and mantissa are right but for the bias: one exact multiplication by
        // 2^112 repairs it for normal and subnormal values alike; infinities and NaNs get their exponent set.
        const UNBIAS: f32 = f32::from_bits(239 << 23);
        for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let half = u32::from(u16::from_le_bytes([b[0], b[1]]));
            let magnitude = (half & 0x7fff) << 13;
            let finite = (f32::from_bits(magnitude) * UNBIAS).to_bits();
            let special = magnitude | 0x7f80_0000;
            let value = if half & 0x7c00 == 0x7c00 { special } else { finite };
            *o = f32::from_bits(value | (half & 0x8000) << 16);
        }
    }

    fn encode_f16(values: &[f32], out: &mut [u8]) {
        const SMALLEST_NORMAL: u32 = 113 << 23; // 2^-14
        const OVERFLOW: u32 = 143 << 23; // 2^16
        // Adding 0.5 moves a subnormal half's mantissa to the lowest bits of the f32, rounded by the hardware.
        const MAGIC: f32 = 0.5;
        for (o, v) in out.chunks_exact_mut(2).zip(values) {
            let sign = (v.to_bits() >> 16) & 0x8000;
            let bits = v.to_bits() & 0x7fff_ffff;
            let normal = bits.wrapping_sub(112 << 23).wrapping_add(0x0fff + ((bits >> 13) & 1)) >> 13;
            let subnormal = (f32::from_bits(bits) + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits());
            let special = if bits > 0x7f80_0000 { 0x7e00 | ((bits >> 13) & 0x3ff) } else { 0x7c00 };
            let small = if bits < SMALLEST_NORMAL { subnormal } else { normal };
            let half = if bits >= OVERFLOW { special } else { small };
            o.copy_from_slice(&((half | sign) as u16).to_le_bytes());
        }
    }

    fn decode_f32(bytes: &[u8], out: &mut [f32]) -> bool {
        let mut bad = 0;
        for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            bad |= u32::from(bits & EXPONENT == EXPONENT);
            *o = f32::from_bits(bits);
        }
        bad == 0
    }

    fn encode_f32(values: &[f32], out: &mut [u8]) {
        for (o, v) in out.chunks_exact_mut(4).zip(values) {
            o.copy_from_slice(&v.to_le_bytes());
        }
    }

    fn decode_f64(bytes: &[u8], out: &mut [f32]) {
        for (o, b) in out.iter_mut().zip(bytes.chunks_exact(8)) {
            *o = f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32;
        }
    }

    fn encode_f64(values: &[f32], out: &mut [u8]) {
        for (o, v) in out.chunks_exact_mut(8).zip(values) {
            o.copy_from_slice(&f64::from(*v).to_le_bytes());
        }
    }

    fn decode_f8(bytes: &[u8], out: &mut [f32], values: &[f32; 256]) {
        for (o, b) in out.iter_mut().zip(bytes) {
            *o = values[usize::from(*b)];
        }
    }

    fn encode_f8(values: &[f32], out: &mut [u8], format: F8) {
        for (o, v) in out.iter_mut().zip(values) {
            *o = format.encode(*v);
        }
    }
}

/// An 8-bit float format: 1 sign, `exponent_bits`, the rest mantissa.
#[derive(Debug, Clone, Copy)]
struct F8 {
    mantissa_bits: u32,
    bias: i32,
    /// The largest finite magnitude, as bits.
    max_finite: u8,
    /// What overflow and infinity become, as bits.
    overflow: u8,
    /// The NaN that encoding produces, as bits.
    nan: u8,
}

const F8_E4M3: F8 = F8 { mantissa_bits: 3, bias: 7, max_finite: 0x7e, overflow: 0x7f, nan: 0x7f };
const F8_E5M2: F8 = F8 { mantissa_bits: 2, bias: 15, max_finite: 0x7b, overflow: 0x7c, nan: 0x7f };

static F8_E4M3_VALUES: [f32; 256] = F8_E4M3.table();
static F8_E5M2_VALUES: [f32; 256] = F8_E5M2.table();

impl F8 {
    /// The value of every bit pattern.
    const fn table(self) -> [f32; 256] {
        let mut values = [0.0; 256];
        let mut i = 0;
        while i < 256 {
            values[i] = self.decode(i as u8);
            i += 1;
        }
        values
    }

    const fn decode(self, byte: u8) -> f32 {
        let magnitude = byte & 0x7f;
        let sign = (byte as u32 & 0x80) << 24;
        if magnitude > self.max_finite {
            let infinite = magnitude == self.overflow && self.overflow != self.nan;
            return f32::from_bits(sign | if infinite { 0x7f80_0000 } else { 0x7fc0_0000 });
        }
        let mantissa = (magnitude & ((1 << self.mantissa_bits) - 1)) as u32;
        let exponent = (magnitude >> self.mantissa_bits) as i32;
        // (mantissa · 2^-m) · 2^(1 - bias) for subnormals, (1 + mantissa · 2^-m) · 2^(e - bias) otherwise.
        let (significand, power) = if exponent == 0 {
            (mantissa as f32, 1 - self.bias)
        } else {
            ((mantissa | 1 << self.mantissa_bits) as f32, exponent - self.bias)
        };
        let scale = f32::from_bits(((power - self.mantissa_bits as i32 + 127) as u32) << 23);
        let value = significand * scale;
        f32::from_bits(value.to_bits() | sign)
    }

    #[inline(always)]
    fn encode(self, value: f32) -> u8 {
        let bits = value.to_bits();
        let sign = ((bits >> 24) & 0x80) as u8;
        let magnitude = f32::from_bits(bits & 0x7fff_ffff);
        if magnitude.is_nan() {
            return sign | self.nan;
        }
        let smallest_normal_exponent = 1 - self.bias;
        let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(smallest_normal_exponent);
        // One unit in the last place at this exponent; dividing by a power of two is exact, so `round_ties_even` is
        // the only rounding.
        let ulp = f32::from_bits(((exponent - self.mantissa_bits as i32 + 127) as u32) << 23);
        let units = (magnitude / ulp).round_ties_even();
        if !units.is_finite() || exponent > 127 - self.mantissa_bits as i32 {
            return sign | self.overflow;
        }
        // Units carry into the exponent by plain addition: 2^(m+1) units are the next exponent's first value.
        let base = ((exponent - smallest_normal_exponent) as u32) << self.mantissa_bits;
        let code = base + units as u32;
        sign | if code > u32::from(self.max_finite) { self.overflow } else { code as u8 }
    }
}

#[cfg(test)]
mod tests;
