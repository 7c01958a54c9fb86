//! Which merge of all experts to take: by the selection split, one setting after the other.

use anyhow::{Context, Result};

use super::arena::{Arena, Scores};
use super::recipe::{Mask, PAPERS_TIES, Recipe, SUITES};

/// What settings are chosen by.
pub(super) const SELECTION: &str = "--split selection --episodes 5 --actions 4";

/// A method as MergeVLA's table has it.
#[derive(Clone, Copy)]
pub(super) struct Method {
    name: &'static str,
    parameters: &'static str,
    pub(super) title: &'static str,
    /// The paper's average over LIBERO's four suites.
    pub(super) paper: &'static str,
}

const fn method(
    name: &'static str,
    parameters: &'static str,
    title: &'static str,
    paper: &'static str,
) -> Method {
    Method { name, parameters, title, paper }
}

const TIES: Method = method("ties", PAPERS_TIES, "TIES", "90.2");
/// Of no paper; the only one here whose experts are weighed.
const SUBSET_MEAN: Method = method("subset_mean", "", "subset mean", "");

pub(super) const METHODS: [Method; 7] = [
    method("task_arithmetic", "", "task arithmetic", "89.7"),
    TIES,
    method("tsv", "", "TSV", "81.6"),
    method("knots", "", "KnOTS-TIES", "88.0"),
    method("wudi", "", "WUDI", "89.9"),
    method("emr", "", "EMR", "65.5"),
    SUBSET_MEAN,
];

/// Keep-ratios of TALL masks.
pub(super) const LAMBDAS: [&str; 5] = ["0.2", "0.4", "0.6", "0.8", "1.0"];
/// Of those, what is worth choosing from.
const CHOICE: [&str; 3] = ["0.6", "0.8", "1.0"];
const HEAD_BLOCKS: [u32; 3] = [1, 2, 3];
/// Of the experts in their order: what is long needs more of itself.
const WEIGHTS: [[u32; SUITES.len()]; 4] = [[1, 1, 1, 2], [1, 1, 2, 2], [1, 1, 1, 4], [1, 1, 2, 4]];

/// All experts in one policy, with masks.
#[derive(Clone)]
pub(super) struct Merge {
    method: Method,
    mask: Mask,
    /// Empty where all count alike.
    weights: Vec<u32>,
}

impl Merge {
    pub(super) fn ties(mask: Mask) -> Self {
        Self { method: TIES, mask, weights: Vec::new() }
    }

    /// With the paper's settings.
    pub(super) fn papers(method: Method) -> Self {
        let mask = match method.name {
            "emr" => Mask::emr(),
            // What it is made for, and no paper has.
            "subset_mean" => Mask::tall("1.0"),
            _ => Mask::default(),
        };
        Self { method, mask, weights: Vec::new() }
    }

    fn name(&self) -> String {
        let weights: String = self.weights.iter().map(|weight| format!("-{weight}")).collect();
        let mask = self.mask.how.replace([' ', ',', ':'], "");
        format!("{}-{mask}-{}{weights}", self.method.name, self.mask.head_blocks)
    }

    pub(super) fn title(&self) -> String {
        let mut title = format!("MergeVLA, {}", self.method.title);
        let papers = Self::papers(self.method).mask;
        if self.mask.how != papers.how || self.mask.head_blocks != papers.head_blocks {
            let how = self.mask.how.replace("method: tall, lambda:", "λ =");
            title = format!("{title}, {how}, own blocks: {}", self.mask.head_blocks);
        }
        if !self.weights.is_empty() {
            let weights: Vec<String> = self.weights.iter().map(u32::to_string).collect();
            title = format!("{title}, weights {}", weights.join(" : "));
        }
        title
    }

    fn recipe(&self) -> Recipe {
        let mut recipe = Recipe::masked(self.method.name, self.method.parameters, &self.mask);
        for (member, weight) in recipe.members.iter_mut().zip(&self.weights) {
            member.parameters = format!("weight: {weight}");
        }
        recipe
    }

    pub(super) fn score(&self, arena: &Arena, trials: &str) -> Result<Scores> {
        arena.score(&self.name(), &self.recipe(), trials)
    }

    /// Told the suite.
    pub(super) fn score_given(&self, arena: &Arena, trials: &str) -> Result<Scores> {
        arena.score_given(&self.name(), &self.recipe(), trials)
    }

    /// Of several, by the selection split; the first of equals.
    fn best(arena: &Arena, merges: impl IntoIterator<Item = Self>) -> Result<Self> {
        let mut best: Option<(f64, Self)> = None;
        for merge in merges {
            let share = merge.score(arena, SELECTION)?.all.share();
            if best.as_ref().is_none_or(|(most, _)| *most < share) {
                best = Some((share, merge));
            }
        }
        Ok(best.context("no merge")?.1)
    }

    /// What was chosen, and what with it is best: the paper's best method first.
    pub(super) fn steps(arena: &Arena) -> Result<Vec<(&'static str, Self)>> {
        let mut steps = vec![("the paper's", Self::ties(Mask::default()))];
        let method = Self::best(arena, METHODS.map(Self::papers))?;
        steps.push(("method", method.clone()));
        if method.method.name == "emr" {
            return Ok(steps);
        }
        let settings = CHOICE.into_iter().flat_map(|lambda| HEAD_BLOCKS.map(|depth| (lambda, depth)));
        let tuned = settings.map(|(lambda, head_blocks)| Self {
            mask: Mask { head_blocks, ..Mask::tall(lambda) },
            ..method.clone()
        });
        let tuned = Self::best(arena, [method.clone()].into_iter().chain(tuned))?;
        steps.push(("λ and own blocks", tuned.clone()));
        if method.method.name == SUBSET_MEAN.name {
            let weighed = WEIGHTS.map(|weights| Self { weights: weights.to_vec(), ..tuned.clone() });
            steps.push(("weights", Self::best(arena, [tuned].into_iter().chain(weighed))?));
        }
        Ok(steps)
    }

    /// What a user would take: the last of those steps.
    pub(super) fn chosen(arena: &Arena) -> Result<Self> {
        let (_, chosen) = Self::steps(arena)?.pop().context("no merge")?;
        Ok(chosen)
    }
}
