//! Data moves in one direction through the crates; no crate reaches back up.

use crate::packages::Package;

/// Every crate with the crates of this workspace that it may be built with. Tests may use more.
const MAY_USE: &[(&str, &[&str])] = &[
    ("skillweld-simd", &[]),
    ("skillweld-chart", &[]),
    ("skillweld-tensor", &["simd"]),
    ("skillweld-linalg", &["simd", "tensor"]),
    ("skillweld-spelling", &[]),
    ("skillweld-store", &["simd", "spelling", "tensor"]),
    ("skillweld-plugin-abi", &[]),
    ("skillweld-plugin-sdk", &["plugin-abi", "simd", "linalg"]),
    ("skillweld-plugin-host", &["plugin-abi", "spelling", "tensor"]),
    ("skillweld-plugin-check", &["plugin-abi", "plugin-host", "spelling", "tensor"]),
    ("skillweld-merged", &["simd", "spelling", "tensor", "linalg", "store"]),
    ("skillweld-report", &["simd", "tensor", "linalg", "store", "merged", "chart"]),
    (
        "skillweld-merge",
        &[
            "simd",
            "spelling",
            "tensor",
            "linalg",
            "store",
            "merged",
            "router",
            "plugin-abi",
            "plugin-host",
            "gpu",
        ],
    ),
    ("skillweld-retain", &["tensor", "store", "merged", "plugin-host", "merge"]),
    ("skillweld-interchange", &["tensor", "linalg", "store", "merged", "merge"]),
    (
        "skillweld-sweep",
        &[
            "chart",
            "simd",
            "spelling",
            "tensor",
            "linalg",
            "store",
            "merged",
            "router",
            "plugin-abi",
            "plugin-host",
            "gpu",
            "merge",
        ],
    ),
    ("skillweld-gpu", &["plugin-abi", "simd", "tensor"]),
    ("skillweld-kernels", &["simd", "tensor", "gpu", "plugin-abi", "plugin-host", "plugin-sdk"]),
    ("skillweld-router", &["linalg"]),
    ("skillweld-serve", &[]),
    ("skillweld-policy", &["simd", "spelling", "tensor", "linalg", "store", "merged", "router", "gpu"]),
    (
        "skillweld-cli",
        &[
            "spelling",
            "tensor",
            "linalg",
            "store",
            "plugin-host",
            "plugin-check",
            "merge",
            "merged",
            "retain",
            "interchange",
            "router",
            "policy",
            "report",
            "serve",
            "sweep",
            "robot",
            "robot-sim",
            "robot-so101",
            "camera",
            "recorder",
            "drive",
            "suites",
            "eval",
            "rate",
            "chart",
            "gpu",
        ],
    ),
    (
        "skillweld-python",
        &["spelling", "tensor", "linalg", "store", "plugin-host", "merge", "merged", "retain"],
    ),
    ("skillweld-robot", &[]),
    ("skillweld-robot-so101", &["robot"]),
    ("skillweld-robot-sim", &["robot"]),
    ("skillweld-fake-servo-bus", &[]),
    ("skillweld-camera", &["robot"]),
    ("skillweld-drive", &["robot", "serve"]),
    ("skillweld-recorder", &["robot"]),
    ("skillweld-suites", &["robot-sim"]),
    ("skillweld-rate", &[]),
    ("skillweld-eval", &["robot", "suites", "chart", "rate"]),
    ("skillweld-synth", &["simd", "spelling", "tensor", "store"]),
    (
        "skillweld-benches",
        &["simd", "spelling", "tensor", "linalg", "store", "merged", "plugin-host", "synth"],
    ),
    ("xtask", &["spelling", "tensor", "store", "synth", "chart", "rate"]),
];

/// What a plugin sees of this workspace.
const PLUGIN_MAY_USE: &[&str] = &["plugin-sdk"];

/// External crates and the only members that may use them.
const ONLY_IN: &[(&str, &[&str])] =
    &[("anyhow", &["skillweld-cli", "xtask"]), ("cudarc", &["skillweld-gpu"])];

/// Members built without any other crate.
const ALONE: &[&str] = &["skillweld-plugin-abi"];

pub(crate) fn one_way(members: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for member in members {
        let listed = MAY_USE.iter().find(|(name, _)| *name == member.name);
        let allowed = match listed {
            Some((_, allowed)) => *allowed,
            None if member.is_plugin() => PLUGIN_MAY_USE,
            None => {
                violations.push(format!("{} has no row in xtask/src/check/directions.rs", member.name));
                continue;
            }
        };
        let ours = member.dependencies.iter().filter_map(|name| name.strip_prefix("skillweld-"));
        let strange = ours.filter(|name| !allowed.contains(name));
        violations.extend(strange.map(|name| format!("{} must not use skillweld-{name}", member.name)));
    }
    violations
}

pub(crate) fn kept_apart(members: &[Package]) -> Vec<String> {
    let mut violations = Vec::new();
    for member in members {
        for (dependency, users) in ONLY_IN {
            if !users.contains(&member.name.as_str()) && member.dependencies.iter().any(|d| d == dependency) {
                violations.push(format!("{} must not use {dependency}", member.name));
            }
        }
        if ALONE.contains(&member.name.as_str()) && !member.dependencies.is_empty() {
            violations.push(format!("{} must have no dependencies", member.name));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, folder: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.into(),
            folder: folder.into(),
            description: None,
            dependencies: dependencies.iter().map(|&d| d.into()).collect(),
        }
    }

    #[test]
    fn reaching_back_up_is_named() {
        let members = [
            package("skillweld-tensor", "crates/tensor", &["half", "skillweld-store"]),
            package("skillweld-plugin-x", "plugins/x", &["skillweld-plugin-sdk", "skillweld-tensor"]),
            package("skillweld-new", "crates/new", &[]),
        ];
        let expected = [
            "skillweld-tensor must not use skillweld-store",
            "skillweld-plugin-x must not use skillweld-tensor",
            "skillweld-new has no row in xtask/src/check/directions.rs",
        ];
        assert_eq!(one_way(&members), expected);
    }

    #[test]
    fn external_crates_are_kept_apart() {
        let members = [
            package("skillweld-merge", "crates/merge", &["anyhow"]),
            package("skillweld-plugin-abi", "crates/plugin-abi", &["libc"]),
            package("skillweld-cli", "crates/cli", &["anyhow"]),
        ];
        let expected =
            ["skillweld-merge must not use anyhow", "skillweld-plugin-abi must have no dependencies"];
        assert_eq!(kept_apart(&members), expected);
    }
}
