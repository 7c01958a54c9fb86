//! One macro, [`vectorize!`]: a plain loop, compiled for several instruction sets, chosen at run time; and
//! [`prefetch`], for loops that are bound by memory.
//!
//! The body stays ordinary safe Rust; LLVM vectorises each copy for its own instruction set. Because Rust never
//! contracts `a * b + c` into a fused operation by itself, every copy computes the same bits: a portable binary gives
//! the same bytes on every processor. To see that on one machine, [`LEVEL_VARIABLE`] in the environment lowers the level.

use std::sync::OnceLock;

pub mod between;

/// Wraps one function so that it runs as AVX-512, AVX2 or portable code, whichever the processor has.
///
/// The function takes named arguments and may borrow; it takes no type parameters (write one per dtype: generics stay
/// inside). The choice costs one atomic load per call, so call it per block, not per element.
///
/// ```
/// skillweld_simd::vectorize! {
///     /// out\[i\] += scale · x\[i\].
///     fn add_scaled(out: &mut [f32], x: &[f32], scale: f32) {
///         for (o, x) in out.iter_mut().zip(x) {
///             *o += scale * x;
///         }
///     }
/// }
/// let mut out = [1.0, 2.0];
/// add_scaled(&mut out, &[10.0, 20.0], 0.5);
/// assert_eq!(out, [6.0, 12.0]);
/// ```
#[macro_export]
macro_rules! vectorize {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident ( $($arg:ident : $ty:ty),* $(,)? ) $(-> $ret:ty)? $body:block)+) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn portable($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,f16c,bmi1,bmi2,popcnt")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { portable($($arg),*) }
                #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,popcnt")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { portable($($arg),*) }

                match $crate::level() {
                    // SAFETY: `level` returns Avx512 only after detecting every feature that `avx512` enables.
                    #[allow(unsafe_code, reason = "calls the copy for a detected instruction set")]
                    $crate::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: `level` returns Avx2 only after detecting every feature that `avx2` enables.
                    #[allow(unsafe_code, reason = "calls the copy for a detected instruction set")]
                    $crate::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::Level::Portable => {}
                }
            }
            #[allow(unreachable_code, reason = "reached on processors without the instruction sets above")]
            portable($($arg),*)
        }
    )+};
}

/// The instruction sets that [`vectorize!`] compiles for, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the target triple guarantees (SSE2 on x86-64).
    Portable,
    /// AVX2 with FMA, F16C, BMI and POPCNT.
    Avx2,
    /// AVX-512 F, BW, DQ, VL and CD on top of the AVX2 level.
    Avx512,
}

/// Environment variable that lowers the level: `portable`, `avx2` or `avx512`. It never raises it above what the
/// processor has; anything else is as if it were not set. `linalg`'s products know further names above these.
pub const LEVEL_VARIABLE: &str = "SKILLWELD_SIMD";

/// The best level that this processor has and [`LEVEL_VARIABLE`] allows, found out by the first call.
#[inline]
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| match std::env::var(LEVEL_VARIABLE) {
        Ok(limit) => lowered(detected(), &limit),
        Err(_) => detected(),
    })
}

fn lowered(best: Level, limit: &str) -> Level {
    match limit {
        "portable" => Level::Portable,
        "avx2" => best.min(Level::Avx2),
        _ => best,
    }
}

/// The best level of this processor.
fn detected() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512cd");
        if avx512 {
            return Level::Avx512;
        }
        if avx2 {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// Asks for the cache line `ahead_bytes` behind the beginning of `from`, for a loop that will get there. It may lie past
/// the end, even of what there is: then nothing happens.
#[inline(always)]
pub fn prefetch(from: &[u8], ahead_bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and faults on no address; the pointer is never dereferenced.
    #[allow(unsafe_code, reason = "the instruction takes a pointer")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().wrapping_add(ahead_bytes).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, ahead_bytes);
}

#[cfg(test)]
mod tests {
    use super::Level::{Avx2, Avx512, Portable};
    use super::lowered;

    #[test]
    fn the_variable_lowers_the_level_and_never_raises_it() {
        for best in [Portable, Avx2, Avx512] {
            let levels = ["portable", "avx2", "avx512", "", "sse9"].map(|limit| lowered(best, limit));
            assert_eq!(levels, [Portable, best.min(Avx2), best, best, best]);
        }
    }
}
