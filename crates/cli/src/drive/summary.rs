//! How a run went.

use serde_json::{Value, json};
use skillweld_recorder::Saved;
use skillweld_robot::{DryRunReport, Durations, Summary};

use crate::console::{Console, Page, Tone, cell, number, table};
use crate::figures;
use crate::robot::remedy;

/// A period may begin so much late, in milliseconds, to count as kept.
const ON_TIME_MS: u64 = 2;

pub(crate) fn page(summary: &Summary, dry: Option<&DryRunReport>, saved: &[Saved], console: Console) -> Page {
    let mut page = Page::new(console);
    let tone = if summary.is_success() { Tone::Good } else { Tone::Bad };
    let end = page.paint(tone, &summary.end);
    page.heading("Run", format!("{:.1} s: {end}", summary.duration.as_secs_f64()));
    let lateness = &summary.lateness;
    let on_time = lateness.share_within(std::time::Duration::from_millis(ON_TIME_MS));
    let (section, took) = summary.sections.worst();
    let torque = summary
        .torque_may_be_on
        .as_ref()
        .map_or_else(|| "off".to_owned(), |error| format!("MAY BE ON: {error}; {}", remedy::RELEASE));
    let count =
        |number: u64, what: &str| if number > 0 { figures::counted(number, what) } else { String::new() };
    page.facts([
        ("torque", torque),
        ("steps", format!("{}, {} left out", summary.steps, summary.skipped)),
        (
            "on time",
            format!(
                "{:.2} % within {ON_TIME_MS} ms, the latest {} ({})",
                100.0 * on_time,
                ms(lateness.max()),
                summary.scheduling
            ),
        ),
        ("longest section", format!("{section}, {}", ms(took))),
        ("inference", summary.inference.as_ref().map(percentiles).unwrap_or_default()),
        ("starved", count(summary.starved, "step")),
        ("held", count(summary.held, "step")),
        ("led by hand", count(summary.interventions, "step")),
        ("refused", count(summary.refused, "action")),
        ("failed exchanges", count(summary.failures, "exchange")),
        ("clamped", clamped(summary)),
        (
            "saved",
            saved
                .iter()
                .map(|saved| format!("episode {} ({} frames)", saved.episode, saved.frames))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ]);
    if let Some(dry) = dry {
        page.heading("Dry run", format!("{} commands would have been sent", dry.commands));
        let mut rows = table(["joint", "first", "last", "least", "largest", "largest change"]);
        for joint in &dry.joints {
            let figures = [joint.first, joint.last, joint.least, joint.largest, joint.largest_change];
            let cells = figures.map(|figure| number(format!("{figure:.2}")));
            rows.add_row(std::iter::once(cell(Tone::Name, &joint.name)).chain(cells));
        }
        page.table(rows);
    }
    page
}

pub(crate) fn document(
    summary: &Summary,
    dry: Option<&DryRunReport>,
    (saved, problems, remarks): (&[Saved], &[String], &[String]),
) -> Value {
    let sections = summary.sections.named().map(|(name, took)| (name.to_owned(), durations(took)));
    let clamped: serde_json::Map<String, Value> =
        summary.clamped.iter().map(|(joint, steps)| (joint.clone(), json!(steps))).collect();
    let dry = dry.map(|dry| {
        let joints = dry.joints.iter().map(|joint| {
            json!({
                "joint": joint.name, "first": joint.first, "last": joint.last, "least": joint.least,
                "largest": joint.largest, "largest_change": joint.largest_change,
            })
        });
        json!({"commands": dry.commands, "joints": joints.collect::<Vec<_>>()})
    });
    let saved = saved
        .iter()
        .map(|saved| json!({"episode": saved.episode, "frames": saved.frames, "refused": saved.refused}));
    json!({
        "success": summary.is_success() && problems.is_empty(),
        "end": summary.end.to_string(),
        "torque_may_be_on": summary.torque_may_be_on.as_ref().map(ToString::to_string),
        "duration_s": summary.duration.as_secs_f64(),
        "steps": summary.steps,
        "skipped": summary.skipped,
        "overruns": summary.overruns,
        "starved": summary.starved,
        "waited": summary.waited,
        "held": summary.held,
        "interventions": summary.interventions,
        "refused": summary.refused,
        "failures": summary.failures,
        "clamped": clamped,
        "scheduling": summary.scheduling.as_str(),
        "lateness": durations(&summary.lateness),
        "sections": sections.into_iter().collect::<serde_json::Map<_, _>>(),
        "inference": summary.inference.as_ref().map(durations),
        "dry_run": dry,
        "problems": problems,
        "remarks": remarks,
        "episodes": saved.collect::<Vec<_>>(),
    })
}

fn clamped(summary: &Summary) -> String {
    let all = summary.clamped.iter().filter(|(_, steps)| *steps > 0);
    all.map(|(joint, steps)| format!("{joint} in {steps} steps")).collect::<Vec<_>>().join(", ")
}

pub(crate) fn ms(duration: std::time::Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

pub(crate) fn percentiles(durations: &Durations) -> String {
    let at = |share: f64| ms(durations.percentile(share));
    format!("{} / {} / {} (50, 95, 99 %), {} times", at(0.5), at(0.95), at(0.99), durations.count())
}

fn durations(durations: &Durations) -> Value {
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    json!({
        "count": durations.count(),
        "mean_ms": ms(durations.mean()),
        "p50_ms": ms(durations.percentile(0.5)),
        "p95_ms": ms(durations.percentile(0.95)),
        "p99_ms": ms(durations.percentile(0.99)),
        "p999_ms": ms(durations.percentile(0.999)),
        "max_ms": ms(durations.max()),
    })
}
