//! Numbers as people write them.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// A decimal number, exactly as written: `0.1` nine times over is `0.9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    /// In units of 10⁻¹⁸.
    units: i128,
}

/// Digits behind the point.
const PLACES: u32 = 18;
const ONE: i128 = 10i128.pow(PLACES);
/// Of the whole part, so that no sum of two overflows.
const MAX_WHOLE: i128 = 10i128.pow(18);

impl Decimal {
    /// 1.
    pub const ONE: Self = Self { units: ONE };
    /// 0.
    pub const ZERO: Self = Self { units: 0 };

    /// `self` + `count` · `step`; `None` beyond all that is meant to be written by hand.
    #[must_use]
    pub fn plus_steps(self, count: usize, step: Self) -> Option<Self> {
        let steps = step.units.checked_mul(i128::try_from(count).ok()?)?;
        self.units.checked_add(steps).map(|units| Self { units })
    }

    /// The nearest f64.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        // What `Display` writes is a number.
        self.to_string().parse().unwrap_or(f64::NAN)
    }
}

impl Add for Decimal {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { units: self.units.saturating_add(other.units) }
    }
}

impl Sub for Decimal {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { units: self.units.saturating_sub(other.units) }
    }
}

impl FromStr for Decimal {
    type Err = ();

    /// Digits with an optional sign, point and exponent: at most 18 places behind the point, less than 10¹⁸.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(drop)?),
            None => (text, 0),
        };
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(());
        }
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            return Ok(Self::ZERO);
        }
        let trailing = digits.len() - digits.trim_end_matches('0').len();
        let behind = i32::try_from(fraction.len()).map_err(drop)? - i32::try_from(trailing).map_err(drop)?;
        // How far the significant digits are shifted to count in units.
        let shift = exponent
            .checked_sub(behind)
            .and_then(|power| power.checked_add(PLACES as i32))
            .and_then(|shift| u32::try_from(shift).ok())
            .filter(|shift| *shift <= 2 * PLACES)
            .ok_or(())?;
        let significant: i128 = significant.parse().map_err(drop)?;
        let units = significant.checked_mul(10i128.pow(shift)).ok_or(())?;
        if units >= MAX_WHOLE * ONE {
            return Err(());
        }
        Ok(Self { units: if negative { -units } else { units } })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.units.unsigned_abs();
        let sign = if self.units < 0 { "-" } else { "" };
        let (whole, fraction) = (size / ONE.unsigned_abs(), size % ONE.unsigned_abs());
        let fraction = format!("{fraction:018}");
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            fraction => write!(f, "{sign}{whole}.{fraction}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_are_what_is_written() {
        for (text, shown) in [
            ("0.1", "0.1"),
            ("-.50", "-0.5"),
            ("+3.", "3"),
            ("1e-3", "0.001"),
            ("1.5E2", "150"),
            ("0e99", "0"),
            ("-0", "0"),
            ("000100.0100", "100.01"),
            ("999999999999999999", "999999999999999999"),
            ("0.000000000000000001", "0.000000000000000001"),
        ] {
            assert_eq!(decimal(text).to_string(), shown, "{text}");
        }
        assert_eq!(decimal("0.1").plus_steps(8, decimal("0.1")), Some(decimal("0.9")));
        assert_eq!(Decimal::ONE - decimal("0.9"), decimal("0.1"));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", ".", "-", "1.2.3", "0x10", "1e", "e5", "nan", "1 ", "1e18", "1e-19", "1_000"] {
            assert_eq!(text.parse::<Decimal>(), Err(()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_comes_back(whole in -999_999i64..999_999, fraction in 0u32..1_000_000) {
            let text = format!("{whole}.{fraction:06}");
            let value = decimal(&text);
            prop_assert_eq!(decimal(&value.to_string()), value);
            prop_assert_eq!(value.to_f64(), text.parse::<f64>().unwrap());
        }
    }
}
