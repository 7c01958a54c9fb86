//! A file of several recipes: each merged after those that it needs, and only if it is due.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use serde_json::json;
use skillweld_merge::recipe::{Documents, Stage};
use skillweld_merge::{Models, RunOptions, StageState, Stages};

use super::{Merging, is_refused, plan_page};
use crate::Outcome;
use crate::arguments::OpeningDevice;
use crate::console::{Page, Tone, cell, note_new_folder, print_json, table};

/// The result of the file, as it is called where stages are listed.
const RESULT: &str = "(result)";

pub(super) fn run(
    merging: &Merging<'_>,
    documents: Documents,
    device: OpeningDevice,
) -> anyhow::Result<Outcome> {
    let args = merging.args;
    let folder = args.stages.clone().unwrap_or_else(|| beside(&args.out));
    let mut stages = Stages::open(&folder, merging.control.threads)?;
    let mut documents = documents.stages;
    place_all(&mut documents, &stages);
    if args.dry_run {
        return show(merging, &mut stages, &documents);
    }
    if !args.quiet {
        note_new_folder(&args.out, merging.console);
    }
    let device = device.wait()?;
    let mut lines = Vec::new();
    for (index, stage) in documents.iter().enumerate() {
        let started = Instant::now();
        let is_result = index + 1 == documents.len();
        let Place { name, out, options } = Place::of(merging, &stages, stage, is_result);
        merging.progress.wait("looking what has changed");
        let check = stages.state(name, &stage.recipe, merging.registry, options.base, &out);
        merging.progress.finish();
        let check = check?;
        let line = match &check.state {
            StageState::Done => {
                say(merging, index, &documents, "is up to date", "")?;
                json!({"name": stage.name, "output": out, "state": "up to date"})
            }
            StageState::Due(why) if is_result && out.exists() && !args.force && has_something(&out) => {
                bail!("{} is there, but {why}; `--force` replaces it", out.display())
            }
            StageState::Due(why) => {
                say(merging, index, &documents, "is merged", why)?;
                let models = Models::open(&stage.recipe)?;
                let plan = merging.plan(&stage.recipe, &models)?;
                let mut merged = merging.run(&plan, (&out, options), device.as_ref(), started)?;
                merged["name"] = json!(stage.name);
                merged["state"] = json!("merged");
                merged["reason"] = json!(why);
                stages.record(name, check, &out)?;
                merged
            }
        };
        lines.push(line);
    }
    if args.json {
        print_json(&json!({ "stages": lines }))?;
    }
    Ok(Outcome::Done)
}

/// Where a stage's result goes.
struct Place<'s> {
    /// `None` for what the file is for.
    name: Option<&'s str>,
    out: PathBuf,
    options: RunOptions,
}

impl<'s> Place<'s> {
    fn of(merging: &Merging<'_>, stages: &Stages, stage: &'s Stage, is_result: bool) -> Self {
        let args = merging.args;
        match stage.name.as_deref().filter(|_| !is_result) {
            // A stage before it is ours to replace, and models are read where they lie.
            Some(name) => Self {
                name: Some(name),
                out: stages.place(name),
                options: RunOptions { force: true, ..RunOptions::default() },
            },
            None => Self {
                name: None,
                out: args.out.clone(),
                options: RunOptions { force: args.force, base: args.base.into(), ..RunOptions::default() },
            },
        }
    }
}

/// Tells every recipe where the others' results lie.
fn place_all(documents: &mut [Stage], stages: &Stages) {
    let names: Vec<String> = documents.iter().filter_map(|stage| stage.name.clone()).collect();
    for stage in documents {
        for name in &names {
            stage.recipe.place_stage(name, &stages.place(name));
        }
    }
}

/// A dry run: how it stands with every stage, and the plans of those whose models are there.
fn show(merging: &Merging<'_>, stages: &mut Stages, documents: &[Stage]) -> anyhow::Result<Outcome> {
    let (mut lines, mut outcome) = (Vec::new(), Outcome::Done);
    let mut due = vec![false; documents.len()];
    let mut list = table(["stage", "needs", "state", "because"]);
    let mut plans: Vec<Page> = Vec::new();
    for (index, stage) in documents.iter().enumerate() {
        let Place { name, out, options } = Place::of(merging, stages, stage, index + 1 == documents.len());
        let waits = stage.needs.iter().find(|&&needed| due[needed]);
        let (state, why, summary) = match waits {
            Some(&needed) => ("waits", format!("{} comes first", label(&documents[needed])), None),
            None => match stages.state(name, &stage.recipe, merging.registry, options.base, &out)?.state {
                StageState::Done => ("up to date", String::new(), None),
                StageState::Due(why) => {
                    let models = Models::open(&stage.recipe)?;
                    ("due", why, Some(merging.plan(&stage.recipe, &models)?.summary()))
                }
            },
        };
        due[index] = state != "up to date";
        let needs: Vec<&str> = stage.needs.iter().map(|&needed| label(&documents[needed])).collect();
        let tone = if due[index] { Tone::Warning } else { Tone::Good };
        list.add_row([
            cell(Tone::Name, label(stage)),
            cell(Tone::Plain, needs.join(", ")),
            cell(tone, state),
            cell(Tone::Plain, &why),
        ]);
        if let Some(summary) = &summary {
            if is_refused(summary) {
                outcome = Outcome::Bad;
            }
            plans.push(plan_page::whole(summary, merging.console));
        }
        lines.push(
            json!({"name": stage.name, "needs": needs, "state": state, "reason": why, "plan": summary}),
        );
    }
    if merging.args.json {
        print_json(&json!({ "stages": lines }))?;
    } else if !merging.args.quiet {
        let mut page = Page::new(merging.console);
        page.heading("Stages", format!("{} recipes", documents.len()));
        page.table(list);
        page.print()?;
        for plan in plans {
            plan.print()?;
        }
    }
    Ok(outcome)
}

fn label(stage: &Stage) -> &str {
    stage.name.as_deref().unwrap_or(RESULT)
}

/// One line before a stage is worked off, or instead of it.
fn say(
    merging: &Merging<'_>,
    index: usize,
    documents: &[Stage],
    what: &str,
    why: &str,
) -> anyhow::Result<()> {
    if merging.args.quiet || merging.args.json {
        return Ok(());
    }
    let mut page = Page::new(merging.console);
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    let name = page.paint(Tone::Name, label(&documents[index]));
    page.heading(&format!("Stage {} of {}", index + 1, documents.len()), format!("{name} {what}{because}"));
    page.print()
}

/// `OUT.stages`.
fn beside(out: &Path) -> PathBuf {
    let mut name: OsString = out.as_os_str().to_owned();
    name.push(".stages");
    name.into()
}

fn has_something(out: &Path) -> bool {
    std::fs::read_dir(out).map_or(true, |mut entries| entries.next().is_some())
}
