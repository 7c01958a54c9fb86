//! The `observe` passes: a map-reduce over slabs whose result does not depend on the number of threads.

use std::sync::{Mutex, PoisonError};

use skillweld_linalg::Threads;
use skillweld_plugin_host::Plan;

use super::buffers::{Buffers, Pool};
use super::units::LANES;
use crate::MergeError;

/// Runs all passes of a method over the units `0..count` and gives the totals of all passes, one after the other.
///
/// `add(buffers, unit, (pass, totals so far), sums)` adds one unit to the sums of a pass. Unit i belongs to lane
/// i mod [`LANES`]; the units of a lane are taken in order by one thread, and lanes are summed in order.
pub(crate) fn totals(
    plan: &Plan,
    threads: Threads,
    pool: &Pool,
    count: usize,
    add: impl Fn(&mut Buffers, usize, (usize, &[f64]), &mut [f64]) -> Result<(), MergeError> + Sync,
) -> Result<Vec<f64>, MergeError> {
    let mut totals = Vec::with_capacity(plan.totals_len());
    for (pass, &len) in plan.sums_len.iter().enumerate() {
        let lanes: Vec<Mutex<Vec<f64>>> = (0..LANES.min(count)).map(|_| Mutex::default()).collect();
        threads.for_each(
            lanes.len(),
            || pool.take(),
            |buffers, lane| {
                let mut sums = vec![0.0; len];
                for unit in (lane..count).step_by(LANES) {
                    add(buffers, unit, (pass, &totals), &mut sums)?;
                }
                *lanes[lane].lock().unwrap_or_else(PoisonError::into_inner) = sums;
                Ok::<_, MergeError>(())
            },
        )?;
        let lanes = lanes.into_iter().map(|lane| lane.into_inner().unwrap_or_else(PoisonError::into_inner));
        totals.append(&mut sum(len, lanes));
    }
    Ok(totals)
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
    fn totals_have_the_same_bits_for_any_number_of_threads() {
        let plan = Plan { sums_len: vec![1, 2], scope: Scope::Global, scratch_per_element: 0 };
        let run = |threads: usize| {
            let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
            totals(&plan, threads, &Pool::default(), 1000, |_, unit, (pass, earlier), sums| {
                assert_eq!(earlier.len(), pass);
                // Values whose sum depends on the order.
                sums[pass] += 1.0 / (1.0 + unit as f64) + earlier.iter().sum::<f64>() * 1e-17;
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
