//! The laws of merging as a conformance kit: [`check`] holds any loaded method to them, through the C boundary.
//!
//! A law is a sentence about a method's results that needs no second implementation to be tested: *identical experts
//! give that expert*, *cutting a tensor into blocks changes no byte*. Some hold for every method; the algebraic ones
//! only for a method that claims them ([`skillweld_plugin_host::laws`]). Inputs are drawn at random — shapes from
//! scalars to 3-D, exact zeros, ties in magnitude, equal and opposite entries, large and small scales, parameters
//! from the method's own schema — and a case that breaks a law is shrunk to the smallest that still does.
//!
//! Strictness: where a law is about *the same computation* (blocks, threads, seeds, repetition) bytes must be equal.
//! Where it is about *another computation with the same result* the tolerance follows from f32's ε (see
//! [`tolerance`]).
//!
//! A plugin that ends the process (a C plugin that reads through a wild pointer) ends the kit with it; run it in a
//! process of its own when that matters.

mod case;
mod guarded;
mod laws;
mod parameters;
mod report;
mod subject;
pub mod tolerance;
mod trial;

pub use report::{LawResult, Outcome, Report};

use skillweld_plugin_host::Method;

/// How thoroughly to check.
#[derive(Debug, Clone, Copy)]
pub struct CheckOptions {
    /// Random cases for each law.
    pub cases: u32,
    /// Where the random numbers start; the same seed draws the same cases.
    pub seed: u64,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { cases: 64, seed: 0 }
    }
}

/// Holds `method` to every law that applies to it.
pub fn check(method: &Method, options: &CheckOptions) -> Report {
    check_watched(method, options, |_| {})
}

/// As [`check`], telling `before` the name of each law in advance: should the plugin end the process, someone knows
/// over what.
pub fn check_watched(
    method: &Method,
    options: &CheckOptions,
    mut before: impl FnMut(&'static str),
) -> Report {
    let subject = subject::Subject { method, options };
    let laws = laws::ALL.iter().map(|law| {
        before(law.name);
        LawResult { name: law.name, statement: law.statement, outcome: (law.check)(&subject) }
    });
    Report { kind: method.kind(), method: method.id().to_owned(), laws: laws.collect() }
}
