//! `consensus`: what several tasks want of the merged task vector.

use skillweld_plugin_sdk::{Block, MaskMethod, Masks, Param, Params, Plan, Result, Spec, laws, vectorize};

use crate::tall::localize;

/// M = 1\[ Σ_k M_k ≥ `min_tasks` \] with the TALL masks M_k = 1\[ |τ_k| > λ_k |τ − τ_k| \]: the same mask for every task.
///
/// 2 removes what no task wants (the paper's catastrophic weights) and what one alone does (its selfish ones), 1 only the
/// former. The published code takes any number; one that no entry can reach is refused here.
pub struct Consensus;

impl MaskMethod for Consensus {
    fn spec() -> Spec {
        Spec::new("consensus", "keeps, for every task, what the TALL masks of several tasks keep")
            .citation(crate::CITATION)
            .param(crate::lambda())
            .param(
                Param::integer("min_tasks")
                    .default(2)
                    .at_least(1.0)
                    .describe("how many tasks have to keep an entry; 1 removes only what no task keeps"),
            )
            .task_vectors()
            .experts(2..)
            .laws(laws::IDENTITY | laws::PERMUTATION | laws::HOMOGENEOUS)
    }

    fn plan(params: &Params<'_>) -> Result<Plan> {
        let (wanted, tasks) = (params.integer("min_tasks"), params.experts());
        if wanted > tasks as i64 {
            return Err(format!(
                "`min_tasks` is {wanted}, but there are {tasks} tasks: no entry would be kept; set at most {tasks}"
            )
            .into());
        }
        Ok(Plan::default())
    }

    fn run(block: &Block<'_>, masks: &mut Masks<'_>) -> Result {
        let lambdas = block.expert_numbers("lambda");
        let wanted = u16::try_from(block.integer("min_tasks")).unwrap_or(u16::MAX);
        let mut own = [0; TILE / 8];
        for start in (0..block.len()).step_by(TILE) {
            let end = block.len().min(start + TILE);
            let bytes = (end - start).div_ceil(8);
            let mut counts = [0; TILE];
            for (k, &lambda) in lambdas.iter().enumerate() {
                let (expert, merged) = (&block.expert(k)[start..end], &block.merged()[start..end]);
                localize(&mut own[..bytes], expert, merged, lambda as f32);
                count(&mut counts, &own[..bytes]);
            }
            at_least(&mut own[..bytes], &counts, wanted);
            for k in 0..block.experts() {
                masks.expert(k)[start / 8..][..bytes].copy_from_slice(&own[..bytes]);
            }
        }
        Ok(())
    }
}

/// Elements counted at a time.
const TILE: usize = 1024;

vectorize! {
    /// Adds a mask to the number of masks that keep each element.
    fn count(counts: &mut [u16; TILE], bits: &[u8]) {
        for (counts, bits) in counts.chunks_exact_mut(8).zip(bits) {
            for (i, count) in counts.iter_mut().enumerate() {
                *count += u16::from(bits >> i & 1);
            }
        }
    }

    fn at_least(bits: &mut [u8], counts: &[u16; TILE], wanted: u16) {
        for (bits, counts) in bits.iter_mut().zip(counts.chunks_exact(8)) {
            *bits = 0;
            for (i, count) in counts.iter().enumerate() {
                *bits |= u8::from(*count >= wanted) << i;
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
            elements in proptest::collection::vec((-2f32..2.0, -2f32..2.0, -2f32..2.0, -4f32..4.0), 1..2500),
            lambdas in (0f64..1.5, 0f64..1.5, 0f64..1.5),
            min_tasks in 1..=3i32,
            block_len in 1usize..3000,
        ) {
            let rows = [0, 1, 2, 3].map(|k| elements.iter().map(|e| [e.0, e.1, e.2, e.3][k]).collect::<Vec<f32>>());
            let lambdas = [lambdas.0, lambdas.1, lambdas.2];
            let masks = Trial::of::<Consensus>()
                .experts(&[&rows[0], &rows[1], &rows[2]])
                .merged(&rows[3])
                .per_expert("lambda", &lambdas)
                .set("min_tasks", min_tasks)
                .block_len(block_len)
                .masks();
            for i in 0..elements.len() {
                let keeps = |k: usize| rows[k][i].abs() > lambdas[k] as f32 * (rows[3][i] - rows[k][i]).abs();
                let kept = (0..3).filter(|&k| keeps(k)).count() >= min_tasks as usize;
                prop_assert!(masks.iter().all(|mask| mask[i] == kept), "element {i}");
            }
        }
    }

    #[test]
    fn known_values() {
        // Wanted by both, by the second alone, by none: the two cancel.
        let trial = || {
            Trial::of::<Consensus>()
                .experts(&[&[1.0, 0.0, 1.0], &[1.0, 2.0, -1.0]])
                .merged(&[2.0, 2.0, 0.0])
                .per_expert("lambda", &[0.6, 0.6])
        };
        assert_eq!(trial().masks(), [[true, false, true]; 2]);
        assert_eq!(trial().set("min_tasks", 1).masks(), [[true, true, true]; 2]);
        assert_eq!(trial().per_expert("lambda", &[1.0, 1.0]).masks(), [[false; 3]; 2]);
    }

    #[test]
    #[should_panic(
        expected = "`min_tasks` is 3, but there are 2 tasks: no entry would be kept; set at most 2"
    )]
    fn more_tasks_than_there_are_is_refused() {
        Trial::of::<Consensus>().experts(&[&[1.0], &[1.0]]).merged(&[1.0]).set("min_tasks", 3).masks();
    }
}
