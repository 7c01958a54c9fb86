use serde::{Deserialize, Serialize};

/// What a task's score is on the task's own observations: raw scores of different experts are norms in different
/// subspaces, and not on one scale.
///
/// No labels are needed: every observation that an expert was trained on is one of its task.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Mean of the scores.
    pub mean: f64,
    /// Their standard deviation; above zero.
    pub deviation: f64,
}

impl Calibration {
    /// Of the scores of a task's own observations; `None` for fewer than two, for scores that are all alike, and for some
    /// that are not finite.
    pub fn of(scores: &[f32]) -> Option<Self> {
        let count = scores.len() as f64;
        let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / count;
        let squares = scores.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum::<f64>();
        let deviation = (squares / (count - 1.0)).sqrt();
        Self { mean, deviation }.is_usable().then_some(Self { mean, deviation })
    }

    /// Whether scores can be compared by it: both numbers finite, the deviation above zero.
    pub fn is_usable(self) -> bool {
        self.mean.is_finite() && self.deviation.is_finite() && self.deviation > 0.0
    }

    /// The logarithm of how likely a score is among the task's own, were they distributed normally: −½ z² − ln deviation
    /// with z = (score − mean) / deviation, but for a constant. The softmax of these is what Bayes' rule says of tasks that
    /// are equally likely.
    pub fn log_likelihood(self, score: f32) -> f32 {
        let z = (f64::from(score) - self.mean) / self.deviation;
        (-0.5 * z * z - self.deviation.ln()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::softmax;
    use proptest::prelude::*;

    #[test]
    fn mean_and_deviation_of_scores() {
        assert_eq!(Calibration::of(&[1.0, 3.0]), Some(Calibration { mean: 2.0, deviation: 2f64.sqrt() }));
        for scores in [&[][..], &[1.0], &[2.0, 2.0], &[1.0, f32::NAN], &[1.0, f32::INFINITY]] {
            assert_eq!(Calibration::of(scores), None, "{scores:?}");
        }
    }

    proptest! {
        /// Against densities as they are written in books.
        #[test]
        fn softmax_is_bayes_rule(score in -3.0f32..3.0, tasks in proptest::collection::vec((-2.0f64..2.0, 0.5f64..3.0), 1..5)) {
            let tasks: Vec<_> = tasks.into_iter().map(|(mean, deviation)| Calibration { mean, deviation }).collect();
            let density = |task: &Calibration| {
                let z = (f64::from(score) - task.mean) / task.deviation;
                (-z * z / 2.0).exp() / (task.deviation * (2.0 * std::f64::consts::PI).sqrt())
            };
            let all: f64 = tasks.iter().map(density).sum();
            let logs: Vec<f32> = tasks.iter().map(|task| task.log_likelihood(score)).collect();
            for (task, probability) in tasks.iter().zip(softmax(&logs)) {
                // f32 exponents up to 50 are good to 6e-6 of the power.
                prop_assert!((f64::from(probability) - density(task) / all).abs() < 2e-5);
            }
        }
    }
}
