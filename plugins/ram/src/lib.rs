//! Reinforced Agent Merging (arXiv 2601.13572): entries that one expert alone has changed are kept as they are, or made
//! larger; those that several have changed are averaged over these.

use skillweld_plugin_sdk::trim::Scope;
use skillweld_plugin_sdk::{
    Block, MergeMethod, Param, Params, Plan, Result, Spec, export_methods, laws, vectorize,
};

export_methods!(merge: [Ram, RamPlusTl]);

/// τ = Σ τ_k / c over the c experts whose |τ_k| is above ε; zero where there are none.
pub struct Ram;

/// As [`Ram`], but an entry that expert k alone has changed is multiplied by λ_k = 1 + r · min(ρ_k, α), where ρ_k is the
/// number of entries that it shares with others over the number of those that it does not.
///
/// `scope` says over what ρ_k is counted: each tensor by itself (*tensor-local*, as mergekit does) or the whole task
/// vector (as the paper does).
pub struct RamPlusTl;

impl MergeMethod for Ram {
    fn spec() -> Spec {
        spec("ram", "mean over the experts that changed an entry")
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let experts = block.all_experts();
        merge(out, &experts, &vec![1.0; experts.len()], block.number("epsilon") as f32);
        Ok(())
    }
}

impl MergeMethod for RamPlusTl {
    fn spec() -> Spec {
        spec("ramplus_tl", "mean over the experts that changed an entry; a lone one counts more")
            .param(
                Param::number("r")
                    .default(0.1)
                    .describe("how much more, for each shared entry per unshared one"),
            )
            .param(
                Param::number("alpha")
                    .default(0.2)
                    .at_least(0.0)
                    .describe("most shared entries per unshared one that count"),
            )
            .param(
                Param::choice("scope", &["tensor", "global"])
                    .default("tensor")
                    .describe("over what entries are counted"),
            )
    }

    /// For each expert the entries that it shares, and those that it does not.
    fn plan(params: &Params<'_>) -> Result<Plan> {
        Ok(Scope::of(params).plan([2 * params.experts()]))
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        count(&block.all_experts(), block.number("epsilon") as f32, sums);
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let (r, alpha) = (block.number("r"), block.number("alpha"));
        let factor = |&[shared, own]: &[f64; 2]| {
            // Without entries of its own there is nothing to multiply.
            if own > 0.0 { (1.0 + r * (shared / own).min(alpha)) as f32 } else { 1.0 }
        };
        let factors: Vec<f32> = block.totals().as_chunks::<2>().0.iter().map(factor).collect();
        merge(out, &block.all_experts(), &factors, block.number("epsilon") as f32);
        Ok(())
    }
}

fn spec(id: &'static str, summary: &'static str) -> Spec {
    Spec::new(id, summary)
        .citation(
            "Yuan et al., Behavior Knowledge Merge in Reinforced Agentic Models, 2026, arXiv 2601.13572",
        )
        .task_vectors()
        .param(
            Param::number("epsilon")
                .default(1e-5)
                .at_least(0.0)
                .describe("an entry of at most this magnitude counts as unchanged"),
        )
        .param(
            Param::number("weight")
                .default(1.0)
                .per_expert()
                .without_effect()
                .describe("experts count by what they changed"),
        )
        .laws(laws::PERMUTATION | laws::ZERO)
        .propagates_non_finite()
}

/// Elements worked on at a time: their counts stay in registers or the first cache.
const TILE: usize = 512;

/// Whether an entry counts as changed; NaN does.
#[inline(always)]
fn changed(value: f32, epsilon: f32) -> bool {
    (value.abs() > epsilon) | value.is_nan()
}

/// How many experts changed each element of tile number `tile`.
#[inline(always)]
fn changes(counts: &mut [f32], experts: &[&[f32]], tile: usize, epsilon: f32) {
    counts.fill(0.0);
    for expert in experts {
        for (count, &value) in counts.iter_mut().zip(&expert[tile * TILE..]) {
            *count += if changed(value, epsilon) { 1.0 } else { 0.0 };
        }
    }
}

vectorize! {
    /// `factors` are those of lone entries.
    fn merge(out: &mut [f32], experts: &[&[f32]], factors: &[f32], epsilon: f32) {
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let mut counts = [0f32; TILE];
            let counts = &mut counts[..out.len()];
            changes(counts, experts, tile, epsilon);
            out.fill(0.0);
            for (expert, &factor) in experts.iter().zip(factors) {
                for ((out, &count), &value) in out.iter_mut().zip(&*counts).zip(&expert[tile * TILE..]) {
                    let factor = if count == 1.0 { factor } else { 1.0 };
                    *out += if changed(value, epsilon) { factor * value } else { 0.0 };
                }
            }
            for (out, &count) in out.iter_mut().zip(&*counts) {
                *out /= if count == 0.0 { 1.0 } else { count };
            }
        }
    }

    /// Adds for each expert the entries that it shares, and those that it does not.
    fn count(experts: &[&[f32]], epsilon: f32, sums: &mut [f64]) {
        let len = experts.first().map_or(0, |expert| expert.len());
        for (tile, start) in (0..len).step_by(TILE).enumerate() {
            let mut counts = [0f32; TILE];
            let counts = &mut counts[..TILE.min(len - start)];
            changes(counts, experts, tile, epsilon);
            for (expert, sums) in experts.iter().zip(sums.chunks_exact_mut(2)) {
                let (mut shared, mut own) = (0u32, 0u32);
                for (&count, &value) in counts.iter().zip(&expert[start..]) {
                    let changed = changed(value, epsilon);
                    shared += u32::from(changed & (count > 1.0));
                    own += u32::from(changed & (count == 1.0));
                }
                sums[0] += f64::from(shared);
                sums[1] += f64::from(own);
            }
        }
    }
}

#[cfg(test)]
mod tests;
