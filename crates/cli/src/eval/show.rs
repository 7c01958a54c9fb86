//! Results as tables.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;
use skillweld_eval::{Group, GroupKind, TrialResult, groups, paired, rate, routed, router_accuracy};
use skillweld_rate::Rate;

use crate::Outcome;
use crate::console::{Console, Page, Tone, cell, number, print_json, table};
use crate::figures;

pub(super) fn results(
    of: &str,
    all: &[TrialResult],
    folder: &Path,
    as_json: bool,
    console: Console,
) -> Result<Outcome> {
    let (groups, total, routed) = (groups(all), rate(all), routed(all));
    let one = |rate: &Rate| {
        json!({
            "successes": rate.successes, "trials": rate.trials, "share": rate.share(), "interval_95": rate.interval(),
        })
    };
    if as_json {
        let groups: serde_json::Map<_, _> =
            groups.iter().map(|group| (group.name.clone(), one(&group.rate))).collect();
        let routed = routed
            .iter()
            .map(|(suite, expert, count)| json!({"suite": suite, "expert": expert, "trials": count}));
        print_json(&json!({
            "of": of, "results": folder, "all": one(&total), "groups": groups, "routed": routed.collect::<Vec<_>>(),
            "router": router_accuracy(all).as_ref().map(one),
        }))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Evaluation", of);
    page.facts([("results", folder.display().to_string()), ("success", shown(total))]);
    let mut rows = table(["", "success", "", "95 %", "trials"]);
    for Group { name, kind, rate } in &groups {
        let [low, high] = rate.interval();
        rows.add_row([
            cell(if *kind == GroupKind::Task { Tone::Plain } else { Tone::Name }, name),
            number(figures::percent(rate.share())),
            cell(Tone::Plain, figures::bar(rate.share(), 20)),
            number(format!("{} … {}", figures::percent(low), figures::percent(high))),
            number(rate.trials),
        ]);
    }
    page.table(rows);
    if !routed.is_empty() {
        page.heading("Routing", "which expert ran");
        if let Some(rate) = router_accuracy(all) {
            page.facts([("the suite's own", shown(rate))]);
        }
        let mut rows = table(["suite", "expert", "trials"]);
        for (suite, expert, count) in routed {
            rows.add_row([cell(Tone::Name, suite), cell(Tone::Plain, expert), number(count)]);
        }
        page.table(rows);
    }
    page.print()?;
    Ok(Outcome::Done)
}

fn shown(rate: Rate) -> String {
    let [low, high] = rate.interval().map(figures::percent);
    format!(
        "{} of {} ({}, 95 %: {low} … {high})",
        rate.successes,
        rate.trials,
        figures::percent(rate.share())
    )
}

/// What gave them, and what they are.
type Read = (String, Vec<TrialResult>);

pub(super) fn comparison((first, second): &(Read, Read), as_json: bool, console: Console) -> Result<Outcome> {
    let paired = paired(&first.1, &second.1);
    ensure!(
        paired.trials() > 0,
        "{} and {} have no trial in common; evaluate both with the same tasks, split and episodes",
        first.0,
        second.0
    );
    if as_json {
        print_json(&json!({
            "first": first.0, "second": second.0, "trials": paired.trials(), "both": paired.both,
            "only_first": paired.only_first, "only_second": paired.only_second, "neither": paired.neither,
            "p_value": paired.p_value(),
        }))?;
        return Ok(Outcome::Done);
    }
    let mut page = Page::new(console);
    page.heading("Comparison", format!("{} trials that both have", paired.trials()));
    page.facts([
        ("first", first.0.clone()),
        ("second", second.0.clone()),
        ("both succeed", paired.both.to_string()),
        ("only the first", paired.only_first.to_string()),
        ("only the second", paired.only_second.to_string()),
        ("neither", paired.neither.to_string()),
        ("p", format!("{:.3} (McNemar, exact)", paired.p_value())),
    ]);
    page.print()?;
    Ok(Outcome::Done)
}
