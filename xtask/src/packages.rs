//! What cargo knows of this workspace.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{cargo, output, root};

/// A member of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder, relative to the repository's root.
    pub(crate) folder: PathBuf,
    pub(crate) description: Option<String>,
    /// Packages that it is built with: normal and build dependencies, optional ones included.
    pub(crate) dependencies: Vec<String>,
}

impl Package {
    pub(crate) fn is_plugin(&self) -> bool {
        self.folder.starts_with("plugins")
    }
}

/// Every member, sorted by folder.
pub(crate) fn members() -> Result<Vec<Package>> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value =
        serde_json::from_str(&text).context("cargo metadata printed something else than JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata named no packages")?;
    let mut members =
        packages.iter().map(parse).collect::<Option<Vec<_>>>().context("unknown cargo metadata")?;
    members.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(members)
}

fn parse(package: &Value) -> Option<Package> {
    let manifest = PathBuf::from(package["manifest_path"].as_str()?);
    let folder = manifest.parent()?;
    let dependencies = package["dependencies"].as_array()?.iter();
    Some(Package {
        name: package["name"].as_str()?.to_owned(),
        folder: folder.strip_prefix(root().canonicalize().ok()?).unwrap_or(folder).to_owned(),
        description: package["description"].as_str().map(str::to_owned),
        dependencies: dependencies
            .filter(|dependency| dependency["kind"] != "dev")
            .filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned()))
            .collect(),
    })
}
