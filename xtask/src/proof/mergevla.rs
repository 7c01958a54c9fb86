//! MergeVLA's tables: experts, naive merges, masked merges with routing, and what each part of them is worth (arXiv
//! 2511.18810).

use anyhow::{Context, Result, bail};

use super::arena::{Arena, Scores};
use super::page::{Claim, Section, percent};
use super::rate::Rate;
use super::recipe::{Mask, Member, PAPERS_TIES, Recipe, SUITES};

/// What is reported, once: twenty layouts of each of twenty tasks.
const FINAL: &str = "--split final --episodes 20 --actions 4";
/// What settings are chosen by.
const SELECTION: &str = "--split selection --episodes 5 --actions 4";

/// The same, routed as the paper does.
fn raw(trials: &str) -> String {
    format!("{trials} --raw-scores")
}

/// Of rows that are policies.
fn headings(first: &str) -> Vec<String> {
    let columns = SUITES.iter().copied().chain(["all", "router"]);
    std::iter::once(first).chain(columns).map(str::to_owned).collect()
}

fn row(title: impl Into<String>, scores: &Scores) -> Vec<String> {
    [vec![title.into()], scores.cells()].concat()
}

/// The same with the paper's average in the last column.
fn beside(paper: &str, mut cells: Vec<String>) -> Vec<String> {
    cells.push(paper.to_owned());
    cells
}

/// Experts, each on its own suite, and all of them.
fn experts(arena: &Arena, kind: &str, trials: &str) -> Result<(Vec<String>, Rate)> {
    let mut row = vec![format!("experts{kind}, each on its own suite")];
    let mut rates = Vec::new();
    for suite in SUITES {
        let name = format!("{suite}{kind}");
        let scores = arena.evaluate(&name, &arena.expert(&name)?, &format!("--suite {suite} {trials}"))?;
        row.push(scores.all.to_string());
        rates.push(scores.all);
    }
    let all = Rate::of(&rates);
    row.extend([all.to_string(), String::new()]);
    Ok((row, all))
}

/// All experts in one policy without masks, as merging was before MergeVLA.
pub(super) fn naive(arena: &Arena) -> Result<Section> {
    let (own, _) = experts(arena, "-self", FINAL)?;
    let naive = Recipe::naive("-self", "task_arithmetic", "");
    let naive = arena.score("naive-ta-self", &naive, FINAL)?;
    let title = "task arithmetic of those with self-attention, one head";
    let mut rows = vec![beside("", own), beside("0", row(title, &naive))];
    let others = [
        (
            "naive-ties-self",
            "TIES of those with self-attention, one head",
            Recipe::naive("-self", "ties", PAPERS_TIES),
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
        holds: naive.all.share() <= 0.1,
    }];
    let text = format!(
        "Success in percent with Wilson's interval of 95 %: experts whose action expert attends to its own tokens, too, as VLA-Adapter's \
         does, and what merging makes of them and of the others without masks: `skillweld eval run POLICY {FINAL}`."
    );
    Ok(Section { text, headings: beside("paper", headings("")), rows, claims })
}

/// A method as MergeVLA's table has it: its name, its parameters, a title, the paper's average.
type Method = (&'static str, &'static str, &'static str, &'static str);

const TIES: Method = ("ties", PAPERS_TIES, "TIES", "90.2");

const METHODS: [Method; 6] = [
    ("task_arithmetic", "", "task arithmetic", "89.7"),
    TIES,
    ("tsv", "", "TSV", "81.6"),
    ("knots", "", "KnOTS-TIES", "88.0"),
    ("wudi", "", "WUDI", "89.9"),
    ("emr", "", "EMR", "65.5"),
];

/// Keep-ratios of TALL masks.
const LAMBDAS: [&str; 5] = ["0.2", "0.4", "0.6", "0.8", "1.0"];

/// A merge with a name and a title.
struct Merge {
    name: String,
    title: String,
    recipe: Recipe,
}

impl Merge {
    fn new((method, parameters, title, _): Method, mask: &Mask) -> Self {
        let name = format!("{method}-{}-{}", mask.how.replace([' ', ',', ':'], ""), mask.head_blocks);
        let title = format!("MergeVLA, {title}");
        Self { name, title, recipe: Recipe::masked(method, parameters, mask) }
    }

    /// With the paper's settings.
    fn papers(method: Method) -> Self {
        let mask = if method.0 == "emr" { Mask::emr() } else { Mask::default() };
        Self::new(method, &mask)
    }

