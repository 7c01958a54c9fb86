use std::str::FromStr;

use serde_json::Value;

/// Added to every width, so that a constant dimension divides by something.
const EPSILON: f64 = 1e-8;

/// Which ends of the training data are −1 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// First and 99th percentile, published as `bounds_q99`.
    Quantiles,
    /// Smallest and largest value, published as `bounds`.
    MinMax,
}

impl Bounds {
    /// What the published code uses for a dataset: smallest and largest value for ALOHA's, percentiles for all others
    /// (LIBERO, Bridge, …). It decides by name as well; nothing in a checkpoint says it.
    pub fn of_dataset(name: &str) -> Self {
        if name.to_lowercase().contains("aloha") { Self::MinMax } else { Self::Quantiles }
    }

    /// Keys of the lower and the upper end.
    fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Quantiles => ("q01", "q99"),
            Self::MinMax => ("min", "max"),
        }
    }
}

impl FromStr for Bounds {
    type Err = String;

    /// Reads the published name, `bounds_q99` or `bounds`.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "bounds_q99" => Ok(Self::Quantiles),
            "bounds" => Ok(Self::MinMax),
            _ => Err(format!("`{name}` is no kind of bounds; choose bounds_q99 or bounds")),
        }
    }
}

/// The ends of every dimension of states or actions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    low: Vec<f64>,
    high: Vec<f64>,
    /// False where values are used as they are.
    mask: Vec<bool>,
}

impl Range {
    /// Reads what stands under `action` or `proprio`.
    pub(super) fn from_json(entry: &Value, bounds: Bounds) -> Result<Self, String> {
        let numbers = |key: &str| -> Result<Vec<f64>, String> {
            let values =
                entry.get(key).and_then(Value::as_array).ok_or_else(|| format!("no list `{key}`"))?;
            let numbers: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
            numbers.ok_or_else(|| format!("`{key}` must hold numbers only"))
        };
        let (low_key, high_key) = bounds.keys();
        let (low, high) = (numbers(low_key)?, numbers(high_key)?);
        let mask: Vec<bool> = match entry.get("mask") {
            None => vec![true; low.len()],
            Some(mask) => mask
                .as_array()
                .and_then(|values| values.iter().map(Value::as_bool).collect())
                .ok_or("`mask` must be a list of true and false")?,
        };
        for (key, len) in [(high_key, high.len()), ("mask", mask.len())] {
            if len != low.len() {
                return Err(format!("`{low_key}` has {} dimensions, but `{key}` has {len}", low.len()));
            }
        }
        if let Some(dimension) = (0..low.len()).find(|&d| high[d] < low[d]) {
            return Err(format!("`{high_key}` is below `{low_key}` in dimension {dimension}"));
        }
        Ok(Self { low, high, mask })
    }

    pub(super) fn len(&self) -> usize {
        self.low.len()
    }

    fn width(&self, dimension: usize) -> f64 {
        self.high[dimension] - self.low[dimension] + EPSILON
    }

    /// `values` has one element a dimension.
    pub(super) fn normalize(&self, values: &[f64]) -> Vec<f32> {
        let scaled = values.iter().enumerate().map(|(d, value)| {
            let scaled =
                if self.mask[d] { 2.0 * (value - self.low[d]) / self.width(d) - 1.0 } else { *value };
            scaled.clamp(-1.0, 1.0) as f32
        });
        scaled.collect()
    }

