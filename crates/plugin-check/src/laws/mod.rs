//! One law a file. Each holds a [`Law`] called `LAW` and says why anyone may rely on it.

use crate::report::Outcome;
use crate::subject::Subject;

mod block_splitting;
mod bounds;
mod cancellation;
mod empty;
mod endpoints;
mod errors;
mod fills_output;
mod homogeneity;
mod identity;
mod keeps_itself;
mod linearity;
mod low_rank;
mod non_finite;
mod panics;
mod permutation;
mod repetition;
mod seeds;
mod sign_agreement;
mod threads;
mod zero;

/// A sentence that a method's results can be held against.
pub(crate) struct Law {
    pub(crate) name: &'static str,
    pub(crate) statement: &'static str,
    pub(crate) check: fn(&Subject<'_>) -> Outcome,
}

/// All laws: those of computing first, those of algebra after them.
pub(crate) const ALL: &[Law] = &[
    fills_output::LAW,
    empty::LAW,
    bounds::LAW,
    repetition::LAW,
    seeds::LAW,
    block_splitting::LAW,
    threads::LAW,
    low_rank::LAW,
    non_finite::LAW,
    errors::LAW,
    panics::LAW,
    cancellation::LAW,
    identity::LAW,
    permutation::LAW,
    endpoints::LAW,
    linearity::LAW,
    homogeneity::LAW,
    zero::LAW,
    sign_agreement::LAW,
    keeps_itself::LAW,
];
