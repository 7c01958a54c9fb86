//! The second pass: one weight after the other becomes factors.

use std::sync::{Mutex, PoisonError};

use ndarray::{Array2, ArrayView2, Axis, s};
use skillweld_linalg::{Product, Threads, truncated_svd};
use skillweld_merge::Control;
use skillweld_store::SafetensorsWriter;
use skillweld_tensor::{Dtype, convert};

use super::adapter_files::{AdapterFiles, rank_of};
use super::survey::Surveyed;
use super::{AdaptedTensor, ExtractOptions};
use crate::InterchangeError;

/// Rows of B·A that are multiplied out at once, for the residual.
const ROWS: usize = 256;

/// Decomposes and writes every adapted weight, side by side, the largest first; memory: τ of one weight a thread. Gives the
/// weights by key, and ‖τ − B·A‖² of all.
pub(crate) fn write_factors(
    files: &AdapterFiles<'_>,
    writer: &SafetensorsWriter,
    options: &ExtractOptions,
    control: &Control<'_>,
) -> Result<(Vec<AdaptedTensor>, f64), InterchangeError> {
    let mut order: Vec<usize> = (0..files.adapted.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(files.adapted[index].tuned.numel()));
    let results: Vec<Mutex<Option<(AdaptedTensor, f64)>>> = order.iter().map(|_| Mutex::default()).collect();
    control.threads.for_each(
        order.len(),
        || (),
        |(), i| {
            control.check()?;
            let index = order[i];
            let tensor = files.adapted[index];
            let rank = rank_of(tensor, options);
            let (b, a, energy) = factors(tensor, rank, options.dtype)?;
            writer.write_at(2 * index, 0, &a)?;
            writer.write_at(2 * index + 1, 0, &b)?;
            let norm = tensor.norm.unwrap_or(0.0);
            let &[m, n] = tensor.tuned.shape() else { return Ok(()) };
            let residual = energy.sqrt() / norm;
            let done = AdaptedTensor { key: tensor.key.to_owned(), shape: [m, n], rank, norm, residual };
            *results[index].lock().unwrap_or_else(PoisonError::into_inner) = Some((done, energy));
            (control.advance)(tensor.tuned.numel() as u64);
            Ok::<_, InterchangeError>(())
        },
    )?;
    let results = results.into_iter().filter_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner));
    let (adapted, energies): (Vec<_>, Vec<f64>) = results.unzip();
    Ok((adapted, energies.iter().sum()))
}

/// B = U√s and A = √s·Vᵀ as they are stored, and ‖τ − B·A‖² of just these.
fn factors(
    tensor: &Surveyed<'_>,
    rank: usize,
    dtype: Dtype,
) -> Result<(Vec<u8>, Vec<u8>, f64), InterchangeError> {
    let key = tensor.key;
    let tau = task_vector(tensor)?;
    let svd = truncated_svd(&tau.view(), rank, Threads::ONE).map_err(InterchangeError::linalg(key))?;
    // Half of each singular value on either side: both factors have entries of like size, which suits narrow dtypes.
    let roots = svd.s.mapv(f32::sqrt);
    let (b, b_bytes) = store(key, &(&svd.u * &roots), dtype)?;
    let (a, a_bytes) = store(key, &(&svd.vt * &roots.insert_axis(Axis(1))), dtype)?;
    Ok((b_bytes, a_bytes, residual_energy(key, tau, &b.view(), &a.view())?))
}

/// τ, m × n.
fn task_vector(tensor: &Surveyed<'_>) -> Result<Array2<f32>, InterchangeError> {
    let Surveyed { key, base: Some(base), tuned, .. } = tensor else {
        return Err(InterchangeError::key(tensor.key, "has no base"));
    };
    let &[m, n] = tuned.shape() else { return Err(InterchangeError::key(key, "is no matrix")) };
    let mut tau = Array2::zeros((m, n));
    let mut stored = vec![0.0; n];
    for (row, mut values) in tau.rows_mut().into_iter().enumerate() {
        let Some(values) = values.as_slice_mut() else { continue };
        base.decode_block(row * n, &mut stored).map_err(InterchangeError::tensor(key))?;
        tuned.decode_difference(row * n, &stored, values).map_err(InterchangeError::tensor(key))?;
    }
    Ok(tau)
}

/// Rounds a factor to the stored dtype; gives what that is, and its bytes.
fn store(key: &str, factor: &Array2<f32>, dtype: Dtype) -> Result<(Array2<f32>, Vec<u8>), InterchangeError> {
    let mut values: Vec<f32> = factor.iter().copied().collect();
    let mut bytes = vec![0; values.len() * dtype.bits() / 8];
    let finite = convert::encode(dtype, &values, &mut bytes).map_err(InterchangeError::tensor(key))?;
    if !finite {
        let problem = format!("its factors exceed what {dtype} holds; choose another `--dtype`");
        return Err(InterchangeError::key(key, problem));
    }
    convert::decode(dtype, &bytes, &mut values).map_err(InterchangeError::tensor(key))?;
    Ok((Array2::from_shape_fn(factor.dim(), |(i, j)| values[i * factor.ncols() + j]), bytes))
}

/// ‖τ − B·A‖², τ being used up.
fn residual_energy(
    key: &str,
    mut tau: Array2<f32>,
    b: &ArrayView2<'_, f32>,
    a: &ArrayView2<'_, f32>,
) -> Result<f64, InterchangeError> {
    let mut energy = 0.0;
    let mut product = Array2::zeros((ROWS.min(tau.nrows()), tau.ncols()));
    for (rows, b) in tau.axis_chunks_iter_mut(Axis(0), ROWS).zip(b.axis_chunks_iter(Axis(0), ROWS)) {
        let mut product = product.slice_mut(s![..rows.nrows(), ..]);
        Product::new(b, *a).write(Threads::ONE, &mut product).map_err(InterchangeError::linalg(key))?;
        energy += rows.iter().zip(&product).map(|(t, p)| f64::from(t - p).powi(2)).sum::<f64>();
    }
    Ok(energy)
}
