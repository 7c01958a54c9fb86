use ndarray::{Array2, ArrayView2, s};
use skillweld_linalg::{LinalgError, thin_svd};

/// Why a projection has no such subspace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubspaceError {
    /// More directions were asked for than there are.
    #[error("{rank} directions were asked for, the matrix has only {available} singular vectors")]
    Rank {
        /// Directions asked for.
        rank: usize,
        /// min(rows, columns).
        available: usize,
    },
    /// The decomposition failed.
    #[error(transparent)]
    Linalg(#[from] LinalgError),
}

/// P, rank × d: the directions of the input in which `projection` (rows × d) acts most, strongest first, orthonormal.
///
/// In f64, because singular vectors are as sensitive as the gaps between singular values are small. Signs are fixed
/// (largest entry positive), so that every backend gives the same rows.
///
/// # Errors
/// [`SubspaceError::Rank`] when the matrix has fewer singular vectors than `rank`; [`SubspaceError::Linalg`].
pub fn top_right_singular_vectors(
    projection: &ArrayView2<'_, f64>,
    rank: usize,
) -> Result<Array2<f32>, SubspaceError> {
    let available = projection.nrows().min(projection.ncols());
    if rank > available {
        return Err(SubspaceError::Rank { rank, available });
    }
    let svd = thin_svd(projection)?;
    let mut rows = svd.vt.slice_move(s![..rank, ..]);
    for mut row in rows.rows_mut() {
        let largest = row.iter().copied().fold(0.0f64, |max, x| if x.abs() > max.abs() { x } else { max });
        if largest < 0.0 {
            row.mapv_inplace(|x| -x);
        }
    }
    Ok(rows.mapv(|x| x as f32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn strongest_directions_come_first_with_fixed_signs() {
        let matrix = array![[0.0, -3.0, 0.0], [1.0, 0.0, 0.0]];
        let rows = top_right_singular_vectors(&matrix.view(), 2).unwrap();
        let expected = array![[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]];
        assert!((rows - expected).iter().all(|d: &f32| d.abs() < 1e-6));
    }

    #[test]
    fn more_directions_than_the_matrix_has_are_an_error() {
        let error = top_right_singular_vectors(&Array2::zeros((2, 5)).view(), 3).unwrap_err();
        assert!(matches!(error, SubspaceError::Rank { rank: 3, available: 2 }));
    }
}
