//! The elected task vector.

use skillweld_plugin_sdk::{Block, MergeMethod, Result, Spec, laws, vectorize};

/// τ = σ ⊙ max |τ_k| over the experts that have the sign σ = sign(Σ τ_k). Where the sum is zero τ is zero.
pub struct Emr;

impl MergeMethod for Emr {
    fn spec() -> Spec {
        Spec::new("emr", "elected sign and largest magnitude among those who agree")
            .citation(crate::CITATION)
            .task_vectors()
            .emits_masks("emr")
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS | laws::ZERO | laws::SIGN_AGREEMENT)
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        elect(out, &block.all_experts());
        Ok(())
    }
}

/// Elements worked on at a time: the sums stay in registers or the first cache.
const TILE: usize = 512;

vectorize! {
    fn elect(out: &mut [f32], experts: &[&[f32]]) {
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let mut sums = [0f32; TILE];
            let sums = &mut sums[..out.len()];
            for expert in experts {
                for (sum, value) in sums.iter_mut().zip(&expert[tile * TILE..]) {
                    *sum += value;
                }
            }
            out.fill(0.0);
            for expert in experts {
                for ((out, sum), &value) in out.iter_mut().zip(&*sums).zip(&expert[tile * TILE..]) {
                    // Before any expert agreed `out` is zero, which is neither above nor below an agreeing value.
                    let up = (*sum > 0.0) & (value > *out);
                    let down = (*sum < 0.0) & (value < *out);
                    *out = if up | down { value } else { *out };
                }
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
            elements in proptest::collection::vec((-2f32..2.0, -2f32..2.0, prop::sample::select(vec![0f32, 1.0, -1.0])), 1..1500),
        ) {
            let experts = [0, 1, 2].map(|k| elements.iter().map(|e| [e.0, e.1, e.2][k]).collect::<Vec<f32>>());
            let merged = Trial::of::<Emr>().experts(&experts.each_ref().map(Vec::as_slice)).merge();
            for (i, &(a, b, c)) in elements.iter().enumerate() {
                let sign = match a + b + c {
                    sum if sum > 0.0 => 1.0,
                    sum if sum < 0.0 => -1.0,
                    _ => 0.0,
                };
                let agreeing = [a, b, c].into_iter().filter(|x| x * sign > 0.0).map(f32::abs);
                prop_assert_eq!(merged[i], sign * agreeing.fold(0.0, f32::max));
            }
        }
    }
}
