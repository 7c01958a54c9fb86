//! Every plugin of this repository keeps the laws, through the shared library that a user loads.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::path::Path;
use std::process::Command;

use skillweld_plugin_check::{CheckOptions, Report, check};
use skillweld_plugin_host::{Method, Plugin, Registry};
use tempfile::TempDir;

const MERGE_METHODS: [&str; 13] = [
    "dare_linear",
    "dare_ties",
    "emr",
    "fisher",
    "linear",
    "magmax",
    "opcm",
    "passthrough",
    "pcb",
    "regmean",
    "slerp",
    "task_arithmetic",
    "ties",
];
const MASK_METHODS: [&str; 4] = ["consensus", "emr", "magnitude", "tall"];

/// The Rust plugins stand next to this test's own binary; the C one is compiled as its first lines say.
fn registry() -> Registry {
    let binary = std::env::current_exe().unwrap();
    let mut registry = Registry::discover_in(&[], &[binary.parent().unwrap().to_owned()]).unwrap();
    let folder = TempDir::new().unwrap();
    let library = folder.path().join("magmax.so");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let status = Command::new("cc")
        .args(["-std=c99", "-O3", "-fPIC", "-shared", "-I", "crates/plugin-abi/include", "-o"])
        .arg(&library)
        .arg("plugins/magmax-c/magmax.c")
        .current_dir(root)
        .status()
        .unwrap();
    assert!(status.success());
    registry.add(&Plugin::load(&library).unwrap());
    registry
}

#[test]
fn all_methods_keep_their_laws() {
    let registry = registry();
    let mut methods: Vec<&Method> = MERGE_METHODS.iter().map(|id| registry.merge(id).unwrap()).collect();
    methods.extend(MASK_METHODS.iter().map(|id| registry.mask(id).unwrap()));
    // Each on a thread of its own: a check mostly waits for other cores in the law about threads.
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let checks: Vec<_> =
            methods.iter().map(|method| scope.spawn(|| check(method, &CheckOptions::default()))).collect();
        checks.into_iter().map(|check| check.join().unwrap()).collect()
    });
    for report in &reports {
        println!("{report}");
    }
    let broken: Vec<String> =
        reports.iter().filter(|report| !report.passed()).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
