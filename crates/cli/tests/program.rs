//! The program itself: help, version, completions, start-up.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::process::Stdio;

use support::{run, skillweld};

#[test]
fn help_has_examples_and_exit_codes() {
    let commands = [
        &["--help"][..],
        &["merge", "--help"],
        &["inspect", "--help"],
        &["materialize", "--help"],
        &["preprocess", "--help"],
    ];
    for command in commands {
        let ran = run(command).succeeded();
        assert!(ran.out.contains("Examples:") && ran.out.contains("Usage:"), "{command:?}: {}", ran.out);
        assert!(ran.out.lines().all(|line| line.chars().count() <= 110), "{command:?}: {}", ran.out);
    }
    for command in ["list", "inspect", "check", "new"] {
        run(["plugins", command, "--help"]).succeeded();
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
