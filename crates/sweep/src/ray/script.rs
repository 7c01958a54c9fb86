//! What a job runs, and what its log says.

use crate::command::quoted;
use crate::evaluation::{NO_SCORE, with_tail};
use crate::ledger::Outcome;
use crate::score::{LastScore, Tail};
use crate::{EvalCommand, Point};

/// Stands before and after what an evaluation prints: standard output and standard error come in one log.
const BEGIN: &str = "@skillweld begins seed ";
const END: &str = "@skillweld ends seed ";

/// The shell commands of one point.
pub(super) fn entrypoint(
    recipe: &str,
    point: &Point,
    seeds: &[u64],
    command: &EvalCommand,
    (plugins, threads): (&[String], Option<usize>),
) -> String {
    let set =
        point.settings.iter().map(|(field, value)| format!(" --set {}", quoted(&format!("{field}={value}"))));
    let threads = threads.map(|count| format!(" --threads {count}")).unwrap_or_default();
    let plugins = plugins.iter().map(|path| format!(" --plugin {}", quoted(path)));
    let merge = format!(
        "skillweld merge {} \"$dir/checkpoint\" --quiet{}{}{threads}",
        quoted(recipe),
        set.collect::<String>(),
        plugins.collect::<String>()
    );
    let label = point.label();
    let mut lines = vec![
        "set -e".to_owned(),
        "dir=$(mktemp -d)".to_owned(),
        "trap 'rm -rf \"$dir\"' EXIT".to_owned(),
        "trap 'exit 143' TERM INT HUP".to_owned(),
        merge,
        "export SKILLWELD_CHECKPOINT=\"$dir/checkpoint\"".to_owned(),
        format!("export SKILLWELD_POINT={}", quoted(&label)),
    ];
    for &seed in seeds {
        let evaluate = command.filled("\"$SKILLWELD_CHECKPOINT\"", seed, &label);
        lines.push(format!("echo '{BEGIN}{seed}'"));
        // The command is a shell's own affair: what it sets, or where it exits, ends with it.
        lines.push(format!(
            "SKILLWELD_SEED={seed} sh -c {} < /dev/null && code=0 || code=$?",
            quoted(&evaluate)
        ));
        // It may have ended in the middle of a line.
        lines.push(format!("printf '\\n{END}{seed} with %s\\n' \"$code\""));
    }
    lines.join("\n")
}

/// What the log says of a seed; `None` where it does not reach its end.
pub(super) fn outcome(logs: &str, seed: u64) -> Option<Outcome> {
    let (_, rest) = logs.split_once(&format!("{BEGIN}{seed}\n"))?;
    let (said, after) = rest.split_once(&format!("\n{END}{seed} with "))?;
    let code = after.lines().next()?;
    let tail = Tail::of_text(said);
    Some(match LastScore::of_text(said) {
        _ if code != "0" => Outcome::Failed(with_tail(&format!("exit status: {code}"), &tail)),
        Some(score) => Outcome::Scored(score),
        None => Outcome::Failed(with_tail(NO_SCORE, &tail)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use crate::{Axis, grid};
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// Runs the script with a `skillweld` that only notes what it was asked for.
    fn run(eval: &str, skillweld: &str) -> (String, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("skillweld");
        std::fs::write(&program, format!("#!/bin/sh\n{skillweld}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let axes = [Axis::parse("a=it's").unwrap(), Axis::parse("b=0.5").unwrap()];
        let point = &grid(&axes).unwrap()[0];
        let command = EvalCommand::parse(eval).unwrap();
        let script = entrypoint("/my recipe.yaml", point, &[0, 2], &command, (&[], None));
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(script).env("PATH", path).env("TMPDIR", dir.path().join("tmp"));
        let output = shell.output().unwrap();
        let left = std::fs::read_dir(dir.path().join("tmp")).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        (String::from_utf8(output.stdout).unwrap(), left)
    }

    const MERGES: &str = "mkdir \"$3\" && printf '%s|' \"$@\" > \"$3/asked\"";

    #[test]
    fn a_job_merges_evaluates_each_seed_and_leaves_nothing() {
        let eval = "cat {checkpoint}/asked; test -d \"$SKILLWELD_CHECKPOINT\"; echo; \
                    printf '{\"score\": 1%s}' $((SKILLWELD_SEED + {seed}))";
        let (log, left) = run(eval, MERGES);
        assert_eq!(left, [""; 0]);
        assert!(
            log.contains("merge|/my recipe.yaml|") && log.contains("|--quiet|--set|a=it's|--set|b=0.5|"),
            "{log}"
        );
        let score = |seed| match outcome(&log, seed) {
            Some(Outcome::Scored(score)) => score.score,
            other => panic!("{other:?}: {log}"),
        };
        assert_eq!([score(0), score(2)], [10.0, 14.0]);
        assert_eq!(outcome(&log, 1), None);
    }

    #[test]
    fn failures_are_told_apart() {
        let (log, left) = run("echo 1; echo broken; exit $(({seed} + 1))", MERGES);
        assert_eq!(left, [""; 0]);
        assert_eq!(outcome(&log, 2), Some(Outcome::Failed("exit status: 3: 1\nbroken".to_owned())));
        let (log, _) = run("echo hello", MERGES);
        assert_eq!(outcome(&log, 0), Some(Outcome::Failed(format!("{NO_SCORE}: hello"))));
        let (log, left) = run("echo 1", "echo no; exit 1");
        assert_eq!((outcome(&log, 0), left), (None, vec![]));
    }
}
