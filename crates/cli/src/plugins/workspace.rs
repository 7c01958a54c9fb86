//! Skillweld's own source tree, from which a new plugin takes the SDK.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the SDK lies below the root.
const SDK: &str = "crates/plugin-sdk";

/// The root of the Skillweld source tree that holds `dir`, if one does.
pub(crate) fn root_above(dir: &Path) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    dir.ancestors().find(|root| is_sdk(&root.join(SDK))).map(Path::to_owned)
}

fn is_sdk(dir: &Path) -> bool {
    fs::read_to_string(dir.join("Cargo.toml"))
        .is_ok_and(|text| text.contains("name = \"skillweld-plugin-sdk\""))
}

/// The SDK that a crate in `dir` is to use: the one asked for, that of the tree around it, that of the tree around this
/// program, or the one this program was built from.
pub(crate) fn find_sdk(asked_for: Option<&Path>, dir: &Path) -> Result<PathBuf> {
    if let Some(sdk) = asked_for {
        if !is_sdk(sdk) {
            bail!("{} is not the plugin SDK: name the folder `{SDK}` of Skillweld's source", sdk.display());
        }
        return sdk.canonicalize().with_context(|| format!("cannot find {}", sdk.display()));
    }
    let program = std::env::current_exe().ok();
    let trees = [Some(dir), program.as_deref(), Some(Path::new(env!("CARGO_MANIFEST_DIR")))];
    match trees.into_iter().flatten().find_map(root_above) {
        Some(root) => Ok(root.join(SDK)),
        None => bail!("the plugin SDK was not found; get Skillweld's source and add `--sdk SOURCE/{SDK}`"),
    }
}

/// Makes `plugins/NAME` a member of the workspace, as `cargo new` would. True when the manifest was changed.
///
/// A line edit, so that comments and order stay as they are.
pub(crate) fn add_member(root: &Path, member: &str) -> Result<bool> {
    let manifest = root.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let Some(changed) = with_member(&text, member) else { return Ok(false) };
    fs::write(&manifest, changed).with_context(|| format!("cannot write {}", manifest.display()))?;
    Ok(true)
}

/// The manifest with one more member; `None` when it is one already, by name or by `plugins/*`.
fn with_member(manifest: &str, member: &str) -> Option<String> {
    let start = manifest.find("members = [")?;
    let end = start + manifest[start..].find(']')?;
    let listed = &manifest[start..end];
    if listed.contains("\"plugins/*\"") || listed.contains(&format!("\"{member}\"")) {
        return None;
    }
    let before = manifest[..end].trim_end();
    let comma = if before.ends_with(['[', ',']) { "" } else { "," };
    let space = if before.ends_with('[') { "" } else { " " };
    Some(format!("{before}{comma}{space}\"{member}\"{}", &manifest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_added_once() {
        let one_line = "[workspace]\nmembers = [\"a\", \"b\"]\n# x\n";
        let added = with_member(one_line, "plugins/c").unwrap();
        assert_eq!(added, "[workspace]\nmembers = [\"a\", \"b\", \"plugins/c\"]\n# x\n");
        assert_eq!(with_member(&added, "plugins/c"), None);
        assert_eq!(with_member("members = []", "plugins/c").unwrap(), "members = [\"plugins/c\"]");
        assert_eq!(with_member("members = [\"a\",\n]", "c").unwrap(), "members = [\"a\", \"c\"]");
        assert_eq!(with_member("members = [\"plugins/*\"]", "plugins/c"), None);
    }
}
