//! RETAIN's tables: how far to go from a policy that knows much to one that learned a task more, part by part, and task
//! after task (arXiv 2512.08333).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use skillweld_rate::Rate;

use super::arena::Arena;
use super::chart;
use super::page::{Claim, Section, Verdict};
use crate::train::{CHAIN_ALPHA, GENERALIST, SKILLS};

/// Trials of what the generalist was trained on: all tasks of its suites but the new ones.
fn known(arena: &Arena, split: &str) -> Result<String> {
    let new = |id: &str| SKILLS.iter().any(|(_, task)| *task == id);
    let tasks = arena.tasks()?.into_iter();
    let tasks = tasks.filter(|task| GENERALIST.contains(&task.suite.as_str()) && !new(&task.id));
    let named: String = tasks.map(|task| format!("--task {} ", task.id)).collect();
    // There are many policies to choose from, and few to report.
    let episodes = if split == "final" { 10 } else { 5 };
    Ok(format!("{named}--split {split} --episodes {episodes} --actions 4"))
}

/// Unlike demonstrations: what the pretrained policy may have learned to bear, and fifty of them cannot show.
const UNLIKE: &str =
    "--perturb camera:medium --perturb background:strong --perturb light:strong --perturb layout:medium";
/// What a policy can do: the new task, the same unlike training, and what was known before.
struct Abilities {
    new: Rate,
    unlike: Rate,
    known: Rate,
}

impl Abilities {
    fn of(arena: &Arena, name: &str, policy: &Path, split: &str) -> Result<Self> {
        let rate = |words: String| -> Result<Rate> { Ok(arena.evaluate(name, policy, &words)?.all) };
        Ok(Self {
            new: rate(format!("--task goal_stack --split {split} --episodes 40 --actions 4"))?,
            unlike: rate(format!("--task goal_stack --split {split} --episodes 20 --actions 4 {UNLIKE}"))?,
            known: rate(known(arena, split)?)?,
        })
    }

    fn cells(&self) -> [String; 3] {
        [self.new, self.unlike, self.known].map(|rate| rate.to_string())
    }
}

/// α = 0 is the generalist itself, 1 the finetuned policy, which is an adapter on it.
fn between(arena: &Arena, finetuned: &str, alpha: &str) -> Result<(String, PathBuf)> {
    let (from, to) = (arena.expert("generalist")?, arena.expert(finetuned)?);
    match alpha {
        "0" => Ok(("generalist".to_owned(), from)),
        _ => {
            let name = format!("{finetuned}-{alpha}");
            let policy = arena.retain(&name, (&from, &to), &format!("--alpha {alpha}"))?;
            Ok((name, policy))
        }
    }
}

