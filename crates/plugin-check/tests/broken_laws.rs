//! Every law is broken on purpose, by one detail of a C plugin, and exactly that law must be reported.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

use std::path::Path;
use std::process::Command;

use skillweld_plugin_check::{CheckOptions, Outcome, Report, check};
use skillweld_plugin_host::Plugin;
use tempfile::TempDir;

/// Compiles `data/wrong.c` with these macros and holds it to the laws.
fn report(macros: &[&str]) -> Report {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = TempDir::new().unwrap();
    let library = folder.path().join("plugin.so");
    // Rust links through the C compiler, so one is there wherever these tests build.
    let output = Command::new("cc")
        .args([
            "-std=c11",
            "-O1",
            "-ffp-contract=off",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Werror",
            "-Wno-unused-function",
        ])
        .args(macros.iter().map(|text| format!("-D{text}")))
        .arg("-I")
        .arg(package.join("../plugin-abi/include"))
        .arg(package.join("tests/data/wrong.c"))
        .arg("-o")
        .arg(&library)
        .arg("-lm")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&Plugin::load(&library).unwrap().methods()[0], &CheckOptions::default())
}

/// Only `law` is broken, and the message has these words and a counterexample.
#[track_caller]
fn assert_breaks(law: &str, words: &str, macros: &[&str]) {
    let report = report(macros);
    let broken: Vec<&str> = report.broken().map(|law| law.name).collect();
    assert_eq!(broken, [law], "{report}");
    let text = report.to_string();
    assert!(text.contains(words), "`{words}` is not in\n{text}");
    assert!(text.contains("parameters: "), "no counterexample in\n{text}");
}

#[track_caller]
fn assert_keeps(laws: &[&str], macros: &[&str]) {
    let report = report(macros);
    assert!(report.passed(), "{report}");
    for law in laws {
        let result = report.laws.iter().find(|result| result.name == *law).unwrap();
        assert!(matches!(result.outcome, Outcome::Passed { .. }), "{result}");
    }
}

const MASK: &str = "KIND=SKW_KIND_MASK";
const T: &str = r#"SCHEMA="{\"properties\":{\"t\":{\"type\":\"number\",\"minimum\":0,\"maximum\":1}}}""#;

#[test]
fn the_correct_plugins_keep_all_laws() {
    let computing = [
        "fills_output",
        "empty_tensors",
        "memory_bounds",
        "repetition",
        "seeds",
        "block_splitting",
        "threads",
    ];
    let mean = [
        "FLAGS=(SKW_ELEMENTWISE|SKW_DETERMINISTIC|SKW_LOW_RANK|SKW_PROPAGATES_NON_FINITE)",
        "LAWS=(SKW_LAW_IDENTITY|SKW_LAW_PERMUTATION|SKW_LAW_LINEAR|SKW_LAW_HOMOGENEOUS|SKW_LAW_ZERO|SKW_LAW_SIGN_AGREEMENT)",
    ];
    let algebra = ["identity", "permutation", "linearity", "homogeneity", "zero", "sign_agreement"];
    assert_keeps(
        &[&computing[..], &algebra, &["low_rank", "non_finite", "no_panics", "cancellation"]].concat(),
        &mean,
    );
    assert_keeps(&["endpoints"], &["INTERPOLATE", T, "LAWS=SKW_LAW_ENDPOINTS"]);
    let mask = "LAWS=(SKW_LAW_IDENTITY|SKW_LAW_PERMUTATION|SKW_LAW_HOMOGENEOUS|SKW_LAW_KEEPS_ITSELF)";
    let algebra = ["identity", "permutation", "homogeneity", "keeps_itself"];
    assert_keeps(&[&computing[..], &algebra].concat(), &[MASK, mask]);
}

#[test]
fn fills_output() {
    assert_breaks("fills_output", "is never written", &["BREAK_FILLS_OUTPUT"]);
    assert_breaks("fills_output", "comes out as inf", &["BREAK_FINITE"]);
}

#[test]
fn empty_tensors() {
    assert_breaks("empty_tensors", "failed on tensor model.layers.0.weight: no elements", &["BREAK_EMPTY"]);
}

#[test]
fn memory_bounds() {
    assert_breaks("memory_bounds", "it writes outside of the output", &["BREAK_BOUNDS"]);
    assert_breaks("memory_bounds", "it writes outside of the sums", &["BREAK_BOUNDS_SUMS"]);
    assert_breaks("memory_bounds", "it writes outside of the scratch", &["BREAK_BOUNDS_SCRATCH"]);
    assert_breaks("memory_bounds", "it writes to an expert", &["BREAK_BOUNDS_INPUT"]);
    assert_breaks("memory_bounds", "it writes outside of a mask", &["BREAK_BOUNDS_MASK", MASK]);
}

