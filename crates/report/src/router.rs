//! How far the router's subspaces of two tasks overlap: principal angles between P_i and P_j.

use ndarray::{Array2, Ix2};
use serde::Serialize;
use skillweld_linalg::thin_svd;
use skillweld_merged::MergedCheckpoint;
use skillweld_tensor::TensorView;

use crate::ReportError;

/// Names of a router's projections, in the order of `MergedCheckpoint::router`'s pairs.
const PROJECTIONS: [&str; 2] = ["values", "keys"];

/// Overlap of all tasks' subspaces of one projection and one kind of tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overlap {
    /// `values` or `keys`.
    pub projection: String,
    /// `action queries` or `task tokens`.
    pub tokens: String,
    /// Dimensions of each subspace.
    pub rank: usize,
    /// Dimensions of the space around them.
    pub width: usize,
    /// ‖P_i P_jᵀ‖² / rank, tasks × tasks: 1 for the same subspace, 0 for orthogonal ones, about rank / width for random ones.
    pub overlap: Vec<Vec<f64>>,
    /// Of each pair of tasks.
    pub pairs: Vec<PairOfTasks>,
}

/// Principal angles between two tasks' subspaces.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairOfTasks {
    /// Both tasks.
    pub tasks: [String; 2],
    /// Cosines of the principal angles: the singular values of P_i P_jᵀ, largest first.
    pub cosines: Vec<f64>,
}

/// Of every projection that the checkpoint has a router for.
///
/// # Errors
/// Subspaces that cannot be decoded or decomposed.
pub(crate) fn overlaps(merged: &MergedCheckpoint) -> Result<Vec<Overlap>, ReportError> {
    let tasks = merged.tasks();
    let routers: Vec<_> = (0..tasks.len()).map(|task| merged.router(task)).collect();
    let pairs = routers.first().map_or(0, Vec::len);
    let mut overlaps = Vec::new();
    for pair in 0..pairs {
        for (which, tokens) in ["action queries", "task tokens"].into_iter().enumerate() {
            let mut subspaces = Vec::with_capacity(tasks.len());
            for (task, router) in tasks.iter().zip(&routers) {
                let view = if which == 0 { router[pair].adapter } else { router[pair].task };
                subspaces.push(matrix(&format!("{task}/{tokens}"), &view)?);
            }
            overlaps.push(Overlap::new(PROJECTIONS[pair.min(1)], tokens, tasks, &subspaces)?);
        }
    }
    Ok(overlaps)
}

fn matrix(name: &str, view: &TensorView<'_>) -> Result<Array2<f64>, ReportError> {
    let values = view.to_f32().map_err(ReportError::tensor(name))?;
    // The shape is checked when a checkpoint is opened.
    let values = values.into_dimensionality::<Ix2>().unwrap_or_default();
    Ok(values.mapv(f64::from))
}

impl Overlap {
    /// `subspaces`: rank × width each, orthonormal rows.
    fn new(
        projection: &str,
        tokens: &str,
        tasks: &[String],
        subspaces: &[Array2<f64>],
    ) -> Result<Self, ReportError> {
        let (rank, width) = subspaces.first().map_or((0, 0), Array2::dim);
        let mut overlap = vec![vec![0.0; tasks.len()]; tasks.len()];
        let mut pairs = Vec::new();
        for (i, a) in subspaces.iter().enumerate() {
            for (j, b) in subspaces.iter().enumerate().skip(i) {
                let product = a.dot(&b.t());
                let share = product.iter().map(|x| x * x).sum::<f64>() / rank.max(1) as f64;
                (overlap[i][j], overlap[j][i]) = (share, share);
                if i < j {
                    let key = || format!("router of {} and {}", tasks[i], tasks[j]);
                    let svd = thin_svd(&product.view());
                    let svd = svd.map_err(|source| ReportError::Linalg { key: key(), source })?;
                    // Rounding may carry a cosine past one.
                    let cosines = svd.s.iter().map(|cosine| cosine.min(1.0)).collect();
                    pairs.push(PairOfTasks { tasks: [tasks[i].clone(), tasks[j].clone()], cosines });
                }
            }
        }
        Ok(Self { projection: projection.to_owned(), tokens: tokens.to_owned(), rank, width, overlap, pairs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn principal_angles_of_planes() {
        // Two planes in space that share one direction and are 60° apart in the other.
        let (c, s) = (0.5, 0.75f64.sqrt());
        let planes = [array![[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], array![[0.0, c, s], [1.0, 0.0, 0.0]]];
        let tasks = ["a".to_owned(), "b".to_owned()];
        let overlap = Overlap::new("values", "task tokens", &tasks, &planes).unwrap();
        let cosines = &overlap.pairs[0].cosines;
        assert!((cosines[0] - 1.0).abs() < 1e-12 && (cosines[1] - 0.5).abs() < 1e-12, "{cosines:?}");
        assert!((overlap.overlap[0][1] - (1.0 + 0.25) / 2.0).abs() < 1e-12);
        assert!((overlap.overlap[1][1] - 1.0).abs() < 1e-12);
        assert_eq!((overlap.rank, overlap.width, overlap.pairs.len()), (2, 3, 1));
    }
}
