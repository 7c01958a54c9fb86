//! Signals. Ctrl-C, SIGTERM and SIGHUP: the first asks the work to stop, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// What a shell reports for a program that was interrupted (128 + SIGINT).
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Starts to listen.
pub(crate) fn install() -> anyhow::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Comes first, so that it sees what the signals before this one have asked. Outputs under way stay behind as
        // hidden `.partial` folders, which the next run removes.
        flag::register_conditional_shutdown(signal, EXIT_CODE.into(), Arc::clone(&REQUESTED))?;
        flag::register(signal, Arc::clone(&REQUESTED))?;
    }
    // A write past `ulimit -f` fails where somebody listens to this signal, and kills where nobody does.
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// True once the user wants to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}
