//! The test-time task router's subspaces (MergeVLA, arXiv 2511.18810, section on routing; training-free).
//!
//! For every task, the top right singular vectors of the two value projections of the last merged block (or of its key
//! projections, or of all four): at run time the task whose subspaces hold most of the hidden states' norm is routed to.

use ndarray::{Array2, Ix2};
use skillweld_linalg::Threads;
use skillweld_merged::layout::{BLOCKS, PROJECTIONS, ROUTER_PAIRS};
use skillweld_router::{SubspaceError, top_right_singular_vectors};
use skillweld_tensor::TensorView;
use std::sync::{Mutex, PoisonError};

use crate::MergeError;
use crate::plan::{ExpertPlan, Plan};
use crate::recipe::RouterSubspace;

/// One tensor of `router.safetensors`, such as `<task>/adapter`: rank × d, orthonormal rows.
#[derive(Debug, Clone)]
pub(crate) struct Subspace {
    pub(crate) name: String,
    pub(crate) rows: Array2<f32>,
}

/// Takes the subspaces of every task's expert.
///
/// # Errors
/// A projection is missing, is no matrix, or has fewer singular vectors than `router.rank`.
pub(crate) fn subspaces(
    plan: &Plan<'_>,
    expert: &ExpertPlan,
    threads: Threads,
) -> Result<Vec<Subspace>, MergeError> {
    let (Some(spec), Some(block)) = (expert.router, expert.router_block()) else { return Ok(Vec::new()) };
    let experts: Vec<_> = plan.recipe.tasks().map(|i| &plan.models.all[i]).collect();
    let mut jobs = Vec::new();
    let pairs = ROUTER_PAIRS.iter().zip(&PROJECTIONS).zip(spec.projections.pairs());
    let wanted =
        pairs.filter(|(_, wanted)| *wanted).flat_map(|((names, layers), _)| names.iter().zip(layers));
    for (suffix, projection) in wanted {
        let key = format!("{BLOCKS}{block}.{projection}.weight");
        let mut matrices = Vec::with_capacity(experts.len());
        for model in &experts {
            let view = model.files.action_head.as_ref().and_then(|head| head.get(&key));
            let matrix = view.as_ref().map(|view| matrix(&key, view)).transpose()?.ok_or_else(|| {
                MergeError::Expert(format!(
                    "the router needs `{key}`, which the action head of {} lacks",
                    model.name
                ))
            })?;
            matrices.push(matrix);
        }
        match spec.subspace {
            RouterSubspace::PerTask => {
                for (model, matrix) in experts.iter().zip(matrices) {
                    jobs.push((
                        vec![format!("{}/{suffix}", model.name)],
                        model.name.clone(),
                        key.clone(),
                        matrix,
                    ));
                }
            }
            RouterSubspace::Merged => {
                let names = experts.iter().map(|model| format!("{}/{suffix}", model.name)).collect();
                let count = matrices.len() as f64;
                let Some(sum) = matrices.into_iter().reduce(|sum, matrix| sum + matrix) else { continue };
                jobs.push((names, "the merged expert".to_owned(), key, sum / count));
            }
        }
    }
    let results: Vec<Mutex<Vec<Subspace>>> = jobs.iter().map(|_| Mutex::default()).collect();
    threads.for_each(
        jobs.len(),
        || (),
        |(), i| {
            let (names, model, key, matrix) = &jobs[i];
            let rows =
                top_right_singular_vectors(&matrix.view(), spec.rank).map_err(|error| match error {
                    SubspaceError::Linalg(source) => {
                        MergeError::Linalg { key: key.clone(), model: model.clone(), source }
                    }
                    SubspaceError::Rank { rank, available } => MergeError::Expert(format!(
                        "router.rank is {rank}, but `{key}` of {model} has only {available} singular vectors"
                    )),
                    other => MergeError::Expert(format!("router: `{key}` of {model}: {other}")),
                })?;
            let subspaces = names.iter().map(|name| Subspace { name: name.clone(), rows: rows.clone() });
            *results[i].lock().unwrap_or_else(PoisonError::into_inner) = subspaces.collect();
            Ok::<_, MergeError>(())
        },
    )?;
    Ok(results.into_iter().flat_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

/// In f64: singular vectors are as sensitive as the gaps between singular values are small.
fn matrix(key: &str, view: &TensorView<'_>) -> Result<Array2<f64>, MergeError> {
    let values = view.to_f32().map_err(MergeError::tensor(key))?;
    let matrix = values.into_dimensionality::<Ix2>().map_err(|_| {
        MergeError::Expert(format!("`{key}` has shape {:?}; a projection is a matrix", view.shape()))
    })?;
    Ok(matrix.mapv(f64::from))
}
