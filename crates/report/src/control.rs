use skillweld_linalg::Threads;

use crate::ReportError;

/// How a measurement is watched and stopped.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Threads to work with. The result does not depend on them.
    pub threads: Threads,
    /// Says whether the user wants to stop.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
    /// Told, once, the number of elements that there are to read.
    pub start: &'a (dyn Fn(u64) + Sync),
    /// Told the number of elements done since the last call.
    pub advance: &'a (dyn Fn(u64) + Sync),
}

impl Control<'_> {
    /// One thread, and nobody watches.
    pub const SILENT: Self =
        Self { threads: Threads::ONE, cancelled: &|| false, start: &|_| {}, advance: &|_| {} };

    /// Fails once the user has asked to stop.
    pub(crate) fn check(&self) -> Result<(), ReportError> {
        if (self.cancelled)() { Err(ReportError::Cancelled) } else { Ok(()) }
    }
}