    fn score(&self, arena: &Arena, trials: &str) -> Result<Scores> {
        arena.score(&self.name, &self.recipe, trials)
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

    /// What a user would take: the method that is best with the paper's settings, and then its best keep-ratio and depth.
    fn chosen(arena: &Arena) -> Result<Self> {
        let best = Self::best(arena, METHODS.map(Self::papers))?;
        let method = METHODS.into_iter().find(|method| method.0 == best.recipe.method);
        let method = method.filter(|method| method.0 != "emr");
        let settings = LAMBDAS.into_iter().flat_map(|lambda| (1..=3).map(move |depth| (lambda, depth)));
        let tuned = method.into_iter().flat_map(|method| {
            settings.clone().map(move |(lambda, head_blocks)| {
                let mask = Mask { head_blocks, ..Mask::tall(lambda) };
                let Self { name, title, recipe } = Self::new(method, &mask);
                Self { name, title: format!("{title}, λ = {lambda}, own blocks: {head_blocks}"), recipe }
            })
        });
        Self::best(arena, [best].into_iter().chain(tuned))
    }
}

/// Experts, and all of them in one policy by different methods.
pub(super) fn merges(arena: &Arena) -> Result<Section> {
    let (own, average) = experts(arena, "", FINAL)?;
    let mut rows = vec![beside("96.7", own)];
    for method in METHODS {
        let merge = Merge::papers(method);
        rows.push(beside(method.3, row(&merge.title, &merge.score(arena, FINAL)?)));
    }
    let chosen = Merge::chosen(arena)?;
    let best = chosen.score(arena, FINAL)?;
    rows.push(beside("", row(format!("chosen: {}", chosen.title), &best)));
    let router = best.router.context("no router")?;
    let claims = vec![
        Claim {
            text: "The best merge with masks and routing keeps nine tenths of the experts' success",
            paper: "90.2 of 96.7 (TIES, LIBERO)",
            ours: format!("{} of {average} ({})", best.all, chosen.title),
            holds: best.all.share() >= 0.9 * average.share(),
        },
        Claim {
            text: "Its router finds the task from the first observation: at least 95",
            paper: "",
            ours: router.to_string(),
            holds: router.share() >= 0.95,
        },
    ];
    Ok(Section {
        text: format!(
            "Success in percent with Wilson's interval of 95 %; *router*: how often the suite's own expert ran. \
             `skillweld eval run POLICY {FINAL}`. *Paper*: MergeVLA's average over LIBERO's four suites. Methods have the paper's settings \
             (λ = 0.6), but two own blocks of four instead of one of twenty-four; *chosen*: the method that is best with these, with the λ and \
             the depth that are best of all by `{SELECTION}`."
        ),
        headings: beside("paper", headings("")),
        rows,
        claims,
    })
}

/// How much masks keep.
pub(super) fn lambdas(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    let mut shares = Vec::new();
    for lambda in LAMBDAS {
        let mask = Mask::tall(lambda);
        let scores = Merge::new(TIES, &mask).score(arena, SELECTION)?;
        rows.push(row(lambda, &scores));
        shares.push(scores.all.share());
    }
    let best = shares[1..].iter().copied().fold(0.0, f64::max);
    let claims = vec![Claim {
        text: "λ = 0.2 is much worse than larger ones",
        paper: "collapses",
        ours: format!("{} at 0.2, at best {}", percent(shares[0]), percent(best)),
        holds: shares[0] < 0.5 * best,
    }];
    let text =
        format!("MergeVLA with TIES; TALL masks of different λ, on the selection split: `{SELECTION}`.");
    Ok(Section { text, headings: headings("λ"), rows, claims })
}

/// Blocks of the action expert that stay one copy a task: with none there is nothing to route to, with all nothing to route by.
pub(super) fn heads(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    for head_blocks in 1..=3 {
        let mask = Mask { head_blocks, ..Mask::default() };
        let scores = Merge::new(TIES, &mask).score(arena, SELECTION)?;
        rows.push(row(head_blocks.to_string(), &scores));
    }
    let text = format!(
        "MergeVLA with TIES; how many of the action expert's four blocks each task keeps: `{SELECTION}`."
    );
    Ok(Section { text, headings: headings("blocks"), rows, claims: Vec::new() })
}

/// How many experts one policy holds.
pub(super) fn counts(arena: &Arena) -> Result<Section> {
    let mut rows = Vec::new();
    for count in 2..=SUITES.len() {
        let suites = &SUITES[..count];
        let members = suites.iter().map(|suite| Member::of_suite(suite, "")).collect();
        let recipe = Recipe::ties(&Mask::default()).of(members);
        let words: String = suites.iter().map(|suite| format!("--suite {suite} ")).collect();
        let scores = arena.score(&format!("first-{count}"), &recipe, &(words + SELECTION))?;
        rows.push(row(count.to_string(), &scores));
    }
    let text = format!(
        "MergeVLA with TIES of the first two, three and four experts, on their suites: `{SELECTION}`."
    );
    Ok(Section { text, headings: headings("experts"), rows, claims: Vec::new() })
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
    let (mut rows, mut shares) = (Vec::new(), Vec::new());
    for (title, paper, router) in variants {
        let mask = Mask { router: router.to_owned(), ..Mask::default() };
        let name = format!("router-{}", router.replace([' ', ',', ':'], ""));
        let recipe = Recipe::ties(&mask);
        let scores = arena.score(&name, &recipe, &raw(SELECTION))?;
        rows.push(beside(paper, row(title, &scores)));
        shares.push(scores.all.share());
        let scores = arena.score(&name, &recipe, SELECTION)?;
        rows.push(beside("", row(format!("{title}, calibrated"), &scores)));
    }
    let [_, _, values, _, _, keys, both] = shares[..] else { bail!("a variant is missing") };
    let claims = vec![Claim {
        text: "Values alone route better than keys, alone or with values",
        paper: "89.7, 53.6, 65.1 (success, V, K, K&V)",
        ours: [values, keys, both].map(percent).join(", "),
        holds: values > keys.max(both),
    }];
    let text = format!(
        "MergeVLA with TIES and different routers: `{SELECTION}`. *Calibrated*: instead of norms in the subspaces, how likely an observation \
         is among a task's own, by where the first observations of ten demonstrations of each of its tasks lie in the same subspaces \
         (`skillweld calibrate-router`), without labels; the others compare norms, as the paper does. All other tables are of calibrated \
         routers."
    );
    Ok(Section { text, headings: beside("paper", headings("subspaces")), rows, claims })
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
        text: format!("{}: trials of a suite, by the expert that ran; `{FINAL}`.", chosen.title),
        headings: [vec!["suite".to_owned()], experts].concat(),
        rows,
        claims: Vec::new(),
    })
}

