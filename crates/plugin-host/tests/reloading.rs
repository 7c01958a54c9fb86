//! A rebuilt plugin runs its new code, and the copy that this takes is nobody else's business.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::symlink;

use skillweld_plugin_host::Plugin;
use support::{build, file_name};
use tempfile::TempDir;

/// What lies in the shared folder for temporary files and bears our name.
fn leftovers() -> BTreeSet<OsString> {
    let names = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("skillweld-")).collect()
}

#[test]
fn a_reload_follows_no_link_that_others_have_laid() {
    let folder = TempDir::new().unwrap();
    let library = build(folder.path(), "again", &["VERSION=\"1.0.0\""]);
    assert_eq!(Plugin::load(&library).unwrap().methods()[0].version(), "1.0.0");
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    // Names that a copy once had: anybody can guess a process's number.
    let traps: Vec<_> = (0..32)
        .map(|count| format!("skillweld-{}-{count}-{}", std::process::id(), file_name("again")))
        .map(|name| std::env::temp_dir().join(name))
        .collect();
    traps.iter().for_each(|trap| symlink(&precious, trap).unwrap());
    let before = leftovers();
    build(folder.path(), "again", &["VERSION=\"2.0.0\""]);
    let reloaded = Plugin::load(&library);
    let after = leftovers();
    traps.iter().for_each(|trap| drop(std::fs::remove_file(trap)));
    assert_eq!(reloaded.unwrap().methods()[0].version(), "2.0.0");
    assert!(std::fs::read(&precious).unwrap() == b"precious", "the copy went through a link");
    assert_eq!(after, before, "the copy was left behind, or a trap was taken for it");
}
