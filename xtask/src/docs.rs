//! The pages about methods in `docs/methods`, from what the plugins say of themselves.

use anyhow::Result;

use crate::plugins;
use crate::process::{announce, command, root, run as run_command};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing, and fail where a page is not what would be written now.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    plugins::build(false, &["-p", "skillweld-cli"])?;
    write(args.check)
}

/// The same with plugins and program built for debugging as they are.
pub(crate) fn write(check: bool) -> Result<()> {
    announce(if check {
        "pages about methods: `cargo xtask docs` writes those that are stale"
    } else {
        "pages about methods"
    });
    let mut skillweld = command(plugins::profile_dir(false).join("skillweld"));
    skillweld.args(["plugins", "docs"]).arg(root().join("docs/methods"));
    // Only our own plugins: those beside the program.
    skillweld.env_remove("SKILLWELD_PLUGINS");
    if check {
        skillweld.arg("--check");
    }
    run_command(&mut skillweld)
}
