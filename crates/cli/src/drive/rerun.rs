//! Steps for the Rerun viewer, where the program was built with it.

#[cfg(feature = "rerun")]
mod logger;
#[cfg(feature = "rerun")]
mod steps;
#[cfg(feature = "rerun")]
mod target;

use anyhow::Result;
use skillweld_robot::{Description, Observer};

use super::recording::Progress;

/// A log that was asked for and can be written.
#[cfg(feature = "rerun")]
pub(crate) struct Log(target::Target);

#[cfg(feature = "rerun")]
impl Log {
    /// A log in a file, `OUT.rrd`, or in a viewer that runs, `rerun+http://HOST:PORT/proxy`. Nothing is left behind by looking.
    ///
    /// # Errors
    /// That it cannot be written, with the path or address and the remedy: before anything moves.
    pub(crate) fn check(text: &str) -> Result<Self> {
        Ok(Self(target::Target::check(text)?))
    }

    /// Begins the log; whoever watches writes it. A run that does not come about leaves no file behind.
    ///
    /// # Errors
    /// As [`check`](Self::check), for what has changed since.
    pub(crate) fn observer(
        self,
        title: &str,
        robot: &Description,
        hz: f64,
        progress: Progress,
    ) -> Result<Box<dyn Observer>> {
        Ok(Box::new(steps::Steps::begin(self.0, title, robot, hz, progress)?))
    }
}

/// Nobody has one in a program without Rerun.
#[cfg(not(feature = "rerun"))]
pub(crate) enum Log {}

#[cfg(not(feature = "rerun"))]
impl Log {
    /// # Errors
    /// Always: it says how to get a program that can log.
    pub(crate) fn check(_text: &str) -> Result<Self> {
        anyhow::bail!("this program was built without Rerun; build it with --features rerun")
    }

    pub(crate) fn observer(
        self,
        _title: &str,
        _robot: &Description,
        _hz: f64,
        _progress: Progress,
    ) -> Result<Box<dyn Observer>> {
        match self {}
    }
}
