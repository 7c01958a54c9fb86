//! MergeVLA's tables: experts, naive merges, masked merges with routing, and what each part of them is worth (arXiv
//! 2511.18810).

use anyhow::{Context, Result};
use skillweld_rate::Rate;

use super::arena::{Arena, Scores};
use super::chart;
use super::choice::{LAMBDAS, METHODS, Merge, SELECTION};
use super::page::{Claim, Section, Verdict, percent};
use super::recipe::{Mask, Member, PAPERS_TIES, Recipe, SELF, SUITES};

/// What is reported, once: twenty layouts of each of twenty tasks.
pub(super) const FINAL: &str = "--split final --episodes 20 --actions 4";
/// Half as many, where there are many policies.
pub(super) const HALF_FINAL: &str = "--split final --episodes 10 --actions 4";

/// Of rows that are policies.
pub(super) fn headings(first: &str) -> Vec<String> {
    let columns = SUITES.iter().copied().chain(["all", "router"]);
    std::iter::once(first).chain(columns).map(str::to_owned).collect()
}

pub(super) fn row(title: impl Into<String>, scores: &Scores) -> Vec<String> {
    [vec![title.into()], scores.cells()].concat()
}

/// The same with the paper's average in the last column.
pub(super) fn beside(paper: &str, mut cells: Vec<String>) -> Vec<String> {
    cells.push(paper.to_owned());
    cells
}

/// Experts: a row, and the rate of each on its own suite.
pub(super) fn experts(arena: &Arena, kind: &str, trials: &str) -> Result<(Vec<String>, Vec<Rate>)> {
    let mut row = vec![format!("experts{kind}, each on its own suite")];
    let mut rates = Vec::new();
    for suite in SUITES {
        let name = format!("{suite}{kind}");
        let scores = arena.evaluate(&name, &arena.expert(&name)?, &format!("--suite {suite} {trials}"))?;
        row.push(scores.all.to_string());
        rates.push(scores.all);
    }
    row.extend([rates.iter().copied().sum::<Rate>().to_string(), String::new()]);
    Ok((row, rates))
}

/// All experts in one policy without masks, as merging was before MergeVLA.
pub(super) fn naive(arena: &Arena) -> Result<Section> {
    let (own, _) = experts(arena, SELF, FINAL)?;
    let naive = Recipe::naive(SELF, "task_arithmetic", "");
    let naive = arena.score("naive-ta-self", &naive, FINAL)?;
    let title = "task arithmetic of those with self-attention, one head";
    let mut rows = vec![beside("", own), beside("0", row(title, &naive))];
    let others = [
        (
            "naive-ties-self",
            "TIES of those with self-attention, one head",
            Recipe::naive(SELF, "ties", PAPERS_TIES),
        ),
        (
            "masked-ties-self",
            "TIES of those with self-attention, masks and heads a task",
            Recipe::masked_of(SELF, "ties", PAPERS_TIES, &Mask::default()),
        ),
        ("naive-ta", "task arithmetic of those without, one head", Recipe::naive("", "task_arithmetic", "")),
        ("naive-ties", "TIES of those without, one head", Recipe::naive("", "ties", PAPERS_TIES)),
    ];
    for (name, title, recipe) in &others {
        rows.push(beside("", row(*title, &arena.score(name, recipe, FINAL)?)));
    }
    let claims = vec![Claim {
        text: "Without masks, experts with self-attention merge into a policy that can do nothing: at most 10",
        paper: "0 (VLA-Adapter by task arithmetic, LIBERO)",
        ours: naive.all.to_string(),
        verdict: Verdict::reached(naive.all.share() <= 0.1),
    }];
    let text = format!(
        "Success in percent with Wilson's interval of 95 %: experts whose action expert attends to its own tokens, too, as VLA-Adapter's \
         does, and what merging makes of them and of the others: `skillweld eval run POLICY {FINAL}`. Those with self-attention begin \
         from random weights of the action expert, the same for all (`base-self` has them, and merges measure from it), the others from \
         `base`'s; they had other batches and no second corrections."
    );
    Ok(Section { text, headings: beside("paper", headings("")), rows, claims, ..Section::default() })
}

