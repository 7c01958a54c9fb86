//! `skillweld plugins …`, and how every command finds plugins.

mod chatter;
mod check;
mod child;
mod describe;
mod docs;
mod inspect;
mod list;
mod new;
mod workspace;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Subcommand;
use skillweld_plugin_host::{Level, Registry};

use crate::Outcome;
use crate::console::Console;

const EXAMPLES: &str = "\
Examples:
  skillweld plugins list
  skillweld plugins inspect ties
  skillweld plugins docs methods
  skillweld plugins new my_merge --dir ~/methods
  skillweld plugins check target/release/libskillweld_plugin_my_merge.so

Plugins are looked for in --plugin PATH, next to the program, then in the folders and files of $SKILLWELD_PLUGINS.";

/// List, describe, check and start merge-method plugins.
#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Command {
    List(list::Args),
    Inspect(inspect::Args),
    Check(check::Args),
    Docs(docs::Args),
    New(new::Args),
}

pub(crate) fn run(command: &Command, console: Console) -> anyhow::Result<Outcome> {
    match command {
        Command::List(args) => list::run(args, console),
        Command::Inspect(args) => inspect::run(args, console),
        Command::Check(args) => check::run(args, console),
        Command::Docs(args) => docs::run(args, console),
        Command::New(args) => new::run(args, console),
    }
}

/// Where else to look for plugins.
#[derive(clap::Args)]
pub(crate) struct Search {
    /// A plugin, or a folder of plugins, before all others; may be repeated.
    #[arg(long = "plugin", value_name = "PATH")]
    extra: Vec<PathBuf>,
}

impl Search {
    /// The paths given, for somebody in another folder.
    pub(crate) fn absolute(&self) -> Vec<String> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        self.extra.iter().map(|path| absolute(path).to_string_lossy().into_owned()).collect()
    }

    /// Loads all plugins; those that cannot be used are named in warnings, unless `quiet`.
    pub(crate) fn discover(&self, console: Console, quiet: bool) -> anyhow::Result<Registry> {
        let registry = Registry::discover(&self.extra)?;
        for skipped in registry.skipped().iter().filter(|_| !quiet) {
            console.warn(&format!("skipped {}: {}", skipped.path.display(), skipped.reason));
        }
        Ok(registry)
    }
}

/// What plugins say while they work, each line once: a method is called for every block of every tensor.
pub(crate) struct PluginLog {
    console: Console,
    quiet: bool,
    said: Mutex<HashSet<String>>,
}

/// Lines that are kept in mind; a plugin that says more different things is not listened to any longer.
const MOST_LINES: usize = 256;

impl PluginLog {
    pub(crate) fn new(console: Console, quiet: bool) -> Self {
        Self { console, quiet, said: Mutex::default() }
    }

    pub(crate) fn line(&self, level: Level, text: &str) {
        let shown = match level {
            Level::Error | Level::Warning => true,
            Level::Info => !self.quiet,
            Level::Debug => false,
        };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !shown || said.len() >= MOST_LINES || !said.insert(text.to_owned()) {
            return;
        }
        match level {
            Level::Info | Level::Debug => self.console.note(text),
            _ => self.console.warn(text),
        }
    }
}