    pub(super) fn unnormalize(&self, dimension: usize, value: f32) -> f32 {
        if !self.mask[dimension] {
            return value;
        }
        (f64::from(0.5 * (value + 1.0)) * self.width(dimension) + self.low[dimension]) as f32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn range(low: &[f64], width: &[f64], mask: &[bool]) -> Range {
        let high: Vec<f64> = low.iter().zip(width).map(|(low, width)| low + width).collect();
        let entry = json!({ "q01": low, "q99": high, "mask": mask });
        Range::from_json(&entry, Bounds::Quantiles).unwrap()
    }

    proptest! {
        #[test]
        fn inside_the_bounds_there_and_back_is_the_same(
            dimensions in prop::collection::vec((-100f64..100.0, 0.01f64..100.0, 0f64..=1.0), 1..10)
        ) {
            let (low, rest): (Vec<f64>, Vec<_>) = dimensions.iter().map(|(l, w, at)| (*l, (*w, *at))).unzip();
            let (width, at): (Vec<f64>, Vec<f64>) = rest.into_iter().unzip();
            let range = range(&low, &width, &vec![true; low.len()]);
            let values: Vec<f64> = (0..low.len()).map(|d| low[d] + at[d] * width[d]).collect();
            for (d, normalized) in range.normalize(&values).into_iter().enumerate() {
                prop_assert!((-1.0..=1.0).contains(&normalized));
                let error = (f64::from(range.unnormalize(d, normalized)) - values[d]).abs();
                prop_assert!(error <= 1e-6 * (low[d].abs() + width[d]), "{error}");
            }
        }

        #[test]
        fn outside_the_bounds_states_are_clipped_and_actions_are_not(value in 1.5f64..1e6, side: bool) {
            let value = if side { value } else { -value };
            let range = range(&[-1.0], &[2.0], &[true]);
            prop_assert_eq!(range.normalize(&[value]), [value.signum() as f32]);
            let action = range.unnormalize(0, value as f32);
            prop_assert!((f64::from(action) - value).abs() <= 1e-6 * value.abs());
        }

        #[test]
        fn what_the_mask_leaves_out_is_untouched(value: f32, low in -10f64..10.0, width in 0f64..10.0) {
            let range = range(&[low], &[width], &[false]);
            prop_assert_eq!(range.unnormalize(0, value).to_bits(), value.to_bits());
            let unit = f64::from(value).clamp(-1.0, 1.0);
            prop_assert!(value.is_nan() || range.normalize(&[f64::from(value)]) == [unit as f32]);
        }

        #[test]
        fn a_constant_dimension_gives_finite_numbers(low in -10f64..10.0, value in -10f64..10.0) {
            let range = range(&[low], &[0.0], &[true]);
            prop_assert_eq!(range.normalize(&[low]), [-1.0]);
            prop_assert!(range.normalize(&[value])[0].abs() <= 1.0);
            prop_assert!((f64::from(range.unnormalize(0, 0.3)) - low).abs() < 1e-6);
        }
    }

    #[test]
    fn what_is_no_statistics_is_refused_by_name() {
        let refusal = |entry: Value| Range::from_json(&entry, Bounds::Quantiles).unwrap_err();
        assert!(refusal(json!({"q01": [0]})).contains("`q99`"));
        assert!(refusal(json!({"q01": [0], "q99": [null]})).contains("`q99`"));
        assert!(refusal(json!({"q01": [0, 0], "q99": [1]})).contains("`q99` has 1"));
        assert!(refusal(json!({"q01": [0], "q99": [1], "mask": [1]})).contains("`mask`"));
        assert!(refusal(json!({"q01": [0], "q99": [1], "mask": []})).contains("`mask` has 0"));
        assert!(refusal(json!({"q01": [0, 2], "q99": [1, 1]})).contains("dimension 1"));
    }

    #[test]
    fn bounds_go_by_name() {
        assert_eq!(Bounds::of_dataset("aloha_fold_shirt"), Bounds::MinMax);
        assert_eq!(Bounds::of_dataset("libero_goal_no_noops"), Bounds::Quantiles);
        assert_eq!("bounds".parse(), Ok(Bounds::MinMax));
        assert_eq!("bounds_q99".parse(), Ok(Bounds::Quantiles));
        assert!("q99".parse::<Bounds>().unwrap_err().contains("bounds_q99"));
    }
}
