//! `dare_slerp`: spherical interpolation towards a model of whose changes some are dropped at random.

use skillweld_plugin_sdk::gram::Gram;
use skillweld_plugin_sdk::{Block, MergeMethod, Param, Params, Plan, Random, Result, Spec, laws, vectorize};

use crate::slerp::{combine, factors};

/// Elements thinned out at a time: they stay in the first cache, and are whole tiles of random numbers.
const TILE: usize = 1024;

/// With τ = b − a: b' = a + τ/density where an element's random number says so, else a; then as [`Slerp`](crate::Slerp)
/// from a to b'. At density 1 it is slerp.
///
/// With `rescale: false` what is kept of τ stays as large as it is.
pub struct DareSlerp;

impl MergeMethod for DareSlerp {
    fn spec() -> Spec {
        Spec::new("dare_slerp", "spherical interpolation towards a randomly thinned second model")
            .citation("Yu et al., Language models are super Mario, ICML 2024, arXiv 2311.03099")
            .param(Param::number("t").describe("0 gives the first model, 1 the thinned second one"))
            .param(
                Param::number("density")
                    .default(1.0)
                    .range(0.0..=1.0)
                    .describe("chance of each element's change to be kept"),
            )
            .param(Param::boolean("rescale").default(true).describe("divide what is kept by the density"))
            .experts(2..=2)
            .laws(laws::IDENTITY)
            .propagates_non_finite()
            .random()
    }

    fn plan(_: &Params<'_>) -> Result<Plan> {
        Ok(Plan::per_tensor([Gram::sums_len(2)]))
    }

    fn observe(block: &Block<'_>, _pass: usize, sums: &mut [f64]) -> Result {
        let thinning = Thinning::new(block);
        let mut thinned = [0.0; TILE];
        for start in (0..block.len()).step_by(TILE) {
            let (a, thinned) = thinning.tile(start, &mut thinned);
            Gram::observe(&[a, thinned], sums);
        }
        Ok(())
    }

    fn run(block: &Block<'_>, out: &mut [f32]) -> Result {
        let t = block.number("t");
        let by = factors(block.totals(), t);
        let thinning = Thinning::new(block);
        let mut thinned = [0.0; TILE];
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let (a, thinned) = thinning.tile(tile * TILE, &mut thinned);
            combine(out, a, thinned, t, by);
        }
        Ok(())
    }
}

struct Thinning<'a> {
    first: &'a [f32],
    second: &'a [f32],
    offset: u64,
    random: Random,
    /// What is kept is multiplied by this.
    scale: f32,
    /// Kept are elements whose number lies below; `None`: all.
    below: Option<u32>,
}

impl<'a> Thinning<'a> {
    fn new(block: &Block<'a>) -> Self {
        let density = block.number("density");
        let rescaled = block.boolean("rescale") && density > 0.0;
        Self {
            first: block.expert(0),
            second: block.expert(1),
            offset: block.offset(),
            random: block.random(1),
            scale: if rescaled { (1.0 / density) as f32 } else { 1.0 },
            // The conversion saturates: a density just below 1 keeps all but one number in 2³².
            below: (density < 1.0).then_some((density * 4_294_967_296.0) as u32),
        }
    }

    /// A tile of the first model, and of the thinned second one.
    fn tile<'t>(&'t self, start: usize, thinned: &'t mut [f32; TILE]) -> (&'t [f32], &'t [f32]) {
        let end = (start + TILE).min(self.first.len());
        let (a, b) = (&self.first[start..end], &self.second[start..end]);
        let Some(below) = self.below else { return (a, b) };
        let mut numbers = [0; TILE];
        let numbers = &mut numbers[..a.len()];
        self.random.fill(self.offset + start as u64, numbers);
        let thinned = &mut thinned[..a.len()];
        thin(thinned, a, b, numbers, below, self.scale);
        (a, thinned)
    }
}

vectorize! {
    fn thin(out: &mut [f32], a: &[f32], b: &[f32], numbers: &[u32], below: u32, scale: f32) {
        for (((out, a), b), &number) in out.iter_mut().zip(a).zip(b).zip(numbers) {
            // Not a choice between values: where b is not finite the product is not either, and stays seen.
            let kept = if number < below { scale } else { 0.0 };
            *out = a + kept * (b - a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slerp;
    use proptest::prelude::*;
    use skillweld_plugin_sdk::trial::Trial;

    proptest! {
        /// Thinned element by element, by the numbers of the seed, and then handed to slerp.
        #[test]
        fn equals_slerp_of_what_is_thinned_by_hand(
            elements in proptest::collection::vec((-1f32..1.0, -1f32..1.0), 8..3000),
            (t, density, seed, rescale) in (0f64..1.0, 0.05f64..1.0, any::<u64>(), any::<bool>()),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = elements.into_iter().unzip();
            let mut numbers = vec![0u32; a.len()];
            Random::new(seed, 1).fill(0, &mut numbers);
            let scale = if rescale { (1.0 / density) as f32 } else { 1.0 };
            let by_hand: Vec<f32> = (0..a.len())
                .map(|i| if f64::from(numbers[i]) < density * 4_294_967_296.0 { a[i] + scale * (b[i] - a[i]) } else { a[i] })
                .collect();
            let merged = Trial::of::<DareSlerp>()
                .experts(&[&a, &b])
                .set("t", t)
                .set("density", density)
                .set("rescale", rescale)
                .seed(seed)
                .block_len(1000)
                .merge();
            let expected = Trial::of::<Slerp>().experts(&[&a, &by_hand]).set("t", t).merge();
            for (i, (merged, expected)) in merged.iter().zip(&expected).enumerate() {
                // The totals are folded in other blocks: factors differ in their last bits, by up to 32 of them (see slerp).
                let bound = 64.0 * f32::EPSILON * (a[i].abs() + by_hand[i].abs());
                prop_assert!((merged - expected).abs() <= bound, "{i}: {merged} {expected}");
            }
        }
    }

    #[test]
    fn about_as_much_is_kept_as_the_density_says() {
        let (a, b) = (vec![0.0; 1 << 14], vec![1.0; 1 << 14]);
        let merged = Trial::of::<DareSlerp>()
            .experts(&[&a, &b])
            .set("t", 1.0)
            .set("density", 0.25)
            .set("rescale", false)
            .seed(5)
            .merge();
        // From a zero vector, at a right angle to everything, the end is the thinned model itself.
        let kept = merged.iter().filter(|&&x| x == 1.0).count();
        assert!(merged.iter().all(|&x| x == 0.0 || x == 1.0));
        // Five standard deviations of a binomial.
        assert!(kept.abs_diff(1 << 12) < 277, "{kept}");
    }

    #[test]
    fn at_density_one_it_is_slerp() {
        let (a, b) = ([1.0, 2.0, 0.5], [0.5, -1.0, 2.0]);
        let dare = Trial::of::<DareSlerp>().experts(&[&a, &b]).set("t", 0.3).merge();
        assert_eq!(dare, Trial::of::<Slerp>().experts(&[&a, &b]).set("t", 0.3).merge());
    }
}
