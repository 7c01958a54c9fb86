//! Each way in which a library can be no good plugin, and the words for it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::path::Path;

use skillweld_plugin_host::{Plugin, PluginError};
use support::{build, load};
use tempfile::TempDir;

fn refusal(macros: &[&str]) -> String {
    let error = load(macros).unwrap_err();
    assert!(error.to_string().contains("skillweld_plugin_probe"), "no file name in: {error}");
    error.to_string()
}

#[track_caller]
fn assert_refused(macros: &[&str], words: &str) {
    let message = refusal(macros);
    assert!(message.contains(words), "`{words}` is not in: {message}");
}

#[test]
fn a_good_plugin_loads() {
    let plugin = load(&[]).unwrap();
    let [method] = plugin.methods() else { panic!("one method expected") };
    assert_eq!((method.id(), method.version(), method.summary()), ("probe", "1.0.0", "Mean, for tests"));
    assert_eq!((method.min_experts(), method.max_experts()), (1, Some(3)));
    assert_eq!(method.path(), plugin.path());
}

#[test]
fn the_header_is_checked() {
    assert_refused(&["MAGIC=7"], "magic number is 0x0000000000000007");
    assert_refused(&["HASH=7"], "layout hash 0x7 instead of");
    assert_refused(&["PLUGIN_SIZE=24"], "header has 24 bytes, version 1.0 has 40");
    assert_refused(&["COUNT=0"], "claims 0 methods");
    assert_refused(&["COUNT=4000000000u"], "claims 4000000000 methods");
    assert_refused(&["NULL_METHOD"], "method number 0: the pointer to it is null");
    assert_refused(&["COUNT=2"], "two merge methods called `probe`");
}

#[test]
fn a_method_is_checked() {
    assert_refused(&["RUN=NULL"], "method probe: its function `run` is null");
    assert_refused(&["METHOD_SIZE=100"], "struct has 100 bytes, at least");
    assert_refused(&["KIND=9"], "kind 9 is neither merge (1) nor mask (2)");
    assert_refused(&["FLAGS=0"], "exactly one of the flags");
    assert_refused(&["FLAGS=(SKW_ELEMENTWISE|SKW_MATRIX)"], "exactly one of the flags");
    assert_refused(&["FLAGS=(SKW_ROWS|SKW_MATRIX)"], "exactly one of the flags");
    assert_refused(&["FLAGS=(SKW_ELEMENTWISE|SKW_OPTIONAL_BASE)"], "OPTIONAL_BASE goes with TASK_VECTORS");
    assert_refused(&["FLAGS=(SKW_ELEMENTWISE|SKW_EMITS_MASKS)"], "must name its mask method");
    assert_refused(&["FLAGS=(SKW_ELEMENTWISE|SKW_ANY_SHAPE)"], "ANY_SHAPE goes with MATRIX");
    let measured = "FLAGS=(SKW_ELEMENTWISE|SKW_NEEDS_STATISTICS)";
    assert_refused(&[measured, "KIND=SKW_KIND_MASK"], "NEEDS_STATISTICS is for merge methods");
    assert_refused(
        &[measured, "CUDA=&device_code"],
        "NEEDS_STATISTICS is for merge methods without device code",
    );
    assert_refused(&["MASK=\"tall\""], "without the flag EMITS_MASKS");
    let rescaling = "FLAGS=(SKW_ELEMENTWISE|SKW_EMITS_MASKS)";
    assert_refused(&["KIND=SKW_KIND_MASK", "RESCALE=NULL", rescaling], "`rescale` is null");
    assert_refused(&["KIND=SKW_KIND_MASK", "MASK=\"tall\"", rescaling], "`mask` is set on a mask method");
    assert_refused(&["MIN_EXPERTS=4"], "min_experts 4 and max_experts 3");
    assert_refused(&["MIN_EXPERTS=0"], "min_experts 0");
}

#[test]
fn texts_are_checked() {
    assert_refused(&["ID=\"caf\\xff\""], "method number 0: its id is not UTF-8");
    assert_refused(&["ID=\"Probe\""], "the id `Probe` must consist of a-z");
    assert_refused(&["ID=\"\""], "its id is empty");
    assert_refused(&["VERSION=\"1\\x1b[2J\""], "control characters");
    let long = format!("ID=\"{}\"", "x".repeat(65));
    assert_refused(&[&long], "its id has 65 bytes");
}

