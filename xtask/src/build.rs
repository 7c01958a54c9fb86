//! The release binary and all plugins.

use std::path::PathBuf;

use anyhow::Result;

use crate::plugins;
use crate::process::announce;

pub(crate) fn run() -> Result<()> {
    let skillweld = release()?;
    announce("done");
    println!("{} finds the plugins beside itself", skillweld.display());
    Ok(())
}

/// Builds binary and plugins, optimised, and returns the binary's path.
pub(crate) fn release() -> Result<PathBuf> {
    plugins::build(true, &["-p", "skillweld-cli"])?;
    Ok(plugins::profile_dir(true).join("skillweld"))
}
