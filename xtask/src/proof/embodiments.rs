//! One merged policy for arms of different shapes, each with an expert of its own: after RoboTwin's setting in MergeVLA (arXiv
//! 2511.18810).

use anyhow::{Result, ensure};

use super::arena::Arena;
use super::page::{Claim, Section, percent};
use super::recipe::{Mask, Member, Recipe};

const TRIALS: &str = "--split final --episodes 20 --actions 4";

/// An expert for one arm.
fn member(suite: &str, arm: &str) -> Member {
    let expert = match arm {
        "so101" => suite.to_owned(),
        _ => format!("{suite}-{arm}"),
    };
    Member { name: arm.into(), expert, own: format!("--suite {suite} --embodiment {arm}") }
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
    // Averages of the experts, then of merges with one and two blocks a task.
    let mut averages = Vec::new();
    for (tasks, members) in settings() {
        let mut row = vec![format!("experts, {tasks} tasks")];
        let mut sum = 0.0;
        for Member { expert, own, .. } in &members {
            let found = arena.evaluate(expert, &arena.expert(expert)?, &format!("{own} {TRIALS}"))?.all;
            row.push(found.to_string());
            sum += found.share;
        }
        averages.push(sum / members.len() as f64);
        row.extend([percent(sum / members.len() as f64), String::new()]);
        rows.push(row);
        for head_blocks in 1..=2 {
            let (row, average) = merged(arena, tasks, head_blocks)?;
            rows.push(row);
            averages.push(average);
        }
    }
    let claims = vec![
        Claim {
            text: "One task on three arms: the merge keeps nine tenths of the experts' success",
            paper: "88.7 of 88.0 (RoboTwin)",
            ours: format!("{} of {}", percent(averages[2]), percent(averages[0])),
            holds: averages[2] >= 0.9 * averages[0],
        },
        Claim {
            text: "Another task on each arm: two own blocks beat one",
            paper: "70.7 and 59.3, experts 76 (RoboTwin)",
            ours: format!(
                "{} and {}, experts {}",
                percent(averages[5]),
                percent(averages[4]),
                percent(averages[3])
            ),
            holds: averages[5] > averages[4],
        },
    ];
    let text = format!(
        "Arms of three shapes (`skillweld eval run --embodiment`): in *same* an expert each for the spatial suite; in *different* the \
         SO-101 has the spatial suite, the long arm the object suite, the one with sliding fingers the goal suite. MergeVLA with TIES, \
         calibrated routers: `{TRIALS}`."
    );
    let headings = ["", "so101", "long", "parallel", "average", "router"];
    Ok(Section { text, headings: headings.map(str::to_owned).to_vec(), rows, claims })
}

/// The row of a merge, each arm on its own suite, and the average.
fn merged(arena: &Arena, tasks: &str, head_blocks: u32) -> Result<(Vec<String>, f64)> {
    let members =
        || settings().into_iter().filter(|(name, _)| *name == tasks).flat_map(|(_, members)| members);
    let recipe = Recipe::ties(&Mask { head_blocks, ..Mask::default() }).of(members().collect());
    let name = format!("arms-{tasks}-{head_blocks}");
    let mut row = vec![format!("MergeVLA, {tasks} tasks, own blocks: {head_blocks}")];
    let (mut sum, mut right, mut trials, mut count) = (0.0, 0, 0, 0);
    for Member { name: arm, own, .. } in members() {
        let scores = arena.score(&name, &recipe, &format!("{own} {TRIALS}"))?;
        row.push(scores.all.to_string());
        sum += scores.all.share;
        count += 1;
        for routed in &scores.routed {
            trials += routed.trials;
            right += if routed.expert == arm { routed.trials } else { 0 };
        }
    }
    ensure!(trials > 0, "{name} has not routed");
    let average = sum / f64::from(count);
    row.extend([percent(average), percent(right as f64 / trials as f64)]);
    Ok((row, average))
}
