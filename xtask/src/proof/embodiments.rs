//! One merged policy for arms of different shapes, each with an expert of its own: after RoboTwin's setting in MergeVLA (arXiv
//! 2511.18810).

use anyhow::{Result, bail, ensure};
use skillweld_rate::Rate;

use super::arena::Arena;
use super::page::{Claim, Section, Verdict};
use super::recipe::{Mask, Member, Recipe};

const TRIALS: &str = "--split final --episodes 10 --actions 4";

/// An expert for one arm.
fn member(suite: &str, arm: &str) -> Member {
    let expert = match arm {
        "so101" => suite.to_owned(),
        _ => format!("{suite}-{arm}"),
    };
    Member {
        name: arm.into(),
        expert,
        own: format!("--suite {suite} --embodiment {arm}"),
        parameters: String::new(),
    }
}

/// What each arm's own is, where all do the same and where each does something else.
fn settings() -> [(&'static str, [Member; 3]); 2] {
    [
        ("same", [member("spatial", "so101"), member("spatial", "long"), member("spatial", "parallel")]),
        ("different", [member("spatial", "so101"), member("object", "long"), member("goal", "parallel")]),
    ]
}

/// Experts that other arms have and the SO-101 has not: what is to be trained.
pub(crate) fn on_other_arms() -> impl Iterator<Item = Member> {
    settings().into_iter().flat_map(|(_, members)| members).filter(|member| member.name != "so101")
}

pub(super) fn embodiments(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    // Of the experts, then of merges with one and two blocks a task.
    let mut all = Vec::new();
    for (tasks, members) in settings() {
        let mut row = vec![format!("experts, {tasks} tasks")];
        let mut rates = Vec::new();
        for Member { expert, own, .. } in &members {
            let found = arena.evaluate(expert, &arena.expert(expert)?, &format!("{own} {TRIALS}"))?.all;
            row.push(found.to_string());
            rates.push(found);
        }
        let together: Rate = rates.into_iter().sum();
        all.push(together);
        row.extend([together.to_string(), String::new()]);
        rows.push(row);
        for head_blocks in 1..=2 {
            let (row, rate) = merged(arena, tasks, head_blocks)?;
            rows.push(row);
            all.push(rate);
        }
    }
    let [same, _, same_2, different, different_1, different_2] = all[..] else { bail!("a row is missing") };
    let claims = vec![
        Claim {
            text: "One task on three arms: the merge keeps nine tenths of the experts' success",
            paper: "88.7 of 88.0 (RoboTwin)",
            ours: format!("{same_2} of {same}"),
            verdict: Verdict::reached(same_2.share() >= 0.9 * same.share()),
        },
        Claim {
            text: "Another task on each arm: two own blocks beat one",
            paper: "70.7 and 59.3, experts 76 (RoboTwin)",
            ours: format!("{different_2} and {different_1}, experts {different}"),
            verdict: Verdict::larger(different_2, different_1),
        },
    ];
    let text = format!(
        "Arms of three shapes (`skillweld eval run --embodiment`): in *same* an expert each for the spatial suite; in *different* the \
         SO-101 has the spatial suite, the long arm the object suite, the one with sliding fingers the goal suite. MergeVLA with TIES, \
         calibrated routers: `{TRIALS}`."
    );
    let headings = ["", "so101", "long", "parallel", "all", "router"];
    Ok(Section { text, headings: headings.map(str::to_owned).to_vec(), rows, claims, ..Section::default() })
}

/// The row of a merge, each arm on its own suite, and the rate of all.
fn merged(arena: &Arena, tasks: &str, head_blocks: u32) -> Result<(Vec<String>, Rate)> {
    let members =
        || settings().into_iter().filter(|(name, _)| *name == tasks).flat_map(|(_, members)| members);
    let recipe = Recipe::ties(&Mask { head_blocks, ..Mask::default() }).of(members().collect());
    let name = format!("arms-{tasks}-{head_blocks}");
    let mut row = vec![format!("MergeVLA, {tasks} tasks, own blocks: {head_blocks}")];
    let mut rates = Vec::new();
    let mut router = Rate::default();
    for Member { name: arm, own, .. } in members() {
        let scores = arena.score(&name, &recipe, &format!("{own} {TRIALS}"))?;
        row.push(scores.all.to_string());
        rates.push(scores.all);
        for routed in &scores.routed {
            router.trials += routed.trials;
            router.successes += if routed.expert == arm { routed.trials } else { 0 };
        }
    }
    ensure!(router.trials > 0, "{name} has not routed");
    let all: Rate = rates.into_iter().sum();
    row.extend([all.to_string(), router.to_string()]);
    Ok((row, all))
}
