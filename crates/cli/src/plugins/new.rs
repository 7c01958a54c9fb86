//! `skillweld plugins new`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::workspace::{add_member, find_sdk, root_above};
use crate::Outcome;
use crate::console::{Console, Page, Tone};

const EXAMPLES: &str = "\
Examples:
  skillweld plugins new my_merge --dir ~/methods
  cd ~/methods/my_merge && cargo test && cargo build --release
  skillweld plugins check target/release/libskillweld_plugin_my_merge.so

In Skillweld's source tree the crate goes to plugins/NAME and becomes a member of the workspace.";

/// Start a plugin: a crate with one small merge method, its test and a README.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The method's name in recipes: a-z, 0-9 and _.
    name: String,
    /// The folder that gets the crate's folder [default: plugins/ of the source tree around us, else this one].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The folder `crates/plugin-sdk` of Skillweld's source, where it is not found by itself.
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

/// Files of the crate. `{{id}}` is the method's name, `{{type}}` its Rust type, `{{library}}` its file.
const FILES: [(&str, &str); 2] = [
    ("src/lib.rs", include_str!("template/lib.rs.txt")),
    ("README.md", include_str!("template/README.md.txt")),
];
const MANIFEST_ALONE: &str = include_str!("template/alone.toml.txt");
const MANIFEST_MEMBER: &str = include_str!("template/member.toml.txt");

pub(crate) fn run(args: &Args, console: Console) -> Result<Outcome> {
    let id = args.name.replace('-', "_");
    check_id(&id)?;
    let here = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    fs::create_dir_all(&here).with_context(|| format!("cannot make {}", here.display()))?;
    let here = here.canonicalize()?;
    let tree = root_above(&here);
    let parent = match (&args.dir, &tree) {
        (None, Some(root)) => root.join("plugins"),
        _ => here,
    };
    let folder = parent.join(&args.name);
    ensure!(!folder.exists(), "{} already exists; choose another name or folder", folder.display());

    // Only the tree's own `plugins/` is part of its workspace.
    let member_of = tree.filter(|root| parent == root.join("plugins"));
    let manifest = match &member_of {
        Some(_) => fill(MANIFEST_MEMBER, &id, None),
        None => fill(MANIFEST_ALONE, &id, Some(&find_sdk(args.sdk.as_deref(), &parent)?)),
    };
    write(&folder.join("Cargo.toml"), &manifest)?;
    for (name, template) in FILES {
        write(&folder.join(name), &fill(template, &id, None))?;
    }
    if member_of.is_none() {
        write(&folder.join(".gitignore"), "/target\n")?;
    }

    let mut page = Page::new(console);
    page.heading("New plugin", page.paint(Tone::Name, folder.display()));
    if let Some(root) = &member_of
        && add_member(root, &format!("plugins/{}", args.name))?
    {
        page.line(format!("  added to the members of {}", root.join("Cargo.toml").display()));
    }
    page.line("Next:");
    page.line(format!("  cd {}", folder.display()));
    page.line("  cargo test && cargo build --release");
    let built = match (std::env::var_os("CARGO_TARGET_DIR"), &member_of) {
        (Some(target), _) => PathBuf::from(target),
        (None, Some(_)) => PathBuf::from("../../target"),
        (None, None) => PathBuf::from("target"),
    };
    let built = built.join("release").join(library(&id));
    page.line(format!("  {} plugins check {}", program(), built.display()));
    page.print()?;
    Ok(Outcome::Done)
}

/// What a shell calls this program by: its name where the search path leads to it, else where it lies.
fn program() -> String {
    const NAME: &str = "skillweld";
    let own = std::env::current_exe().and_then(|own| own.canonicalize()).ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    match (own, first.and_then(|file| file.canonicalize().ok())) {
        (Some(own), found) if found.as_ref() != Some(&own) => own.display().to_string(),
        _ => NAME.to_owned(),
    }
}

/// The method's Rust type: `MyMerge` for `my_merge`, never a name that the template uses for something else.
fn type_name(id: &str) -> String {
    const TAKEN: [&str; 9] =
        ["Block", "MergeMethod", "Param", "Result", "Self", "Spec", "Ok", "Trial", "Vec"];
    let words = id.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
    let name: String = words.collect();
    if TAKEN.contains(&name.as_str()) { name + "Merge" } else { name }
}

fn check_id(id: &str) -> Result<()> {
    let starts_well = id.starts_with(|first: char| first.is_ascii_lowercase());
    let all_allowed = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !starts_well || !all_allowed || id.ends_with('_') || id.contains("__") {
        bail!(
            "`{id}` cannot name a method: write words of a-z and 0-9 with `_` between them, such as my_merge"
        );
    }
    Ok(())
}

/// The file that cargo builds.
fn library(id: &str) -> String {
    format!("{}skillweld_plugin_{id}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

fn fill(template: &str, id: &str, sdk: Option<&Path>) -> String {
    // A JSON string is a TOML string.
    let sdk = serde_json::Value::from(sdk.map(|sdk| sdk.display().to_string())).to_string();
    template
        .replace("{{id}}", id)
        .replace("{{package}}", &id.replace('_', "-"))
        .replace("{{type}}", &type_name(id))
        .replace("{{library}}", &library(id))
        .replace("{{sdk}}", &sdk)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ids_types_and_files() {
        assert_eq!(fill("{{id}} {{package}} {{type}}", "my_merge2", None), "my_merge2 my-merge2 MyMerge2");
        assert_eq!(
            ["self", "merge_method", "selfish"].map(type_name),
            ["SelfMerge", "MergeMethodMerge", "Selfish"]
        );
        assert_eq!(fill("{{sdk}}", "a", Some(Path::new("/x \"y\""))), r#""/x \"y\"""#);
        for bad in ["", "2a", "_a", "a_", "a__b", "A", "a b", "é"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
        assert!(check_id("ties2_mean").is_ok());
    }
}
