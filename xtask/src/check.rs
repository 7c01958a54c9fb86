//! The rules of this workspace, as tests. Each rule returns one line for everything that breaks it.

mod directions;
mod documents;
mod layout;

use anyhow::{Result, bail};

use crate::process::{announce, cargo, command, output, root, run as run_command};
use crate::{kernels, packages};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also build the documentation, every warning an error.
    #[arg(long)]
    docs: bool,
}

/// A file that git tracks (or would, once added).
struct Tracked {
    /// Relative to the repository's root, with forward slashes.
    path: String,
    /// Empty for files that are not text.
    text: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    announce("rules");
    let members = packages::members()?;
    let files = tracked()?;
    let rules = [
        ("dependencies point one way", directions::one_way(&members)),
        ("error and device crates stay where they belong", directions::kept_apart(&members)),
        ("every crate is described and takes the workspace's lints", layout::manifests(&members)?),
        ("files are short and say in their names what they hold", layout::files(&files)),
        ("unsafe code stays in its crates", layout::unsafe_code(&files)),
        ("ARCHITECTURE.md and the crates name one another", documents::architecture(&members, &files)),
        ("README.md names every plugin", documents::plugins(&files)),
        ("links between documents lead somewhere", documents::links(&files)),
        ("what documents quote is in the sources", documents::quotations(&files)),
        ("no path of a machine is written down", documents::machine_paths(&files)),
        ("the kernels' images come from their sources", stale_images()?),
        ("the lock file fits the manifests", documents::lock_file()),
    ];
    let mut broken = 0;
    for (rule, violations) in rules {
        println!("{} {rule}", if violations.is_empty() { "ok  " } else { "FAIL" });
        for violation in &violations {
            println!("     {violation}");
        }
        broken += violations.len();
    }
    if args.docs {
        announce("documentation");
        run_command(cargo().env("RUSTDOCFLAGS", "-D warnings").args([
            "doc",
            "--workspace",
            "--no-deps",
            "--quiet",
        ]))?;
    }
    if broken > 0 {
        bail!("{broken} violations");
    }
    Ok(())
}

fn stale_images() -> Result<Vec<String>> {
    let stale = kernels::stale_images()?;
    Ok(stale.iter().map(|name| format!("{name}: `cargo xtask kernels` rebuilds it")).collect())
}

fn tracked() -> Result<Vec<Tracked>> {
    let listed =
        output(command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let paths = listed.split_terminator('\0').filter(|path| root().join(path).is_file());
    Ok(paths
        .map(|path| Tracked {
            path: path.to_owned(),
            text: std::fs::read_to_string(root().join(path)).unwrap_or_default(),
        })
        .collect())
}
