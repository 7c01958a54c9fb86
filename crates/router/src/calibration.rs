use ndarray::{ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// What a task's own observations look like in its subspaces: raw scores of different experts are norms in different
/// subspaces, and not on one scale.
///
/// No labels are needed: every observation that an expert was trained on is one of its task. Of the paper's scores only one number a
/// task is left, and different scenes may give the same; so what is compared here are [`projections`], which keep signs and directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Mean of each projection over observations.
    pub mean: Vec<f64>,
    /// Their standard deviations; above zero.
    pub deviation: Vec<f64>,
}

/// Where hidden states lie in a task's subspaces: of each subspace, as in [`score`](crate::score) but action-query and task tokens one
/// after the other, the mean over tokens of P h. As many numbers as all subspaces have directions.
///
/// # Panics
/// As [`score`](crate::score).
pub fn projections(
    subspaces: &[[ArrayView2<'_, f32>; 2]],
    adapter_hidden: &ArrayView2<'_, f32>,
    task_hidden: &ArrayView2<'_, f32>,
) -> Vec<f64> {
    let mean = |hidden: &ArrayView2<'_, f32>| {
        assert!(hidden.nrows() > 0, "no tokens to project");
        hidden.map(|&x| f64::from(x)).sum_axis(Axis(0)) / hidden.nrows() as f64
    };
    // The mean of projections is the projection of the mean.
    let (adapter_mean, task_mean) = (mean(adapter_hidden), mean(task_hidden));
    let of_pair = |[adapter, task]: &[ArrayView2<'_, f32>; 2]| {
        let project = |subspace: &ArrayView2<'_, f32>, mean| subspace.map(|&x| f64::from(x)).dot(mean);
        [project(adapter, &adapter_mean), project(task, &task_mean)]
    };
    subspaces.iter().flat_map(of_pair).flatten().collect()
}

impl Calibration {
    /// Of the projections of a task's own observations; `None` for fewer than two, for a direction in which they are all alike, and for
    /// some that are not finite.
    ///
    /// # Panics
    /// When observations have not equally many projections.
    pub fn of(observations: &[Vec<f64>]) -> Option<Self> {
        let (count, width) = (observations.len() as f64, observations.first()?.len());
        assert!(observations.iter().all(|one| one.len() == width), "as many projections of each");
        let column = |index: usize| observations.iter().map(move |one| one[index]);
        let mean: Vec<f64> = (0..width).map(|index| column(index).sum::<f64>() / count).collect();
        let squares = |index: usize| column(index).map(|x| (x - mean[index]).powi(2)).sum::<f64>();
        let deviation = (0..width).map(|index| (squares(index) / (count - 1.0)).sqrt()).collect();
        let calibration = Self { mean, deviation };
        calibration.is_usable(width).then_some(calibration)
    }

    /// Whether `width` projections can be compared by it: as many means and deviations, all finite, deviations above zero.
    pub fn is_usable(&self, width: usize) -> bool {
        let finite = |numbers: &[f64]| numbers.len() == width && numbers.iter().all(|x| x.is_finite());
        finite(&self.mean) && finite(&self.deviation) && self.deviation.iter().all(|&x| x > 0.0) && width > 0
    }

    /// The logarithm of how likely projections are among the task's own, were they distributed normally and each for itself:
    /// Σ −½ z² − ln deviation with z = (projection − mean) / deviation, but for a constant. The softmax of these is what Bayes' rule says
    /// of tasks that are equally likely.
    pub fn log_likelihood(&self, projections: &[f64]) -> f32 {
        let of_each = self.mean.iter().zip(&self.deviation).zip(projections);
        let log = of_each.map(|((mean, deviation), x)| {
            let z = (x - mean) / deviation;
            -0.5 * z * z - deviation.ln()
        });
        log.sum::<f64>() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::softmax;
    use ndarray::Array2;
    use proptest::prelude::*;

    #[test]
    fn mean_and_deviation_of_projections() {
        let of = |observations: &[&[f64]]| {
            Calibration::of(&observations.iter().map(|one| one.to_vec()).collect::<Vec<_>>())
        };
        let found = of(&[&[1.0, -1.0], &[3.0, -3.0]]);
        let deviation = vec![2f64.sqrt(); 2];
        assert_eq!(found, Some(Calibration { mean: vec![2.0, -2.0], deviation }));
        let nothing: [&[&[f64]]; 6] = [
            &[],
            &[&[1.0]],
            &[&[], &[]],
            &[&[1.0, 2.0], &[2.0, 2.0]],
            &[&[1.0], &[f64::NAN]],
            &[&[1.0], &[f64::INFINITY]],
        ];
        for observations in nothing {
            assert_eq!(of(observations), None, "{observations:?}");
        }
    }

    fn matrix(rows: usize, columns: usize) -> impl Strategy<Value = Array2<f32>> {
        proptest::collection::vec(-2.0f32..2.0, rows * columns)
            .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    }

    proptest! {
        /// Token by token, number by number.
        #[test]
        fn projections_equal_the_reference((subspaces, adapter, task) in (1usize..4, 4usize..20).prop_flat_map(|(rank, d)| {
            (proptest::collection::vec([matrix(rank, d), matrix(rank, d)], 1..3), matrix(5, d), matrix(9, d))
        })) {
            let mut expected = Vec::new();
            for (subspace, hidden) in subspaces.iter().flat_map(|[a, t]| [(a, &adapter), (t, &task)]) {
                for direction in subspace.rows() {
                    let dot = |h: ndarray::ArrayView1<'_, f32>| -> f64 {
                        direction.iter().zip(h).map(|(p, h)| f64::from(*p) * f64::from(*h)).sum()
                    };
                    expected.push(hidden.rows().into_iter().map(dot).sum::<f64>() / hidden.nrows() as f64);
                }
            }
            let views: Vec<_> = subspaces.iter().map(|pair| pair.each_ref().map(|p| p.view())).collect();
            let found = projections(&views, &adapter.view(), &task.view());
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                // Sums of at most 180 products below 4, in f64, in another order.
                prop_assert!((found - expected).abs() < 1e-12, "{} {}", found, expected);
            }
        }

        /// Against densities as they are written in books.
        #[test]
        fn softmax_is_bayes_rule(
            x in proptest::array::uniform2(-3.0f64..3.0),
            tasks in proptest::collection::vec((proptest::array::uniform2(-2.0f64..2.0), proptest::array::uniform2(0.5f64..3.0)), 1..5),
        ) {
            let tasks: Vec<_> = tasks
                .into_iter()
                .map(|(mean, deviation)| Calibration { mean: mean.to_vec(), deviation: deviation.to_vec() })
                .collect();
            let density = |task: &Calibration| -> f64 {
                let one = |j: usize| {
                    let z = (x[j] - task.mean[j]) / task.deviation[j];
                    (-z * z / 2.0).exp() / (task.deviation[j] * (2.0 * std::f64::consts::PI).sqrt())
                };
                one(0) * one(1)
            };
            let all: f64 = tasks.iter().map(density).sum();
            let logs: Vec<f32> = tasks.iter().map(|task| task.log_likelihood(&x)).collect();
            for (task, probability) in tasks.iter().zip(softmax(&logs)) {
                // f32 exponents up to 100 are good to 1.2e-5 of the power.
                prop_assert!((f64::from(probability) - density(task) / all).abs() < 4e-5);
            }
        }
    }
}
