//! The `observe` passes: a map-reduce over slabs whose result does not depend on the number of threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use skillweld_linalg::Threads;
use skillweld_plugin_host::Plan;

use super::buffers::{Buffers, Pool};
use super::units::LANES;
use crate::MergeError;

/// Runs all passes of a method over the units `0..count` and gives the totals of all passes, one after the other.
///
/// `add(buffers, unit, pass, sums)` adds one unit to the sums of a pass. Unit i belongs to lane i mod [`LANES`]; the units
/// of a lane are taken in order by one thread, and lanes are summed in order.
pub(crate) fn totals(
    plan: &Plan,
    threads: Threads,
    pool: &Pool,
    count: usize,
    add: impl Fn(&mut Buffers, usize, &Pass<'_>, &mut [f64]) -> Result<(), MergeError> + Sync,
) -> Result<Vec<f64>, MergeError> {
    let mut totals = Vec::with_capacity(plan.totals_len());
    for (index, &len) in plan.sums_len.iter().enumerate() {
        let sample = plan.sample.get(index).copied().unwrap_or(1);
        let pass = Pass { index, totals: &totals, sample, settled: AtomicBool::new(false) };
        let lanes: Vec<Mutex<Vec<f64>>> = (0..LANES.min(count)).map(|_| Mutex::default()).collect();
        threads.for_each(
            lanes.len(),
            || pool.take(),
            |buffers, lane| {
                let mut sums = vec![0.0; len];
                for unit in (lane..count).step_by(LANES) {
                    add(buffers, unit, &pass, &mut sums)?;
                }
                *lanes[lane].lock().unwrap_or_else(PoisonError::into_inner) = sums;
                Ok::<_, MergeError>(())
            },
        )?;
        let lanes = lanes.into_iter().map(|lane| lane.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut sums = if pass.is_settled() { vec![0.0; len] } else { sum(len, lanes) };
        totals.append(&mut sums);
    }
    Ok(totals)
}

/// One sweep over the data.
pub(crate) struct Pass<'a> {
    /// Its number.
    pub(crate) index: usize,
    /// Totals of the passes before.
    pub(crate) totals: &'a [f64],
    /// One element of so many is enough.
    pub(crate) sample: usize,
    settled: AtomicBool,
}

impl Pass<'_> {
    /// The method has nothing to add: what is left of the pass can be left out.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Whether [`settle`](Self::settle) was called.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }
}

/// Adds up vectors of `len` sums in their order.
pub(crate) fn sum(len: usize, parts: impl Iterator<Item = Vec<f64>>) -> Vec<f64> {
    let mut sums = vec![0.0; len];
    for part in parts {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use skillweld_plugin_host::Scope;
    use std::num::NonZeroUsize;

    #[test]
    fn a_settled_pass_has_zeros_whatever_was_added_before() {
        let plan = Plan { sums_len: vec![1, 1], ..Plan::default() };
        let threads = Threads::new(NonZeroUsize::new(3).unwrap());
        let totals = totals(&plan, threads, &Pool::default(), 100, |_, unit, pass, sums| {
            sums[0] += 1.0;
            if pass.index == 0 && unit == 40 {
                pass.settle();
            }
            Ok(())
        });
        assert_eq!(totals.unwrap(), [0.0, 100.0]);
    }

    #[test]
    fn totals_have_the_same_bits_for_any_number_of_threads() {
        let plan = Plan { sums_len: vec![1, 2], scope: Scope::Global, ..Plan::default() };
        let run = |threads: usize| {
            let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
            totals(&plan, threads, &Pool::default(), 1000, |_, unit, pass, sums| {
                assert_eq!(pass.totals.len(), pass.index);
                // Values whose sum depends on the order.
                sums[pass.index] += 1.0 / (1.0 + unit as f64) + pass.totals.iter().sum::<f64>() * 1e-17;
                Ok(())
            })
            .unwrap()
        };
        let one: Vec<u64> = run(1).iter().map(|x| x.to_bits()).collect();
        for threads in [2, 3, 16] {
            assert_eq!(run(threads).iter().map(|x| x.to_bits()).collect::<Vec<_>>(), one);
        }
    }
}
