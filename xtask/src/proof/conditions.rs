//! The same policies otherwise: chunks carried out in part, scenes unlike training.

use anyhow::Result;
use skillweld_rate::Rate;

use super::arena::Arena;
use super::chart;
use super::choice::Merge;
use super::mergevla::{experts, headings, row};
use super::page::{Claim, Section, Verdict};

/// How much of a chunk is carried out before the policy is asked again.
pub(super) fn actions(arena: &Arena) -> Result<Section> {
    let chosen = Merge::chosen(arena)?;
    let mut rows = Vec::new();
    for actions in [8, 4, 2] {
        let trials = format!("--split final --episodes 5 --actions {actions}");
        let (own, _) = experts(arena, "", &trials)?;
        rows.push([vec![format!("{actions}, experts")], own[1..].to_vec()].concat());
        let scores = chosen.score(arena, &trials)?;
        rows.push(row(format!("{actions}, merged"), &scores));
    }
    let text = "Actions of a chunk of eight that experts, and the merge that was chosen above, carry out before they are asked again; all other tables \
                carry out four: `--split final --episodes 5 --actions N`."
        .to_owned();
    Ok(Section { text, headings: headings("actions"), rows, ..Section::default() })
}

/// All kinds of perturbations.
const KINDS: [&str; 7] = ["camera", "background", "light", "layout", "robot_state", "noise", "language"];

/// Unlike training.
pub(super) fn perturbations(arena: &Arena) -> Result<Section> {
    let chosen = Merge::chosen(arena)?;
    let mut rows = Vec::new();
    let (mut of_experts, mut of_merged) = (Vec::new(), Vec::new());
    for kind in KINDS {
        let trials = format!("--split final --episodes 5 --actions 4 --perturb {kind}:medium");
        let (own, each) = experts(arena, "", &trials)?;
        rows.push([vec![format!("{kind}, experts")], own[1..].to_vec()].concat());
        let scores = chosen.score(arena, &trials)?;
        rows.push(row(format!("{kind}, merged"), &scores));
        of_experts.push(each.into_iter().sum());
        of_merged.push(scores.all);
    }
    let series = [("experts", of_experts), ("merged", of_merged)];
    let chart = chart::bars("Under perturbations", KINDS, &series)?;
    let [of_experts, of_merged] = series.map(|(_, rates)| rates.into_iter().sum::<Rate>());
    let claims = vec![Claim {
        text: "Unlike training, too, the merge keeps four fifths of the experts' success",
        paper: "62.5 of 72.4 (LIBERO-Plus)",
        ours: format!("{of_merged} of {of_experts}"),
        verdict: Verdict::reached(of_merged.share() >= 0.8 * of_experts.share()),
    }];
    let text =
        "Experts on their own suites, and the merge that was chosen above, under perturbations of medium strength: \
                `--split final --episodes 5 --actions 4 --perturb KIND:medium`."
            .to_owned();
    Ok(Section { text, headings: headings(""), rows, charts: vec![chart], claims })
}

#[cfg(test)]
mod tests {
    use skillweld_suites::PerturbationKind;

    use super::*;

    #[test]
    fn all_kinds_are_tried() {
        assert_eq!(KINDS, PerturbationKind::ALL.map(PerturbationKind::name));
    }
}
