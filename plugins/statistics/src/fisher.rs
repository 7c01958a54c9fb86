//! `fisher`: elements weighed by how much the expert's likelihood depends on them.

use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Result, Spec, laws, vectorize};

/// τ = Σ c_k (F_k + `floor`) ⊙ τ_k / Σ c_k (F_k + `floor`), with the diagonal F_k of the Fisher information.
///
/// c_k = `weight`_k, divided by ‖F_k‖₂ + `floor` with `normalize`: the norm over all tensors that have statistics, so that
/// none rules because its loss is steeper. The authors' code and MergeLM's do so too. `floor` is *added*, as MergeLM and
/// FusionBench do; the authors' code takes the larger of the two. Where it is 0 and so are all F_k, or where weights
/// cancel, the plain mean comes out. Weights and sums are f64.
///
/// Statistics: `KEY` in the shape of the tensor, E\[(∂ log p / ∂Θ)²\], no entry negative.
pub struct Fisher;

impl MergeMethod for Fisher {
    fn spec() -> Spec {
        Spec::new("fisher", "mean weighted by the diagonal of each expert's Fisher information")
            .citation("Matena & Raffel, Merging models with Fisher-weighted averaging, NeurIPS 2022, arXiv 2111.09832")
            .param(
                Param::number("weight").default(1.0).at_least(0.0).per_expert().describe("factor of the expert"),
            )
            .param(
                Param::boolean("normalize")
                    .default(true)
                    .describe("divide each expert's statistics by their norm over all tensors"),
            )
            .param(
                Param::number("floor").default(1e-6).at_least(0.0).describe(
                    "added to all statistics; what is much smaller counts as nothing, so lower it for small ones",
                ),
            )
            .task_vectors()
            .needs_statistics()
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::LINEAR | laws::HOMOGENEOUS)
            .propagates_non_finite()
    }

    /// With `normalize` Σ F_k² of each expert.
    fn plan(params: &Params<'_>) -> Result<Plan> {
        if params.expert_numbers("weight").iter().all(|&weight| weight == 0.0) {
            return Err("every `weight` is zero: give at least one expert a larger one".into());
        }
        Ok(if params.boolean("normalize") { Plan::global([params.experts()]) } else { Plan::default() })
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += sum_of_squares(checked(block, k)?);
        }
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let floor = block.number("floor");
        let mut coefficients = block.expert_numbers("weight").to_vec();
        for (coefficient, sum) in coefficients.iter_mut().zip(block.totals()) {
            let norm = sum.sqrt() + floor;
            // Without a norm there is no information at all, and nothing to divide.
            *coefficient /= if norm == 0.0 { 1.0 } else { norm };
        }
        let statistics = (0..block.experts()).map(|k| checked(block, k)).collect::<Result<Vec<_>>>()?;
        average(out, &block.all_experts(), &statistics, &coefficients, floor);
        Ok(())
    }
}

/// The statistics of expert `k`, none of them negative.
fn checked<'a>(block: &Block<'a>, k: usize) -> Result<&'a [f32]> {
    let statistics = block.statistics(k)?;
    if !any_negative(statistics) {
        return Ok(statistics);
    }
    let first = statistics.iter().position(|&x| x < 0.0).unwrap_or(0);
    Err(format!(
        "the statistics of expert {} of {} are negative ({} at element {}): a Fisher information is a mean of squares",
        k + 1,
        block.experts(),
        statistics[first],
        block.offset() + first as u64
    )
    .into())
}

/// Elements averaged at a time: their sums stay in the first cache.
const TILE: usize = 512;

