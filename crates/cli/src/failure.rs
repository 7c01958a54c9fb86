//! The last words of a command that failed.

use std::fmt;
use std::process::ExitCode;

use crate::console::{Console, Tone, paint};
use crate::interrupt;
use crate::robot::remedy;

/// What was stopped and leaves something behind, in its own words.
#[derive(Debug)]
pub(crate) struct Stopped(pub(crate) String);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped; {}", self.0)
    }
}

impl std::error::Error for Stopped {}

/// Prints the error on one line, causes included, and says what the process exits with: `code` unless it was interrupted.
pub(crate) fn report(error: &anyhow::Error, console: Console, code: u8) -> ExitCode {
    if interrupt::requested() {
        let said = error.downcast_ref::<Stopped>().map_or("nothing was written", |Stopped(said)| said);
        eprintln!("{}", paint(console.error_colour, Tone::Warning, format!("stopped; {said}")));
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    eprintln!("{} {}", paint(console.error_colour, Tone::Bad, "error:"), sentence(error));
    ExitCode::from(code)
}

/// The messages of the error and its causes, and what mends it; a cause that its consequence already quotes is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    if let Some(remedy) = remedy::of(error) {
        text.push_str("; ");
        text.push_str(&remedy);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_said_once() {
        let error = anyhow::anyhow!("no such file");
        assert_eq!(sentence(&error), "no such file");
        assert_eq!(sentence(&error.context("cannot read x")), "cannot read x: no such file");
        let quoting = anyhow::anyhow!("inner").context("cannot read x: inner").context("recipe");
        assert_eq!(sentence(&quoting), "recipe: cannot read x: inner");
    }
}