#[test]
fn the_schema_is_checked() {
    let property = |body: &str| format!(r#"{{"type":"object","properties":{{"p":{{{body}}}}}}}"#);
    let cases = [
        ("nonsense".to_owned(), "the parameter schema is not JSON"),
        ("[]".to_owned(), "must be a JSON object"),
        (r#"{"type":"array"}"#.to_owned(), "must have type `object`"),
        (r#"{"propertys":{}}"#.to_owned(), "has `propertys`"),
        (property(r#""type":"array""#), "parameter `p`: type must be number"),
        (property(r#""type":"string""#), "needs a list `enum`"),
        (property(r#""type":"number","pattern":"x""#), "has `pattern`"),
        (property(r#""type":"number","minimum":2,"maximum":1"#), "no number is at least 2 and at most 1"),
        (property(r#""type":"number","maximum":1,"default":2"#), "the default 2 is not a number at most 1"),
        (property(r#""type":"integer","default":1.5"#), "the default 1.5 is not a whole number"),
        (property(r#""type":"boolean","x-no-effect":1"#), "`x-no-effect` must be true or false"),
        (
            r#"{"required":["p"],"properties":{"p":{"type":"boolean","default":true}}}"#.to_owned(),
            "`required` lists",
        ),
    ];
    for (schema, words) in cases {
        let escaped = schema.replace('"', "\\\"");
        assert_refused(&[&format!("SCHEMA=\"{escaped}\"")], words);
    }
}

/// A plugin built before `rescale` existed has other data behind its shorter struct.
#[test]
fn a_shorter_struct_of_an_older_plugin_is_read_only_so_far() {
    let until_rescale = "METHOD_SIZE=(offsetof(skw_method, rescale))";
    assert_eq!(load(&[until_rescale]).unwrap().methods().len(), 1);
    // With the flag that needs it, the function beyond the end must not be seen.
    let macros = [until_rescale, "KIND=SKW_KIND_MASK", "FLAGS=(SKW_ELEMENTWISE|SKW_EMITS_MASKS)"];
    assert_refused(&macros, "`rescale` is null");
}

#[test]
fn device_code_is_checked() {
    let with = |spoilt: &'static str| ["CUDA=&device_code", spoilt];
    let method = load(&["CUDA=&device_code"]).unwrap().methods()[0].clone();
    let code = method.cuda().unwrap();
    assert_eq!((&*code.run, code.threads, code.image.len()), ("probe_run", 256, 4));
    let without =
        |macros: &[&str]| assert!(load(macros).unwrap().methods()[0].cuda().is_none(), "{macros:?}");
    without(&[]);
    without(&with("EXTENSION=\"skillweld.cuda/2\""));
    // An older plugin has something else behind its shorter struct.
    without(&with("METHOD_SIZE=(offsetof(skw_method, cuda))"));
    assert_refused(&with("CUDA_SIZE=24"), "device code has 24 bytes, at least");
    assert_refused(&with("FLAGS=SKW_MATRIX"), "device code without the flag ELEMENTWISE");
    assert_refused(&with("KERNEL=\"a b\""), "kernel's name `a b` must consist of");
    assert_refused(&with("THREADS=100"), "blocks of 100 threads, allowed are multiples of 32 up to 1024");
    assert_refused(&with("THREADS=0"), "blocks of 0 threads");
    assert_refused(&with("IMAGE_LEN=0"), "device code has 0 bytes");
    assert_refused(&with("IMAGE=\"ELF?\""), "is no fatbin");
}

#[test]
fn a_longer_struct_of_a_newer_plugin_is_accepted() {
    let plugin = load(&["NEWER"]).unwrap();
    assert_eq!(plugin.methods()[0].id(), "probe");
}

#[test]
fn other_files_are_told_apart() {
    let other = load(&["EXPORTED=skillweld_plugin_v2"]).unwrap_err();
    assert!(matches!(other, PluginError::OtherAbi { found: 2, .. }), "{other}");
    assert!(other.to_string().contains("built for plugin ABI 2, this Skillweld speaks 1"), "{other}");
    let none = load(&["EXPORTED=something_else"]).unwrap_err();
    assert!(matches!(none, PluginError::NotAPlugin { .. }), "{none}");

    let folder = TempDir::new().unwrap();
    let text = folder.path().join("readme.txt");
    std::fs::write(&text, "not a library").unwrap();
    let error = Plugin::load(&text).unwrap_err();
    assert!(matches!(error, PluginError::NotALibrary { .. }), "{error}");
    let missing = Plugin::load(Path::new("/nowhere/x.so")).unwrap_err();
    assert!(matches!(missing, PluginError::Unreadable { .. }), "{missing}");
    let directory = Plugin::load(folder.path()).unwrap_err();
    assert!(matches!(directory, PluginError::Unreadable { .. }), "{directory}");
}

#[test]
fn the_same_path_loaded_again_runs_the_new_code() {
    let folder = TempDir::new().unwrap();
    for version in ["1.0.0", "2.0.0", "3.0.0"] {
        let path = build(folder.path(), "probe", &[&format!("VERSION=\"{version}\"")]);
        assert_eq!(Plugin::load(&path).unwrap().methods()[0].version(), version);
    }
}