/// Experts, and all of them in one policy by different methods.
pub(super) fn merges(arena: &Arena) -> Result<Section> {
    let (own, each) = experts(arena, "", FINAL)?;
    let average: Rate = each.iter().copied().sum();
    let mut rows = vec![beside("96.7", own)];
    let (mut names, mut rates) = (vec!["experts"], vec![average]);
    for method in METHODS {
        let merge = Merge::papers(method);
        let scores = merge.score(arena, FINAL)?;
        rows.push(beside(method.paper, row(merge.title(), &scores)));
        names.push(method.title);
        rates.push(scores.all);
    }
    let chosen = Merge::chosen(arena)?;
    let best = chosen.score(arena, FINAL)?;
    rows.push(beside("", row(format!("chosen: {}", chosen.title()), &best)));
    names.push("chosen");
    rates.push(best.all);
    let given = chosen.score_given(arena, FINAL)?;
    rows.push(beside("", row("the same, told the suite instead of routed", &given)));
    names.push("chosen, told");
    rates.push(given.all);
    let chart = chart::bars("Experts and merges, all suites", names, &[("success", rates)])?;
    let router = best.router.context("no router")?;
    let worst = each.iter().copied().min_by(|a, b| a.share().total_cmp(&b.share()));
    let worst = worst.context("no experts")?;
    let claims = vec![
        Claim {
            text: "Every expert succeeds in nine of ten trials of its own suite",
            paper: "at least 95.0 (LIBERO)",
            ours: format!("at least {worst}"),
            verdict: Verdict::reached(worst.share() >= 0.9),
        },
        Claim {
            text: "The best merge with masks and routing keeps nine tenths of the experts' success",
            paper: "90.2 of 96.7 (TIES, LIBERO)",
            ours: format!("{} of {average} ({})", best.all, chosen.title()),
            verdict: Verdict::reached(best.all.share() >= 0.9 * average.share()),
        },
        Claim {
            text: "Its router finds the task from the first observation: at least 95",
            paper: "",
            ours: router.to_string(),
            verdict: Verdict::reached(router.share() >= 0.95),
        },
    ];
    Ok(Section {
        text: format!(
            "Success in percent with Wilson's interval of 95 %; *router*: how often the suite's own expert ran. \
             `skillweld eval run POLICY {FINAL}`. *Paper*: MergeVLA's average over LIBERO's four suites. Methods have the paper's settings \
             (λ = 0.6; the subset mean is of no paper, and has λ = 1), but two own blocks of four instead of one of twenty-four; *chosen*: \
             the method that is best with these, with the settings that are best of all by `{SELECTION}`; the next chapter has each step."
        ),
        headings: beside("paper", headings("")),
        rows,
        charts: vec![chart],
        claims,
    })
}

/// What each thing that was chosen is worth.
pub(super) fn steps(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    for (chosen, merge) in Merge::steps(arena)? {
        let mut cells = row(merge.title(), &merge.score(arena, FINAL)?);
        cells.insert(0, chosen.to_owned());
        rows.push(cells);
    }
    let text = format!(
        "What was chosen, one thing after the other, each the best by `{SELECTION}`, and what it is worth: `{FINAL}`. Weights are those of \
         the four experts in the subset mean: how much counts what masks cannot give back to each."
    );
    Ok(Section {
        text,
        headings: [vec!["chosen".to_owned()], headings("")].concat(),
        rows,
        ..Section::default()
    })
}

/// How much masks keep.
pub(super) fn lambdas(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    let mut points = Vec::new();
    for lambda in LAMBDAS {
        let scores = Merge::ties(Mask::tall(lambda)).score(arena, HALF_FINAL)?;
        rows.push(row(lambda, &scores));
        points.push((lambda.parse()?, scores.all));
    }
    let shares: Vec<f64> = points.iter().map(|(_, rate)| rate.share()).collect();
    let best = shares[1..].iter().copied().fold(0.0, f64::max);
    let chart = chart::lines("What masks keep", "λ", &[("MergeVLA, TIES", points)])?;
    let claims = vec![Claim {
        text: "λ = 0.2 is much worse than larger ones",
        paper: "collapses",
        ours: format!("{} at 0.2, at best {}", percent(shares[0]), percent(best)),
        verdict: Verdict::reached(shares[0] < 0.5 * best),
    }];
    let text = format!("MergeVLA with TIES; TALL masks of different λ: `{HALF_FINAL}`.");
    Ok(Section { text, headings: headings("λ"), rows, charts: vec![chart], claims })
}

/// Blocks of the action expert that stay one copy a task. Routers need one that does and one that does not.
pub(super) fn heads(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    for head_blocks in 1..=3 {
        let mask = Mask { head_blocks, ..Mask::default() };
        let scores = Merge::ties(mask).score(arena, HALF_FINAL)?;
        rows.push(row(head_blocks.to_string(), &scores));
    }
    let text = format!(
        "MergeVLA with TIES; how many of the action expert's four blocks each task keeps: `{HALF_FINAL}`."
    );
    Ok(Section { text, headings: headings("blocks"), rows, ..Section::default() })
}

/// How many experts one policy holds.
pub(super) fn counts(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    for count in 2..=SUITES.len() {
        let suites = &SUITES[..count];
        let members = suites.iter().map(|suite| Member::of_suite(suite, "")).collect();
        let recipe = Recipe::ties(&Mask::default()).of(members);
        let words: String = suites.iter().map(|suite| format!("--suite {suite} ")).collect();
        let scores = arena.score(&format!("first-{count}"), &recipe, &(words + HALF_FINAL))?;
        rows.push(row(count.to_string(), &scores));
    }
    let text = format!(
        "MergeVLA with TIES of the first two, three and four experts, on their suites: `{HALF_FINAL}`."
    );
    Ok(Section { text, headings: headings("experts"), rows, ..Section::default() })
}
