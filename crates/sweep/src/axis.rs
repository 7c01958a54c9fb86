//! What a sweep runs over: fields of a recipe with their values, and all combinations of these.

use serde::{Deserialize, Serialize};
use skillweld_merge::recipe::Decimal;

use crate::SweepError;

/// More points than anybody evaluates: a step that was not meant.
const MOST_POINTS: usize = 100_000;

/// A field, or a placeholder, with the values that it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// A path such as `mask.lambda`, or the name of a placeholder; see [`Draft`](skillweld_merge::recipe::Draft).
    pub field: String,
    /// In order; never empty, none twice.
    pub values: Vec<String>,
}

/// One combination of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its place in the grid.
    pub index: usize,
    /// A value for each field.
    pub settings: Vec<(String, String)>,
}

impl Axis {
    /// Reads `FIELD=VALUES`: `a:b:step` is a range that includes both ends, computed in decimals, so that `0.1:0.9:0.1` has
    /// nine values; anything else is a list of words between commas.
    ///
    /// # Errors
    /// [`SweepError::Axis`].
    pub fn parse(given: &str) -> Result<Self, SweepError> {
        let fail = |problem: String| SweepError::Axis { given: given.to_owned(), problem };
        let Some((field, values)) = given.split_once('=') else {
            return Err(fail(
                "write FIELD=VALUES, such as mask.lambda=0.4,0.6 or alpha=0.1:0.9:0.1".to_owned(),
            ));
        };
        let (field, values) = (field.trim(), values.trim());
        if field.is_empty() || field.split('.').any(str::is_empty) {
            return Err(fail("the field has no name; write one such as mask.lambda".to_owned()));
        }
        let numbers: Option<Vec<Decimal>> = values.split(':').map(|part| part.trim().parse().ok()).collect();
        let values = match numbers.as_deref() {
            Some(&[first, last, step]) => range(first, last, step).map_err(fail)?,
            Some([_, _]) => {
                return Err(fail(format!(
                    "a range needs its step: {field}={values}:STEP, such as {values}:0.1"
                )));
            }
            _ => values.split(',').map(|value| value.trim().to_owned()).collect(),
        };
        if values.iter().any(String::is_empty) {
            return Err(fail("a value is missing".to_owned()));
        }
        for (i, value) in values.iter().enumerate() {
            let twice = |other: &String| match (other.parse::<Decimal>(), value.parse::<Decimal>()) {
                (Ok(a), Ok(b)) => a == b,
                _ => other == value,
            };
            if values[..i].iter().any(twice) {
                return Err(fail(format!("{value} stands there twice")));
            }
        }
        Ok(Self { field: field.to_owned(), values })
    }

    /// The values as numbers, if all of them are.
    pub(crate) fn numbers(&self) -> Option<Vec<f64>> {
        self.values.iter().map(|value| Some(value.parse::<Decimal>().ok()?.to_f64())).collect()
    }
}

fn range(first: Decimal, last: Decimal, step: Decimal) -> Result<Vec<String>, String> {
    if step == Decimal::ZERO {
        return Err("a range cannot have a step of 0".to_owned());
    }
    let rises = step > Decimal::ZERO;
    if (first < last) != rises && first != last {
        return Err(format!("from {first} no step of {step} leads to {last}; turn its sign"));
    }
    let mut values = Vec::new();
    for count in 0.. {
        let value = first.plus_steps(count, step);
        let Some(value) = value.filter(|value| if rises { *value <= last } else { *value >= last }) else {
            break;
        };
        if values.len() >= MOST_POINTS {
            return Err(format!("more than {MOST_POINTS} values: is the step meant?"));
        }
        values.push(value.to_string());
    }
    Ok(values)
}

impl Point {
    /// `alpha=0.3,mask.lambda=0.6`.
    pub fn label(&self) -> String {
        let parts = self.settings.iter().map(|(field, value)| format!("{field}={value}"));
        parts.collect::<Vec<_>>().join(",")
    }

    /// As a recipe takes them.
    pub(crate) fn borrowed(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect()
    }
}

