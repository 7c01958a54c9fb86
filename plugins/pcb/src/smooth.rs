//! exp and tanh of plain arithmetic: the same bits on every instruction set, which a system's library does not promise.

/// Added and subtracted, it rounds to a whole number.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts: the first has so few bits that whole multiples of it are exact.
const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
/// Beyond it the exponent would run out; e^±700 is as good as infinite or nothing here.
const LARGEST: f64 = 700.0;

/// eˣ to a few units of f64's last place, for |x| ≤ 700; beyond, that of ±700.
#[inline(always)]
pub(crate) fn exp(x: f64) -> f64 {
    let x = x.clamp(-LARGEST, LARGEST);
    let whole = (x * core::f64::consts::LOG2_E + ROUND) - ROUND;
    let rest = (x - whole * LN_2[0]) - whole * LN_2[1];
    // Taylor: |rest| ≤ ln 2 / 2, so what is cut off is below 0.35¹⁴ / 14! = 5e-18.
    let mut sum = 1.0;
    let mut order = 13.0;
    while order >= 1.0 {
        sum = 1.0 + rest / order * sum;
        order -= 1.0;
    }
    sum * f64::from_bits(((whole as i64 + 1023) as u64) << 52)
}

/// tanh x, relative to 1e-12.
#[inline(always)]
pub(crate) fn tanh(x: f64) -> f64 {
    let square = x * x;
    // Near zero the difference below would lose its digits: three terms of the series, the next is 17/315 x⁷.
    let near = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)));
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if square < 1e-4 { near } else { far }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equal_the_library_within_rounding(x in -699f64..699.0, small in -30i32..0) {
            prop_assert!((exp(x) / x.exp() - 1.0).abs() < 1e-14);
            let x = x / 700.0 * 2f64.powi(small) * 20.0;
            prop_assert!((tanh(x) - x.tanh()).abs() <= 1e-12 * x.tanh().abs(), "{x}");
        }
    }

    #[test]
    fn ends() {
        assert_eq!([exp(0.0), tanh(0.0), tanh(400.0), tanh(-1e30)], [1.0, 0.0, 1.0, -1.0]);
        assert!(exp(f64::NAN).is_nan() && tanh(f64::NAN).is_nan());
    }
}
