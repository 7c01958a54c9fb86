//! The program itself: help, version, completions, start-up.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::process::Stdio;

use support::{run, skillweld};

#[test]
fn help_has_examples_and_exit_codes() {
    let commands =
        ["", "merge", "inspect", "materialize", "preprocess", "predict", "route", "serve", "plugins"]
            .map(|command| command.to_owned());
    let plugins = ["list", "inspect", "check", "new"].map(|command| format!("plugins {command}"));
    for command in commands.into_iter().chain(plugins) {
        let ran = run(command.split_whitespace().chain(["--help"])).succeeded();
        assert!(ran.out.contains("Usage:"), "{command}: {}", ran.out);
        let examples = ran.out.split("Examples:").nth(1).unwrap_or_default();
        assert!(examples.contains(&format!("skillweld {command}")), "{command}: {}", ran.out);
        assert!(ran.out.lines().all(|line| line.chars().count() <= 110), "{command}: {}", ran.out);
    }
    assert!(run(["--help"]).out.contains("130 interrupted"));
    assert_eq!(run(["--version"]).succeeded().out, format!("skillweld {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = run(["completions", shell]).succeeded();
        for command in ["merge", "materialize", "preprocess", "plugins", "dry-run"] {
            assert!(ran.out.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn a_reader_who_leaves_early_is_no_failure() {
    let mut child = skillweld()
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
