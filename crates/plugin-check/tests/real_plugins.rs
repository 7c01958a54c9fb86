//! Every plugin of this repository keeps the laws, through the shared library that a user loads.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::path::Path;
use std::process::Command;

use skillweld_plugin_check::{CheckOptions, Report, check};
use skillweld_plugin_host::{Method, Plugin, Registry};
use tempfile::TempDir;

const MERGE_METHODS: &[&str] = &[
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "dare_linear",
    "dare_slerp",
    "dare_ties",
    "della",
    "della_linear",
    "emr",
    "fisher",
    "iso_c",
    "iso_cts",
    "karcher",
    "knots",
    "lerp",
    "linear",
    "magmax",
    "metagpt",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "opcm",
    "passthrough",
    "pcb",
    "ram",
    "ramplus_tl",
    "regmean",
    "sce",
    "slerp",
    "subset_mean",
    "task_arithmetic",
    "ties",
    "trimmed_mean",
    "tsv",
    "wudi",
];
const MASK_METHODS: &[&str] = &["consensus", "emr", "magnitude", "tall"];

/// The Rust plugins stand next to this test's own binary; those in C are compiled as their first lines say.
fn registry() -> Registry {
    let binary = std::env::current_exe().unwrap();
    let mut registry = Registry::discover_in(&[], &[binary.parent().unwrap().to_owned()]).unwrap();
    let folder = TempDir::new().unwrap();
    for source in ["magmax-c/magmax.c", "metagpt-c/metagpt.c"] {
        let library = folder.path().join(Path::new(source).with_extension("so").file_name().unwrap());
        let status = Command::new("cc")
            .args(["-std=c99", "-O3", "-fPIC", "-shared", "-I", "crates/plugin-abi/include", "-o"])
            .arg(&library)
            .arg(Path::new("plugins").join(source))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .status()
            .unwrap();
        assert!(status.success());
        registry.add(&Plugin::load(&library).unwrap());
    }
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