#[test]
fn repetition() {
    assert_breaks("repetition", "first [", &["BREAK_REPETITION"]);
}

#[test]
fn seeds() {
    assert_breaks("seeds", "seed ", &["BREAK_SEEDS"]);
}

#[test]
fn block_splitting() {
    assert_breaks("block_splitting", "whole [", &["BREAK_BLOCKS"]);
    let rows = "FLAGS=(SKW_ROWS|SKW_DETERMINISTIC)";
    assert_breaks("block_splitting", "whole [", &["BREAK_BLOCKS", rows]);
    assert_keeps(&["block_splitting"], &[rows]);
    assert_breaks("block_splitting", "total 0 is", &["BREAK_TOTALS"]);
    assert_breaks("block_splitting", "total 0 is", &["BREAK_TOTALS_OVERWRITTEN"]);
}

#[test]
fn threads() {
    assert_breaks("threads", "saw other bytes", &["BREAK_THREADS"]);
}

#[test]
fn low_rank() {
    let takes_factors = "FLAGS=(SKW_ELEMENTWISE|SKW_DETERMINISTIC|SKW_LOW_RANK)";
    assert_breaks("low_rank", "from factors", &["BREAK_LOW_RANK", takes_factors]);
}

#[test]
fn non_finite() {
    let propagates = "FLAGS=(SKW_ELEMENTWISE|SKW_DETERMINISTIC|SKW_PROPAGATES_NON_FINITE)";
    assert_breaks("non_finite", "comes out as 0", &["BREAK_NON_FINITE", propagates]);
}

#[test]
fn error_text() {
    assert_breaks("error_text", "fails without a word", &["BREAK_ERRORS"]);
}

#[test]
fn no_panics() {
    assert_breaks("no_panics", "attempt to add with overflow", &["BREAK_PANICS"]);
    assert_breaks("no_panics", "unknown status 17", &["BREAK_STATUS"]);
}

#[test]
fn cancellation() {
    assert_breaks("cancellation", "failed on tensor", &["BREAK_CANCELLATION"]);
}

#[test]
fn identity() {
    assert_breaks("identity", "comes out as", &["BREAK_IDENTITY", "LAWS=SKW_LAW_IDENTITY"]);
}

#[test]
fn permutation() {
    assert_breaks("permutation", "in the second", &["BREAK_PERMUTATION", "LAWS=SKW_LAW_PERMUTATION"]);
    assert_breaks(
        "permutation",
        "the mask of expert",
        &["BREAK_MASK_PERMUTATION", MASK, "LAWS=SKW_LAW_PERMUTATION"],
    );
}

#[test]
fn endpoints() {
    assert_breaks(
        "endpoints",
        "with t = 0",
        &["INTERPOLATE", "BREAK_ENDPOINTS", T, "LAWS=SKW_LAW_ENDPOINTS"],
    );
}

#[test]
fn linearity() {
    assert_breaks("linearity", "together", &["BREAK_LINEARITY", "LAWS=SKW_LAW_LINEAR"]);
}

#[test]
fn homogeneity() {
    assert_breaks("homogeneity", "with experts times", &["BREAK_HOMOGENEITY", "LAWS=SKW_LAW_HOMOGENEOUS"]);
}

#[test]
fn zero() {
    assert_breaks("zero", "with every expert zero", &["BREAK_ZERO", "LAWS=SKW_LAW_ZERO"]);
    assert_breaks("zero", "a further expert of zeros", &["BREAK_ZERO_BENT", "LAWS=SKW_LAW_ZERO"]);
}

#[test]
fn sign_agreement() {
    assert_breaks("sign_agreement", "against the sum", &["BREAK_SIGN", "LAWS=SKW_LAW_SIGN_AGREEMENT"]);
}

#[test]
fn keeps_itself() {
    assert_breaks("keeps_itself", "is dropped", &["BREAK_KEEPS_ITSELF", MASK, "LAWS=SKW_LAW_KEEPS_ITSELF"]);
}

#[test]
fn a_claim_that_cannot_be_kept_is_a_broken_law() {
    let report = report(&["LAWS=(SKW_LAW_KEEPS_ITSELF|SKW_LAW_ENDPOINTS)"]);
    let broken: Vec<&str> = report.broken().map(|law| law.name).collect();
    assert_eq!(broken, ["endpoints", "keeps_itself"]);
    assert!(report.to_string().contains("only a mask method can keep it"), "{report}");
    assert!(report.to_string().contains("no parameter `t`"), "{report}");
}
