//! `tall`: what of the merged task vector belongs to each task.

use skillweld_plugin_sdk::{Block, CudaCode, MaskMethod, Masks, Result, Spec, laws, pack_bits, vectorize};

/// M_k = 1\[ |τ_k| > λ |τ − τ_k| \].
pub struct Tall;

impl MaskMethod for Tall {
    fn spec() -> Spec {
        Spec::new("tall", "keeps what lies closer to the expert than to the others' sum")
            .citation(crate::CITATION)
            .param(crate::lambda())
            .task_vectors()
            .laws(laws::PERMUTATION | laws::KEEPS_ITSELF)
    }

    fn run(block: &Block<'_>, masks: &mut Masks<'_>) -> Result {
        for (k, &lambda) in block.expert_numbers("lambda").iter().enumerate() {
            localize(masks.expert(k), block.expert(k), block.merged(), lambda as f32);
        }
        Ok(())
    }

    const CUDA: Option<CudaCode> =
        Some(CudaCode::new(include_bytes!("../device/tall.fatbin"), "tall_run", 256));
}

vectorize! {
    /// The bits of one expert's TALL mask.
    pub(crate) fn localize(bits: &mut [u8], expert: &[f32], merged: &[f32], lambda: f32) {
        for ((bits, expert), merged) in bits.chunks_mut(8).zip(expert.chunks(64)).zip(merged.chunks(64)) {
            let mut kept = [false; 64];
            for ((kept, expert), merged) in kept.iter_mut().zip(expert).zip(merged) {
                *kept = expert.abs() > lambda * (merged - expert).abs();
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

    proptest! {
        #[test]
        fn equals_the_definition(
            elements in proptest::collection::vec((-2f32..2.0, -2f32..2.0, -2f32..2.0), 1..300),
            lambda in 0f64..1.5,
            block_len in 1usize..200,
        ) {
            let [a, b, merged] = [0, 1, 2].map(|k| elements.iter().map(|e| [e.0, e.1, e.2][k]).collect::<Vec<f32>>());
            let masks = Trial::of::<Tall>()
                .experts(&[&a, &b])
                .merged(&merged)
                .per_expert("lambda", &[lambda, 0.6])
                .block_len(block_len)
                .masks();
            for (mask, expert, lambda) in [(&masks[0], &a, lambda as f32), (&masks[1], &b, 0.6)] {
                for i in 0..merged.len() {
                    prop_assert_eq!(mask[i], expert[i].abs() > lambda * (merged[i] - expert[i]).abs());
                }
            }
        }
    }

    #[test]
    fn a_single_expert_keeps_all_its_nonzero_elements() {
        let values = [1.0, 0.0, -1e-30, f32::MIN_POSITIVE, -0.0];
        let masks = Trial::of::<Tall>().experts(&[&values]).merged(&values).masks();
        assert_eq!(masks[0], [true, false, true, true, false]);
    }
}
