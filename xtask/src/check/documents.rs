//! Documents say what is there, and nothing says where it was written.

use std::collections::BTreeSet;

use super::Tracked;
use crate::packages::Package;
use crate::process::{cargo, output, root};

/// Every member is named in ARCHITECTURE.md, and every crate named in a table there exists.
pub(crate) fn architecture(members: &[Package], files: &[Tracked]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == "ARCHITECTURE.md") else {
        return vec!["ARCHITECTURE.md is missing".into()];
    };
    let folders: BTreeSet<String> = members.iter().map(|m| m.folder.display().to_string()).collect();
    // A row names its crate first, in backticks, by folder or by the folder's last part: | `tensor` | … |
    let rows =
        document.text.lines().filter_map(|line| line.trim_start().strip_prefix("| `")?.split('`').next());
    let rows: BTreeSet<&str> = rows.map(|name| name.trim_end_matches('/')).collect();
    let mut violations = Vec::new();
    for folder in &folders {
        let last = folder.rsplit('/').next().unwrap_or(folder);
        // Plugins may share one row for their folder.
        let named = rows.contains(folder.as_str())
            || rows.contains(last)
            || (folder.starts_with("plugins/") && rows.contains("plugins"));
        if !named {
            violations.push(format!("{folder} has no row in ARCHITECTURE.md"));
        }
    }
    for row in rows {
        let exists = [row.to_owned(), format!("crates/{row}"), format!("plugins/{row}")];
        if !exists.iter().any(|path| root().join(path).exists()) {
            violations.push(format!("ARCHITECTURE.md has a row for `{row}`, which does not exist"));
        }
    }
    violations
}

/// README.md names every plugin by its folder.
pub(crate) fn plugins(files: &[Tracked]) -> Vec<String> {
    let Some(readme) = files.iter().find(|file| file.path == "README.md") else {
        return vec!["README.md is missing".into()];
    };
    let below = |file: &Tracked| {
        file.path.strip_prefix("plugins/")?.split_once('/').map(|(folder, _)| folder.to_owned())
    };
    // A folder with sources: some only hold what the tests of several plugins share.
    let sources = files.iter().filter(|file| file.path.ends_with(".c") || file.path.ends_with("/Cargo.toml"));
    let folders: BTreeSet<String> = sources.filter_map(below).collect();
    let missing = folders.iter().filter(|folder| !readme.text.contains(&format!("plugins/{folder}")));
    missing.map(|folder| format!("README.md does not name plugins/{folder}")).collect()
}

/// What documents quote stands word for word in the file that they name, in the line before the code:
/// `<!-- quoted from PATH -->`.
pub(crate) fn quotations(files: &[Tracked]) -> Vec<String> {
    const MARK: &str = "<!-- quoted from ";
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (number, quotation) in file.text.split(MARK).skip(1).enumerate() {
            let parts = quotation.split_once(" -->").and_then(|(path, rest)| {
                let (_, code) = rest.split_once("```")?.1.split_once('\n')?;
                Some((path, code.split_once("```")?.0))
            });
            let Some((path, code)) = parts else {
                violations.push(format!(
                    "{}: quotation {} names no file or has no code",
                    file.path,
                    number + 1
                ));
                continue;
            };
            let source = std::fs::read_to_string(root().join(path)).unwrap_or_default();
            if code.trim().is_empty() || !source.contains(code) {
                let first = code.lines().next().unwrap_or_default().trim();
                violations.push(format!("{} quotes `{first} …`, which is not in {path}", file.path));
            }
        }
    }
    violations
}

/// Relative links in Markdown lead to files.
pub(crate) fn links(files: &[Tracked]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '#']).next()) {
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !root().join(folder).join(target).exists() {
                violations.push(format!("{} links to {target}, which does not exist", file.path));
            }
        }
    }
    violations
}

/// Nothing names the folder that this checkout lies in, a home or a temporary directory.
pub(crate) fn machine_paths(files: &[Tracked]) -> Vec<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let mut places = vec![root().display().to_string(), home, "/tmp".into()];
    places.extend(root().parent().map(|parent| parent.display().to_string()));
    places.retain(|place| place.len() > 1);
    find_paths(files, &places)
}

fn find_paths(files: &[Tracked], places: &[String]) -> Vec<String> {
    let mut violations = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            // `a/tmp/b` is no absolute path.
            let within =
                |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "._-/}$".contains(c));
            let names = |place: &String| {
                let below = format!("{place}/");
                line.match_indices(&below).any(|(at, _)| !within(&line[..at]))
            };
            if let Some(place) = places.iter().find(|place| names(place)) {
                violations.push(format!("{}:{} names a path below {place}", file.path, number + 1));
            }
        }
    }
    violations
}

/// Cargo.lock is there and needs no change.
pub(crate) fn lock_file() -> Vec<String> {
    match output(cargo().args(["metadata", "--format-version", "1", "--locked"])) {
        Ok(_) => Vec::new(),
        Err(error) => vec![format!("{error:#}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_of_the_machine_are_named() {
        let file = |text: &str| Tracked { path: "notes.md".into(), text: text.into() };
        let places = ["/home/someone".to_owned()];
        assert_eq!(
            find_paths(&[file("see\n`/home/someone/x`")], &places),
            ["notes.md:2 names a path below /home/someone"]
        );
        assert!(find_paths(&[file("a/home/someone/x and /home/someone")], &places).is_empty());
    }
}