/// How much of a chunk is carried out before the policy is asked again.
pub(super) fn actions(arena: &Arena) -> Result<Section> {
    let chosen = Merge::chosen(arena)?;
    let mut rows = Vec::new();
    for actions in [8, 4, 2] {
        let trials = format!("--split selection --episodes 5 --actions {actions}");
        let (own, _) = experts(arena, "", &trials)?;
        rows.push([vec![format!("{actions}, experts")], own[1..].to_vec()].concat());
        let scores = chosen.score(arena, &trials)?;
        rows.push(row(format!("{actions}, merged"), &scores));
    }
    let text = "Actions of a chunk of eight that experts, and the merge that was chosen above, carry out before they are asked again; all other tables \
                carry out four: `--split selection --episodes 5 --actions N`."
        .to_owned();
    Ok(Section { text, headings: headings("actions"), rows, claims: Vec::new() })
}

/// Unlike training.
pub(super) fn perturbations(arena: &Arena) -> Result<Section> {
    let kinds = ["camera", "background", "light", "layout", "robot_state", "noise", "language"];
    let chosen = Merge::chosen(arena)?;
    let mut rows = Vec::new();
    let (mut of_experts, mut of_merged) = (Vec::new(), Vec::new());
    for kind in kinds {
        let trials = format!("--split final --episodes 5 --actions 4 --perturb {kind}:medium");
        let (own, all) = experts(arena, "", &trials)?;
        rows.push([vec![format!("{kind}, experts")], own[1..].to_vec()].concat());
        let scores = chosen.score(arena, &trials)?;
        rows.push(row(format!("{kind}, merged"), &scores));
        of_experts.push(all);
        of_merged.push(scores.all);
    }
    let [of_experts, of_merged] = [of_experts, of_merged].map(|rates| Rate::of(&rates));
    let claims = vec![Claim {
        text: "Unlike training, too, the merge keeps four fifths of the experts' success",
        paper: "62.5 of 72.4 (LIBERO-Plus)",
        ours: format!("{of_merged} of {of_experts}"),
        holds: of_merged.share() >= 0.8 * of_experts.share(),
    }];
    let text =
        "Experts on their own suites, and the merge that was chosen above, under perturbations of medium strength: \
                `--split final --episodes 5 --actions 4 --perturb KIND:medium`."
            .to_owned();
    Ok(Section { text, headings: headings(""), rows, claims })
}
