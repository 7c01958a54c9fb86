//! `skillweld completions`.

use clap_complete::Shell;

use crate::{Outcome, arguments, console};

const EXAMPLES: &str = "\
Examples:
  skillweld completions bash > ~/.local/share/bash-completion/completions/skillweld
  skillweld completions zsh > ~/.zfunc/_skillweld
  skillweld completions fish > ~/.config/fish/completions/skillweld.fish";

/// Write a shell's completion script to standard output.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    let mut command = arguments::command(clap::ColorChoice::Never);
    clap_complete::generate(args.shell, &mut command, "skillweld", &mut script);
    console::print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}
