//! Where plugins are looked for, which counts, and what is said about the others.

mod support;

use std::time::Instant;

use skillweld_plugin_host::{PluginError, Registry};
use support::build;
use tempfile::TempDir;

#[test]
fn the_first_found_counts_and_extra_comes_first() {
    let (here, there, extra) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    build(here.path(), "a", &["ID=\"alpha\"", "VERSION=\"1.0.0\""]);
    build(here.path(), "b", &["ID=\"beta\"", "VERSION=\"1.0.0\""]);
    build(there.path(), "a", &["ID=\"alpha\"", "VERSION=\"2.0.0\""]);
    let own = build(extra.path(), "b", &["ID=\"beta\"", "VERSION=\"3.0.0\""]);
    let search_path = [here.path().to_owned(), there.path().to_owned(), here.path().to_owned()];
    let registry = Registry::discover_in(&[own], &search_path).unwrap();
    assert_eq!(registry.merge("alpha").unwrap().version(), "1.0.0");
    assert_eq!(registry.merge("beta").unwrap().version(), "3.0.0");
    let reasons: Vec<&str> = registry.skipped().iter().map(|skipped| skipped.reason.as_str()).collect();
    let [beta, alpha] = reasons[..] else { panic!("two shadowed methods expected: {reasons:?}") };
    assert!(beta.contains("merge method `beta` is already there from"), "{beta}");
    assert!(alpha.contains("merge method `alpha` is already there from"), "{alpha}");
}

#[test]
fn bad_plugins_are_skipped_unless_asked_for() {
    let folder = TempDir::new().unwrap();
    build(folder.path(), "good", &[]);
    let bad = build(folder.path(), "bad", &["MAGIC=1"]);
    std::fs::write(folder.path().join("libother.so"), "not looked at").unwrap();
    let missing = folder.path().join("missing");
    let registry = Registry::discover_in(&[], &[missing.clone(), folder.path().to_owned()]).unwrap();
    assert_eq!(registry.iter().map(|method| method.id()).collect::<Vec<_>>(), ["probe"]);
    let [first, second] = registry.skipped() else { panic!("two expected: {:?}", registry.skipped()) };
    assert_eq!(first.path, missing);
    assert_eq!(second.path, bad);
    assert!(second.reason.contains("magic number"), "{}", second.reason);

    let error = Registry::discover_in(std::slice::from_ref(&bad), &[]).unwrap_err();
    assert!(matches!(error, PluginError::BadPlugin { ref path, .. } if *path == bad), "{error}");
    let error = Registry::discover_in(&[missing], &[]).unwrap_err();
    assert!(matches!(error, PluginError::Unreadable { .. }), "{error}");
}

#[test]
fn a_folder_without_plugins_is_named() {
    let (full, empty, other) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    build(full.path(), "good", &[]);
    std::fs::write(other.path().join("plugin.so"), "of another name").unwrap();
    let path = |folder: &TempDir| folder.path().to_owned();
    let registry = Registry::discover_in(&[path(&empty)], &[path(&full), path(&other)]).unwrap();
    assert_eq!(registry.iter().len(), 1);
    let [first, second] = registry.skipped() else { panic!("two expected: {:?}", registry.skipped()) };
    assert_eq!((&first.path, &second.path), (&path(&empty), &path(&other)));
    for skipped in [first, second] {
        assert!(skipped.reason.contains("holds no plugin") && skipped.reason.contains("skillweld_plugin_*"));
    }
    // The folder of the binary is always looked at; nobody named it.
    let tests = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let registry = Registry::discover(&[]).unwrap();
    assert!(!registry.skipped().iter().any(|skipped| skipped.path == tests), "{:?}", registry.skipped());
}

#[test]
fn a_misspelt_id_gets_a_suggestion() {
    let folder = TempDir::new().unwrap();
    build(folder.path(), "a", &["ID=\"task_arithmetic\""]);
    build(folder.path(), "b", &["ID=\"ties\""]);
    build(folder.path(), "c", &["ID=\"tall\"", "KIND=SKW_KIND_MASK"]);
    let registry = Registry::discover_in(&[], &[folder.path().to_owned()]).unwrap();
    let message = |result: Result<&_, PluginError>| result.map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        message(registry.merge("task_arithmetc")),
        "no merge method is called `task_arithmetc`; did you mean `task_arithmetic`?"
    );
    assert_eq!(
        message(registry.merge("zzz")),
        "no merge method is called `zzz`; there are: task_arithmetic, ties. One of your own is found by --plugin or \
         SKILLWELD_PLUGINS"
    );
    assert_eq!(message(registry.mask("tal")), "no mask method is called `tal`; did you mean `tall`?");
    assert!(message(Registry::default().merge("ties")).contains("SKILLWELD_PLUGINS"));
}

/// The whole program has 20 ms to start; ten plugins may take half of it.
#[test]
fn ten_plugins_load_in_ten_milliseconds() {
    let folders: Vec<TempDir> = (0..3).map(|_| TempDir::new().unwrap()).collect();
    let fastest = folders.iter().map(|folder| {
        let first = build(folder.path(), "0", &[]);
        for number in 1..10 {
            std::fs::copy(&first, folder.path().join(support::file_name(&number.to_string()))).unwrap();
        }
        let start = Instant::now();
        let registry = Registry::discover_in(&[], &[folder.path().to_owned()]).unwrap();
        assert_eq!((registry.iter().len(), registry.skipped().len()), (1, 9));
        start.elapsed()
    });
    // The fastest of three: other tests share the machine.
    let fastest = fastest.min().unwrap();
    assert!(fastest.as_millis() < 10, "{fastest:?}");
}