/// How far to go. The best α is chosen on the selection split by what it does unlike training.
pub(super) fn alphas(arena: &Arena) -> Result<Section> {
    let (mut rows, mut charts, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for (finetuned, title) in [("stack", "alone"), ("stack-cotrained", "co-trained")] {
        let mut best: Option<(f64, &str)> = None;
        let mut points = Vec::new();
        for alpha in ["0", "0.1", "0.3", "0.5", "0.7", "0.9", "1"] {
            let (name, policy) = between(arena, finetuned, alpha)?;
            let found = Abilities::of(arena, &name, &policy, "selection")?;
            rows.push([vec![format!("{title}, {alpha}, selection")], found.cells().to_vec()].concat());
            if best.is_none_or(|(share, _)| share < found.unlike.share()) {
                best = Some((found.unlike.share(), alpha));
            }
            points.push((alpha.parse()?, found));
        }
        charts.push(curves(&format!("Finetuned on the new task {title}"), &points)?);
        let (_, alpha) = best.context("no α")?;
        let mut finals = Vec::new();
        for alpha in ["0", alpha, "1"] {
            let (name, policy) = between(arena, finetuned, alpha)?;
            let found = Abilities::of(arena, &name, &policy, "final")?;
            let row = [vec![format!("{title}, {alpha}, final")], found.cells().to_vec()].concat();
            // What was chosen may be one of the others.
            if !rows.contains(&row) {
                rows.push(row);
            }
            finals.push(found);
        }
        let [pretrained, chosen, whole] = finals.try_into().ok().context("three policies")?;
        claims.extend(alpha_claims(title == "alone", &pretrained, &chosen, &whole));
    }
    let text = format!(
        "`generalist` and a policy finetuned on fifty demonstrations of a task that it had never seen (`goal_stack`), and what lies \
         between at α (`skillweld retain`): success in the new task, in the same unlike demonstrations ({UNLIKE}), and in all that the \
         generalist was trained on."
    );
    let headings = ["demonstrations, α, split", "new task", "unlike training", "known tasks"];
    Ok(Section { text, headings: headings.map(str::to_owned).to_vec(), rows, charts, claims })
}

/// Abilities by α.
fn curves(title: &str, points: &[(f64, Abilities)]) -> Result<String> {
    let of =
        |rate: fn(&Abilities) -> Rate| points.iter().map(|(alpha, found)| (*alpha, rate(found))).collect();
    let series = [
        ("new task", of(|found| found.new)),
        ("unlike training", of(|found| found.unlike)),
        ("known tasks", of(|found| found.known)),
    ];
    chart::lines(title, "α", &series)
}

fn alpha_claims(alone: bool, pretrained: &Abilities, chosen: &Abilities, whole: &Abilities) -> [Claim; 2] {
    let (unlike, known) = match alone {
        true => (
            "The chosen α beats the finetuned and the pretrained policy unlike training",
            "It stays within ten points of the pretrained policy in what was known",
        ),
        false => (
            "The same, co-trained: beats both unlike training",
            "The same, co-trained: within ten points in what was known",
        ),
    };
    [
        Claim {
            text: unlike,
            paper: "an independent reproduction: 45 to 50",
            ours: format!("{}, {} and {}", chosen.unlike, whole.unlike, pretrained.unlike),
            verdict: Verdict::larger(chosen.unlike, whole.unlike)
                .and(Verdict::larger(chosen.unlike, pretrained.unlike)),
        },
        Claim {
            text: known,
            paper: "an independent reproduction: 38 of 66.5",
            ours: format!("{} of {}", chosen.known, pretrained.known),
            verdict: Verdict::reached(chosen.known.share() >= pretrained.known.share() - 0.1),
        },
    ]
}

/// Each part of the model on its own.
pub(super) fn modalities(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    let (from, to) = (arena.expert("generalist")?, arena.expert("stack")?);
    for (title, words) in [
        ("all parts", "--alpha 0.5"),
        ("vision alone", "--alpha 1 --alpha-vision 0.5"),
        ("language alone", "--alpha 1 --alpha-language 0.5"),
        ("action expert alone", "--alpha 1 --alpha-action 0.5"),
    ] {
        let name = format!("stack-{}", title.replace(' ', "-"));
        let policy = arena.retain(&name, (&from, &to), words)?;
        let found = Abilities::of(arena, &name, &policy, "final")?;
        rows.push([vec![format!("{title}: `{words}`")], found.cells().to_vec()].concat());
    }
    Ok(Section {
        text: "As above, on the final split: α = 0.5 in one part, 1 in the others.".to_owned(),
        headings: ["α", "new task", "unlike training", "known tasks"].map(str::to_owned).to_vec(),
        rows,
        ..Section::default()
    })
}

/// Three skills in a row, each learned from what the one before it left.
pub(super) fn chain(arena: &Arena) -> Result<Section> {
    let trials = |words: &str| format!("{words} --split final --episodes 40 --actions 4");
    let mut rows = Vec::new();
    // What a policy can do of the new tasks, and of those that were known.
    let mut row = |title: &str, name: &str, policy: &Path| -> Result<(Rate, Rate)> {
        let new = SKILLS.map(|(_, task)| arena.evaluate(name, policy, &trials(&format!("--task {task}"))));
        let new = new.into_iter().map(|found| Ok(found?.all)).collect::<Result<Vec<Rate>>>()?;
        let known = arena.evaluate(name, policy, &known(arena, "final")?)?.all;
        let rates = new.iter().chain([&known]).map(Rate::to_string);
        rows.push(std::iter::once(title.to_owned()).chain(rates).collect());
        Ok((new.into_iter().sum(), known))
    };
    let mut from = arena.expert("generalist")?;
    let before = row("before", "generalist", &from)?;
    let mut after = before;
    for (skill, _) in SKILLS {
        let finetuned = arena.expert(skill)?;
        let whole = arena.retain(&format!("whole-{skill}"), (&from, &finetuned), "--alpha 1")?;
        row(&format!("finetuned on `{skill}`"), &format!("whole-{skill}"), &whole)?;
        let name = format!("chain-{skill}");
        let kept = arena.retain(&name, (&from, &finetuned), CHAIN_ALPHA)?;
        after = row(&format!("kept: `{CHAIN_ALPHA}`"), &name, &kept)?;
        from = kept;
    }
    let ((new_before, known_before), (new_after, known_after)) = (before, after);
    let claims = vec![
        Claim {
            text: "After three skills, what was known is kept within ten points",
            paper: "",
            ours: format!("{known_after} of {known_before}"),
            verdict: Verdict::reached(known_after.share() >= known_before.share() - 0.1),
        },
        Claim {
            text: "After three skills, all three together succeed more often than before",
            paper: "",
            ours: format!("{new_after} and {new_before}"),
            verdict: Verdict::larger(new_after, new_before),
        },
    ];
    Ok(Section {
        text: format!(
            "Each policy is finetuned on fifty demonstrations, alone, from what was kept before (`{CHAIN_ALPHA}`); on the final split."
        ),
        headings: [""]
            .into_iter()
            .chain(SKILLS.map(|(_, task)| task))
            .chain(["known tasks"])
            .map(str::to_owned)
            .collect(),
        rows,
        claims,
        ..Section::default()
    })
}

#[cfg(test)]
mod tests {
    use skillweld_suites::Task;

    use super::*;

    #[test]
    fn new_tasks_are_tasks_of_the_generalists_suites() {
        for (_, id) in SKILLS {
            let suite = Task::named(id).map(|task| task.suite.name());
            assert!(suite.is_some_and(|suite| GENERALIST.contains(&suite)), "{id}");
        }
    }
}
