//! Sign masks and rescalers.

use skillweld_plugin_sdk::{
    Block, MaskMethod, Masks, Params, Plan, Result, Spec, laws, pack_bits, vectorize,
};

/// M_k = 1\[ τ_k and τ have the same nonzero sign \]; rescaler_k = Σ mean|τ_k| / Σ mean|M_k ⊙ τ|, sums over all tensors.
pub struct EmrMask;

impl MaskMethod for EmrMask {
    fn spec() -> Spec {
        Spec::new(
            "emr",
            "keeps where the expert has the merged sign; rescales to the expert's mean magnitude",
        )
        .citation(crate::CITATION)
        .task_vectors()
        .rescales()
        .laws(laws::PERMUTATION | laws::KEEPS_ITSELF)
    }

    /// For each expert Σ mean|τ_k| and Σ mean|M_k ⊙ τ|.
    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(Plan::global([2 * params.experts()]))
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        // A tensor without elements adds nothing, rather than 0 / 0.
        let numel = block.numel().max(1) as f64;
        for (k, sums) in sums.chunks_exact_mut(2).enumerate() {
            let [own, masked] = magnitudes(block.expert(k), block.merged());
            sums[0] += own / numel;
            sums[1] += masked / numel;
        }
        Ok(())
    }

    fn run(block: &Block<'_>, masks: &mut Masks<'_>) -> Result {
        for k in 0..block.experts() {
            same_sign(masks.expert(k), block.expert(k), block.merged());
        }
        Ok(())
    }

    fn rescale(block: &Block<'_>, rescalers: &mut [f32]) -> Result {
        for (rescaler, sums) in rescalers.iter_mut().zip(block.totals().chunks_exact(2)) {
            // A mask without a bit makes the factor meaningless, not infinite.
            *rescaler = if sums[1] == 0.0 { 1.0 } else { (sums[0] / sums[1]) as f32 };
        }
        Ok(())
    }
}

/// Compares signs: a product of two small numbers would underflow to zero.
#[inline(always)]
fn agree(a: f32, b: f32) -> bool {
    ((a > 0.0) & (b > 0.0)) | ((a < 0.0) & (b < 0.0))
}

vectorize! {
    /// Σ|τ_k| and Σ|M_k ⊙ τ| in f64, in 16 running sums each so that the loop vectorises without reordering.
    fn magnitudes(expert: &[f32], merged: &[f32]) -> [f64; 2] {
        let mut sums = [[0.0; 16]; 2];
        for (expert, merged) in expert.chunks(16).zip(merged.chunks(16)) {
            for (lane, (&expert, &merged)) in expert.iter().zip(merged).enumerate() {
                sums[0][lane] += f64::from(expert.abs());
                sums[1][lane] += if agree(expert, merged) { f64::from(merged.abs()) } else { 0.0 };
            }
        }
        sums.map(|lanes| lanes.iter().sum())
    }

    fn same_sign(bits: &mut [u8], expert: &[f32], merged: &[f32]) {
        for ((bits, expert), merged) in bits.chunks_mut(8).zip(expert.chunks(64)).zip(merged.chunks(64)) {
            let mut kept = [false; 64];
            for ((kept, &expert), &merged) in kept.iter_mut().zip(expert).zip(merged) {
                *kept = agree(expert, merged);
            }
            pack_bits(&kept[..expert.len()], bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    #[test]
    fn a_tensor_without_elements_adds_nothing_to_the_rescaler() {
        let trial =
            Trial::of::<EmrMask>().experts(&[&[]]).merged(&[]).experts(&[&[2.0, 4.0]]).merged(&[1.0, -1.0]);
        assert_eq!(trial.rescalers(), [6.0]);
    }

    proptest! {
        #[test]
        fn equals_the_definition(
            elements in proptest::collection::vec((-2f32..2.0, prop::sample::select(vec![0f32, -0.0, 1e-30, -3.0])), 1..300),
        ) {
            let (expert, merged): (Vec<f32>, Vec<f32>) = elements.iter().copied().unzip();
            let trial = Trial::of::<EmrMask>().experts(&[&expert, &merged]).merged(&merged).block_len(64);
            let masks = trial.masks();
            let (mut own, mut masked) = (0.0, 0.0);
            for (i, &(e, m)) in elements.iter().enumerate() {
                let kept = e != 0.0 && m != 0.0 && e.is_sign_positive() == m.is_sign_positive();
                prop_assert_eq!(masks[0][i], kept);
                prop_assert_eq!(masks[1][i], m != 0.0);
                own += f64::from(e.abs());
                masked += if kept { f64::from(m.abs()) } else { 0.0 };
            }
            let expected = if masked == 0.0 { 1.0 } else { own / masked };
            prop_assert!((f64::from(trial.rescalers()[0]) / expected - 1.0).abs() < 1e-6);
            prop_assert_eq!(trial.rescalers()[1], 1.0);
        }
    }
}
