//! The release binary and all plugins.

use anyhow::Result;

use crate::plugins;
use crate::process::announce;

/// The package of the binary `skillweld`.
pub(crate) const BINARY_PACKAGE: &str = "skillweld-cli";

pub(crate) fn run() -> Result<()> {
    plugins::build(true, &[BINARY_PACKAGE])?;
    let folder = plugins::profile_dir(true);
    announce("done");
    println!("{} finds the plugins beside itself", folder.join("skillweld").display());
    Ok(())
}