vectorize! {
    fn any_negative(values: &[f32]) -> bool {
        values.chunks(64).any(|values| values.iter().fold(false, |any, &x| any | (x < 0.0)))
    }

    /// In 16 running sums, so that the loop vectorises without reordering.
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0; 16];
        for values in values.chunks(16) {
            for (sum, &x) in sums.iter_mut().zip(values) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        sums.iter().sum()
    }

    fn average(out: &mut [f32], experts: &[&[f32]], statistics: &[&[f32]], coefficients: &[f64], floor: f64) {
        let count = experts.len() as f64;
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let (start, len) = (tile * TILE, out.len());
            let (mut sums, mut weights, mut plain) = ([0.0; TILE], [0.0; TILE], [0.0; TILE]);
            for ((expert, statistics), &coefficient) in experts.iter().zip(statistics).zip(coefficients) {
                let values = expert[start..][..len].iter().zip(&statistics[start..][..len]);
                let sums = sums.iter_mut().zip(&mut weights).zip(&mut plain);
                for (((sum, weight), plain), (&x, &information)) in sums.zip(values) {
                    let own = coefficient * (f64::from(information) + floor);
                    *sum += own * f64::from(x);
                    *weight += own;
                    *plain += f64::from(x);
                }
            }
            for (((out, sum), weight), plain) in out.iter_mut().zip(&sums).zip(&weights).zip(&plain) {
                *out = (if *weight > 0.0 { sum / weight } else { plain / count }) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    proptest! {
        #[test]
        fn equals_the_definition(
            elements in proptest::collection::vec((-2f32..2.0, -2f32..2.0, 0f32..3.0, 0f32..1e-3), 2..1300),
            cut in 0f64..1.0, weights in (0.1f64..2.0, 0.1f64..2.0), normalize: bool, floor in 0f64..1e-2, block_len in 8usize..600,
        ) {
            let [a, b, fa, fb] =
                [0, 1, 2, 3].map(|column| elements.iter().map(|e| [e.0, e.1, e.2, e.3][column]).collect::<Vec<f32>>());
            // Two tensors: the norm is that of both.
            let cut = (cut * a.len() as f64) as usize;
            let merged = Trial::of::<Fisher>()
                .experts(&[&a[..cut], &b[..cut]]).statistics(&[&fa[..cut], &fb[..cut]])
                .experts(&[&a[cut..], &b[cut..]]).statistics(&[&fa[cut..], &fb[cut..]])
                .per_expert("weight", &[weights.0, weights.1])
                .set("normalize", normalize)
                .set("floor", floor)
                .block_len(block_len)
                .merge_all()
                .concat();
            let norm = |f: &[f32]| f.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let scale = |f: &[f32]| if normalize { norm(f) + floor } else { 1.0 };
            let (ca, cb) = (weights.0 / scale(&fa), weights.1 / scale(&fb));
            for i in 0..merged.len() {
                let (wa, wb) = (ca * (f64::from(fa[i]) + floor), cb * (f64::from(fb[i]) + floor));
                let expected = (wa * f64::from(a[i]) + wb * f64::from(b[i])) / (wa + wb);
                prop_assume!(wa + wb > 0.0);
                // One rounding to f32; f64 rounds a millionth of that.
                let bound = 0.51 * f64::from(f32::EPSILON) * (a[i].abs() + b[i].abs()) as f64;
                prop_assert!((f64::from(merged[i]) - expected).abs() <= bound, "{} {expected}", merged[i]);
            }
        }
    }

    fn trial() -> Trial {
        Trial::of::<Fisher>().experts(&[&[1.0, 1.0, 1.0], &[3.0, 3.0, 5.0]])
    }

    #[test]
    fn known_values() {
        let plain = || trial().set("normalize", false).set("floor", 0.0);
        // All for the first, three to one for the second, and nothing known of the last.
        assert_eq!(plain().statistics(&[&[2.0, 1.0, 0.0], &[0.0, 3.0, 0.0]]).merge(), [1.0, 2.5, 3.0]);
        // Norms 3 and 6: what is left is (2, 2, 1) against (1, 2, 2).
        let normalised = trial().set("floor", 0.0).statistics(&[&[2.0, 2.0, 1.0], &[2.0, 4.0, 4.0]]).merge();
        let expected = [(2.0 + 3.0) / 3.0, 2.0, (1.0 + 10.0) / 3.0];
        assert!(
            normalised.iter().zip(expected).all(|(x, e)| (f64::from(*x) - e).abs() < 1e-6),
            "{normalised:?}"
        );
        let unmeasured = trial().statistics(&[&[0.0; 3], &[0.0; 3]]).merge();
        assert_eq!(unmeasured, [2.0, 2.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "the statistics of expert 2 of 2 are negative (-1 at element 1)")]
    fn negative_information_is_refused() {
        trial().statistics(&[&[1.0; 3], &[0.0, -1.0, 0.0]]).merge();
    }

    #[test]
    #[should_panic(expected = "use a newer one")]
    fn a_host_without_statistics_is_told_so() {
        trial().set("normalize", false).merge();
    }
}
