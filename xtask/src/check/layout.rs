//! One shape for every crate, short files, and unsafe code in few places.

use anyhow::{Context, Result};

use super::Tracked;
use crate::packages::Package;
use crate::process::root;

/// Longer files are split by subject.
const MAX_LINES: usize = 500;

/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "stuff", "util", "utils"];

/// Where the lint `unsafe_code` may be lifted.
const UNSAFE_IN: &[&str] = &[
    "crates/simd/",
    "crates/plugin-abi/",
    "crates/plugin-sdk/",
    "crates/plugin-host/",
    "crates/store/src/mapped.rs",   // one mmap
    "crates/linalg/src/kernels.rs", // vectors, AMX in assembly, columns of one matrix for several threads
    "crates/linalg/src/kernels/",
    "crates/gpu/",                    // drivers and kernels trust what they are told
    "kernels/src/emulator.rs",        // and so does the emulation, which is C++
    "crates/linalg/src/pool.rs",      // a borrowed closure for threads that outlive it
    "crates/robot/src/scheduling.rs", // two calls of the kernel
];

pub(crate) fn manifests(members: &[Package]) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for member in members {
        let folder = member.folder.display();
        if member.description.as_deref().is_none_or(str::is_empty) {
            violations.push(format!("{folder}/Cargo.toml has no description"));
        }
        let manifest = root().join(&member.folder).join("Cargo.toml");
        let text =
            std::fs::read_to_string(&manifest).with_context(|| format!("cannot read {folder}/Cargo.toml"))?;
        if !text.contains("[lints]\nworkspace = true") {
            violations.push(format!("{folder}/Cargo.toml does not take the workspace's lints"));
        }
        let last = member.folder.file_name().unwrap_or_default().to_string_lossy();
        let expected = match member.folder.parent().and_then(|parent| parent.to_str()) {
            Some("plugins") => format!("skillweld-plugin-{last}"),
            _ if last == "xtask" => last.to_string(),
            _ => format!("skillweld-{last}"),
        };
        if member.name != expected {
            violations.push(format!("{folder} holds the package {}, not {expected}", member.name));
        }
    }
    Ok(violations)
}

pub(crate) fn files(files: &[Tracked]) -> Vec<String> {
    let mut violations = Vec::new();
    for Tracked { path, text } in files {
        let source = path.ends_with(".rs")
            || [".rs", ".c", ".h", ".cc", ".cu", ".cuh", ".py"].iter().any(|end| path.ends_with(end));
        if !source {
            continue;
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            violations.push(format!("{path} has {lines} lines, more than {MAX_LINES}: split it by subject"));
        }
        // `tests/common/mod.rs` is cargo's own convention for what test files share.
        let stem = path.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or(path);
        if EMPTY_NAMES.contains(&stem) {
            violations.push(format!("{path} has a name that says nothing"));
        }
    }
    violations
}

pub(crate) fn unsafe_code(files: &[Tracked]) -> Vec<String> {
    let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
    rust.filter(|file| {
        !UNSAFE_IN.iter().any(|place| file.path.starts_with(place)) && lifts_unsafe(&file.text)
    })
    .map(|file| format!("{} lifts the lint `unsafe_code`", file.path))
    .collect()
}

/// True for an `allow`, `warn` or `expect` with the lint anywhere in its list.
fn lifts_unsafe(text: &str) -> bool {
    ["allow(", "warn(", "expect("].iter().any(|attribute| {
        text.split(attribute).skip(1).any(|rest| {
            // A reason may hold any text, the names of lints before it no quotation mark and no bracket.
            let lints = rest.split(['"', ')']).next().unwrap_or(rest);
            lints.split(',').any(|lint| lint.trim() == "unsafe_code")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracked(path: &str, text: &str) -> Tracked {
        Tracked { path: path.into(), text: text.into() }
    }

    #[test]
    fn long_files_and_empty_names_are_named() {
        let long = "\n".repeat(501);
        let found = files(&[
            tracked("crates/a/src/lib.rs", &long),
            tracked("crates/a/src/utils.rs", ""),
            tracked("crates/a/tests/common/mod.rs", ""),
            tracked("README.md", &long),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("501 lines") && found[1].contains("utils.rs"), "{found:?}");
    }

    #[test]
    fn unsafe_code_outside_its_crates_is_named() {
        // Put together here, so that this file does not break the rule itself.
        let lifted = ["#![allow", "(\n    unsafe_code, reason = \"\")]"].concat();
        let found = unsafe_code(&[
            tracked("crates/merge/src/lib.rs", &lifted),
            tracked("crates/plugin-host/src/lib.rs", &lifted),
            tracked("crates/cli/src/main.rs", "#![deny(unsafe_code)]"),
        ]);
        assert_eq!(found, ["crates/merge/src/lib.rs lifts the lint `unsafe_code`"]);
        let among =
            |list: &str| unsafe_code(&[tracked("a.rs", &["#![allow", "(", list, ")]"].concat())]).len();
        let reason = "reason = \"no unsafe_code, though\"";
        assert_eq!(among(&format!("dead_code, unsafe_code, {reason}")), 1);
        assert_eq!(among("dead_code,\n    unsafe_code,\n"), 1);
        assert_eq!(among(&format!("dead_code, {reason}")), 0);
        assert_eq!(among("unsafe_op_in_unsafe_fn"), 0);
    }
}
