//! `breadcrumbs` and `breadcrumbs_ties`.

use proptest::prelude::*;
use skillweld_plugin_sdk::trial::Trial;
use skillweld_plugin_task_arithmetic::{Breadcrumbs, BreadcrumbsTies};

use super::{Rule, about, consensus, densities, element, factor, sum, tensors, trial_of, weights};

/// Entries dropped for being the largest, and entries kept, of `len`.
fn counts(len: usize, density: f64, gamma: f64) -> (usize, usize) {
    let kept = (density * len as f64) as usize;
    (((gamma * len as f64) as usize).min(len - kept), kept)
}

/// The `kept` largest of what the `dropped` largest leave.
fn middle(values: &[f32], density: f64, gamma: f64) -> Vec<f32> {
    if density == 1.0 {
        return values.to_vec();
    }
    let (dropped, kept) = counts(values.len(), density, gamma);
    let (larger, largest) = (about(values, dropped + kept), about(values, dropped));
    let keep = |i: usize| kept > 0 && larger[i] && !largest[i];
    (0..values.len()).map(|i| if keep(i) { values[i] } else { 0.0 }).collect()
}

proptest! {
    #[test]
    fn the_middle_of_each_tensor(
        tensors in tensors(), density in densities(), gamma in densities(), weights in weights(), normalize: bool,
        rescale: bool, lambda in prop_oneof![Just(1.0), 0.1f64..2.0], block_len in 8usize..900,
    ) {
        macro_rules! run {
            ($method:ty) => {
                trial_of::<$method>(&tensors)
                    .per_expert("density", &density)
                    .per_expert("gamma", &gamma)
                    .per_expert("weight", &weights)
                    .set("normalize", normalize)
                    .set("rescale", rescale)
                    .set("lambda", lambda)
                    .block_len(block_len)
                    .merge_all()
            };
        }
        let (linear, ties) = (run!(Breadcrumbs), run!(BreadcrumbsTies));
        for (t, experts) in tensors.iter().enumerate() {
            let thinned = [0, 1, 2].map(|k| middle(&experts[k], density[k], gamma[k]));
            let factors = [0, 1, 2].map(|k| if rescale { factor(experts[k].iter(), thinned[k].iter()) } else { 1.0 });
            let rule = Rule { weights, factors, normalize, lambda, zero_sum: 1.0 };
            for i in 0..experts[0].len() {
                prop_assert_eq!(linear[t][i], sum(element(&thinned, i), &rule), "element {}", i);
                prop_assert_eq!(ties[t][i], consensus(element(&thinned, i), &rule), "element {}", i);
            }
        }
    }
}

/// How many of n entries of different size mergekit 0.1.5 drops from below, keeps, and drops from above.
#[test]
fn counts_that_mergekit_gives() {
    let cases = [
        (1, 0.5, 0.1, [1, 0, 0]),
        (5, 0.5, 0.5, [1, 2, 2]),
        (5, 0.5, 1.0, [0, 2, 3]),
        (5, 0.9, 0.2, [0, 4, 1]),
        (10, 0.37, 0.123, [6, 3, 1]),
        (96, 0.5, 0.1, [39, 48, 9]),
        (96, 0.05, 0.9, [6, 4, 86]),
        (127, 0.01, 0.01, [125, 1, 1]),
        (1000, 0.9, 0.01, [90, 900, 10]),
        (1000, 0.999, 0.0005, [1, 999, 0]),
        (1000, 1.0, 0.01, [0, 1000, 0]),
        (1000, 0.0, 0.1, [1000, 0, 0]),
    ];
    for (len, density, gamma, expected) in cases {
        // Neither sorted nor of one sign.
        let values: Vec<f32> =
            (0..len).map(|i| ((i * 7919 % len + 1) as f32) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let merged = Trial::of::<Breadcrumbs>()
            .experts(&[&values])
            .set("density", density)
            .set("gamma", gamma)
            .merge();
        let mut magnitudes: Vec<usize> =
            merged.iter().filter(|&&x| x != 0.0).map(|x| x.abs() as usize).collect();
        magnitudes.sort_unstable();
        let below = magnitudes.first().map_or(len, |first| first - 1);
        let found = [below, magnitudes.len(), len - below - magnitudes.len()];
        assert_eq!(found, expected, "{len} entries, density {density}, gamma {gamma}");
        assert!(magnitudes.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap in {magnitudes:?}");
    }
}
