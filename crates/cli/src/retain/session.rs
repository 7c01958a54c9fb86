//! What every command that interpolates has around its work: signals, progress, plugins' words.

use skillweld_merge::Control;
use skillweld_plugin_host::HostHooks;

use crate::arguments::ThreadCount;
use crate::console::Console;
use crate::interrupt;
use crate::plugins::{PluginLog, Search};
use crate::progress::Progress;

#[derive(clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    threads: ThreadCount,
    #[command(flatten)]
    pub(crate) search: Search,
    /// One JSON document on standard output, and nothing else there.
    #[arg(long)]
    pub(crate) json: bool,
    /// Say nothing unless something is wrong.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Run {
    /// Pages of text are wanted.
    pub(crate) fn talks(&self) -> bool {
        !self.quiet && !self.json
    }

    /// Does the work where it can be watched and stopped.
    pub(crate) fn with_control<T>(
        &self,
        console: Console,
        work: impl FnOnce(&Control<'_>, &Progress) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        interrupt::install()?;
        let progress = Progress::new(self.quiet);
        let log = PluginLog::new(console, self.quiet);
        let hooks = HostHooks {
            log: &|level, text| progress.suspend(|| log.line(level, text)),
            progress: &|_| {},
            cancelled: &interrupt::requested,
        };
        let advance = |elements| progress.advance(elements);
        let control = Control { threads: self.threads.get(), hooks, advance: &advance };
        let result = work(&control, &progress);
        progress.finish();
        result
    }
}