/// Every combination, the last axis fastest.
///
/// # Errors
/// [`SweepError::Axis`] for a field that stands twice, or for more points than anybody means.
pub fn grid(axes: &[Axis]) -> Result<Vec<Point>, SweepError> {
    for (i, axis) in axes.iter().enumerate() {
        if axes[..i].iter().any(|other| other.field == axis.field) {
            let problem = "stands there twice; write all its values in one --set".to_owned();
            return Err(SweepError::Axis { given: axis.field.clone(), problem });
        }
    }
    let count = axes.iter().try_fold(1usize, |count, axis| count.checked_mul(axis.values.len()));
    let Some(count) = count.filter(|count| *count <= MOST_POINTS) else {
        let fields = axes.iter().map(|axis| axis.field.as_str()).collect::<Vec<_>>().join(" × ");
        let problem = format!("more than {MOST_POINTS} points; sweep fewer fields at once");
        return Err(SweepError::Axis { given: fields, problem });
    };
    let point = |index: usize| {
        let mut rest = index;
        let mut settings: Vec<(String, String)> = Vec::with_capacity(axes.len());
        for axis in axes.iter().rev() {
            settings.push((axis.field.clone(), axis.values[rest % axis.values.len()].clone()));
            rest /= axis.values.len();
        }
        settings.reverse();
        Point { index, settings }
    };
    Ok((0..count).map(point).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use proptest::prelude::*;

    fn values(given: &str) -> Vec<String> {
        Axis::parse(given).unwrap().values
    }

    #[test]
    fn ranges_include_their_ends() {
        let tenths = ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"];
        assert_eq!(values("alpha=0.1:0.9:0.1"), tenths);
        assert_eq!(values("alpha=1:0:-0.5"), ["1", "0.5", "0"]);
        assert_eq!(values("alpha=0:1:0.3"), ["0", "0.3", "0.6", "0.9"]);
        assert_eq!(values("alpha=2:2:1"), ["2"]);
    }

    #[test]
    fn lists_are_taken_as_written() {
        assert_eq!(values("mask.lambda=0.4, 0.60,8e-1"), ["0.4", "0.60", "8e-1"]);
        assert_eq!(values("merge_method=ties,linear"), ["ties", "linear"]);
        assert_eq!(values("models.0.model=a:b"), ["a:b"]);
        assert_eq!(values("x=a=b"), ["a=b"]);
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for (given, said) in [
            ("alpha", "write FIELD=VALUES"),
            ("=1", "no name"),
            ("a..b=1", "no name"),
            ("alpha=", "a value is missing"),
            ("alpha=1,,2", "a value is missing"),
            ("alpha=0:1", "needs its step: alpha=0:1:STEP"),
            ("alpha=0:1:0", "step of 0"),
            ("alpha=0:1:-0.1", "no step of -0.1 leads to 1"),
            ("alpha=0:1:0.0000001", "is the step meant?"),
            ("alpha=0.5,0.50", "0.50 stands there twice"),
        ] {
            let error = Axis::parse(given).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn grids_are_products_and_fields_stand_once() {
        let axes = [Axis::parse("a=1,2").unwrap(), Axis::parse("b=x,y,z").unwrap()];
        let labels: Vec<String> = grid(&axes).unwrap().iter().map(Point::label).collect();
        assert_eq!(labels, ["a=1,b=x", "a=1,b=y", "a=1,b=z", "a=2,b=x", "a=2,b=y", "a=2,b=z"]);
        let twice = [axes[0].clone(), axes[0].clone()];
        assert!(grid(&twice).unwrap_err().to_string().contains("twice"));
    }

    proptest! {
        /// Against integers, which need no decimals.
        #[test]
        fn ranges_have_the_values_of_integer_arithmetic(first in -50i32..50, steps in 0i32..40, step in 1i32..30, down: bool) {
            let step = if down { -step } else { step };
            let tenths = |n: i32| format!("{}{}.{}", if n < 0 { "-" } else { "" }, n.abs() / 10, n.abs() % 10);
            let given = format!("x={}:{}:{}", tenths(first), tenths(first + steps * step), tenths(step));
            let found = values(&given);
            prop_assert_eq!(found.len(), steps as usize + 1);
            for (i, value) in found.iter().enumerate() {
                let expected: f64 = tenths(first + i as i32 * step).parse().unwrap();
                prop_assert_eq!(value.parse::<f64>().unwrap(), expected);
            }
        }

        #[test]
        fn grids_have_every_combination_once(counts in proptest::collection::vec(1usize..5, 1..4)) {
            let axis = |(i, count): (usize, &usize)| Axis {
                field: format!("f{i}"),
                values: (0..*count).map(|v| v.to_string()).collect(),
            };
            let axes: Vec<Axis> = counts.iter().enumerate().map(axis).collect();
            let points = grid(&axes).unwrap();
            prop_assert_eq!(points.len(), counts.iter().product::<usize>());
            let mut labels: Vec<String> = points.iter().map(Point::label).collect();
            labels.sort();
            labels.dedup();
            prop_assert_eq!(labels.len(), points.len());
            prop_assert!(points.iter().enumerate().all(|(i, point)| point.index == i));
        }
    }
}
