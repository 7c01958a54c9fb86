//! What MergeVLA's router is worth: subspaces, calibration, mistakes.

use anyhow::{Result, bail};

use super::arena::Arena;
use super::chart;
use super::choice::Merge;
use super::mergevla::{FINAL, beside, headings, row};
use super::page::{Claim, Section, Verdict};
use super::recipe::{Mask, Recipe, SUITES};

/// Few of each, for there are many routers.
const TRIALS: &str = "--split final --episodes 5 --actions 4";

/// The same trials, routed as the paper does.
fn raw(trials: &str) -> String {
    format!("{trials} --raw-scores")
}

/// What the router compares.
pub(super) fn router(arena: &Arena) -> Result<Section> {
    let variants = [
        ("values, rank 1", "", "rank: 1"),
        ("values, rank 4", "", "rank: 4"),
        ("values, rank 8", "89.7", "rank: 8"),
        ("values, rank 16", "", "rank: 16"),
        ("values of the merged expert, rank 8", "", "rank: 8, subspace: merged"),
        ("keys, rank 8", "53.6", "rank: 8, projections: k"),
        ("keys and values, rank 8", "65.1", "rank: 8, projections: kv"),
    ];
    let (mut rows, mut uncalibrated, mut calibrated) = (Vec::new(), Vec::new(), Vec::new());
    for (title, paper, router) in variants {
        let mask = Mask { router: router.to_owned(), ..Mask::default() };
        let name = format!("router-{}", router.replace([' ', ',', ':'], ""));
        let recipe = Recipe::ties(&mask);
        let scores = arena.score(&name, &recipe, &raw(TRIALS))?;
        rows.push(beside(paper, row(title, &scores)));
        uncalibrated.push(scores.all);
        let scores = arena.score(&name, &recipe, TRIALS)?;
        rows.push(beside("", row(format!("{title}, calibrated"), &scores)));
        calibrated.push(scores.all);
    }
    let [_, _, values, _, _, keys, both] = uncalibrated[..] else { bail!("a variant is missing") };
    let claims = vec![Claim {
        text: "Values alone route better than keys, alone or with values",
        paper: "89.7, 53.6, 65.1 (success, V, K, K&V)",
        ours: format!("{values}, {keys}, {both}"),
        verdict: Verdict::larger(values, keys).and(Verdict::larger(values, both)),
    }];
    let chart = chart::bars(
        "What the router compares",
        variants.map(|(title, ..)| title),
        &[("norms, as the paper", uncalibrated), ("calibrated", calibrated)],
    )?;
    let text = format!(
        "MergeVLA with TIES and different routers: `{TRIALS}`. *Calibrated*: instead of norms in the subspaces, how likely an observation \
         is among a task's own, by where the first observations of ten demonstrations of each of its tasks lie in the same subspaces \
         (`skillweld calibrate-router`), without labels; the others compare norms, as the paper does. All other tables are of calibrated \
         routers."
    );
    Ok(Section { text, headings: beside("paper", headings("subspaces")), rows, charts: vec![chart], claims })
}

/// Which expert ran where.
pub(super) fn confusion(arena: &Arena) -> Result<Section> {
    let chosen = Merge::chosen(arena)?;
    let mut rows = Vec::new();
    for (kind, words) in [("raw", raw(FINAL)), ("calibrated", FINAL.to_owned())] {
        let scores = chosen.score(arena, &words)?;
        for suite in SUITES {
            let of = |expert: &str| {
                let routed =
                    scores.routed.iter().find(|routed| routed.suite == suite && routed.expert == expert);
                routed.map_or(0, |routed| routed.trials).to_string()
            };
            rows.push([vec![format!("{suite}, {kind} scores")], SUITES.map(of).to_vec()].concat());
        }
    }
    let experts = SUITES.map(|suite| format!("{suite}'s expert")).to_vec();
    Ok(Section {
        text: format!("{}: trials of a suite, by the expert that ran; `{FINAL}`.", chosen.title()),
        headings: [vec!["suite".to_owned()], experts].concat(),
        rows,
        ..Section::default()
    })
}
