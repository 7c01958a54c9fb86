//! Rotary embeddings, bit for bit as a CPU rounds them.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::Target;
use skillweld_gpu::ops::{RopePairs, RowsViewMut, rope};
use skillweld_tensor::Dtype;

use super::random::{bytes_of, floats_of};
use super::rows::{HostRows, float};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![Property { name: "rope: equals the CPU bit for bit", check: equals_cpu }]
}

/// Rows, heads, half a head's width; neighbours; dtype; seed.
type Case = ((usize, usize, usize), bool, Dtype, u64);

fn equals_cpu<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let half = prop_oneof![1..12usize, (1..9usize).prop_map(|eights| eights * 8)];
    let cases = ((0..40usize, 1..5usize, half), any::<bool>(), float(), any::<u64>());
    runner.run(&cases, |case| one_case(target, case)).map_err(|error| error.to_string())
}

fn one_case<T: Target>(
    target: &T,
    ((rows, heads, half), neighbours, dtype, seed): Case,
) -> Result<(), TestCaseError> {
    let columns = 2 * heads * half;
    let x = HostRows::new(rows, columns, dtype, seed);
    let [cos, sin] = [1, 2].map(|other| HostRows::new(rows + 3, half, Dtype::F32, seed ^ other));
    let mut turned = x.upload(target)?;
    let (on_cos, on_sin) = (cos.upload(target)?, sin.upload(target)?);
    let pairs = if neighbours { RopePairs::Neighbours } else { RopePairs::Halves };
    let mut view = RowsViewMut::new(turned.view_mut(), rows, columns).map_err(failed)?;
    rope(target, &mut view, cos.view(&on_cos), sin.view(&on_sin), pairs).map_err(failed)?;

    let mut expected = x.values.clone();
    for (index, head) in expected.chunks_mut(2 * half).enumerate() {
        let row = index / heads;
        let (cos, sin) = (&cos.values[row * half..][..half], &sin.values[row * half..][..half]);
        for pair in 0..half {
            let (i, j) = if neighbours { (2 * pair, 2 * pair + 1) } else { (pair, pair + half) };
            let (a, b) = (head[i], head[j]);
            head[i] = a * cos[i % half] - b * sin[i % half];
            head[j] = b * cos[j % half] + a * sin[j % half];
        }
    }
    let expected = HostRows::of(rows, columns, dtype, &expected);
    let is = floats_of(dtype, &target.read(&turned).map_err(failed)?);
    let padded: Vec<f32> =
        is.chunks(columns.next_multiple_of(8)).flat_map(|row| &row[..columns]).copied().collect();
    prop_assert_eq!(bytes_of(dtype, &padded), bytes_of(dtype, &expected.values));
    Ok(())
}
