//! Ctrl-C and SIGTERM: the first asks the work to stop, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell reports for a program that was interrupted (128 + SIGINT).
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen.
pub(crate) fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::Relaxed) {
            // Outputs under way stay behind as hidden `.partial` folders, which the next run removes.
            std::process::exit(EXIT_CODE.into());
        }
    })?;
    Ok(())
}

/// True once the user wants to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
