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
use crate::recipe::{RouterSpec, RouterSubspace};

/// One tensor of `router.safetensors`, such as `<task>/adapter`: rank × d, orthonormal rows.
#[derive(Debug, Clone)]
pub(crate) struct Subspace {
    pub(crate) name: String,
    pub(crate) rows: Array2<f32>,
}

/// The router's subspaces, each with the layer of an action expert's block that it comes from.
pub(crate) fn projections(spec: &RouterSpec) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let pairs = ROUTER_PAIRS.into_iter().zip(PROJECTIONS).zip(spec.projections.pairs());
    pairs.filter(|(_, wanted)| *wanted).flat_map(|((names, layers), _)| names.into_iter().zip(layers))
}

/// The published name of a projection's matrix.
pub(crate) fn projection_key(block: usize, projection: &str) -> String {
    format!("{BLOCKS}{block}.{projection}.weight")
}

/// Takes the subspaces of every task's expert. The plan has seen to it that all projections are there and large enough.
///
/// # Errors
/// A projection that cannot be decomposed, as one with NaN in it.
pub(crate) fn subspaces(
    plan: &Plan<'_>,
    expert: &ExpertPlan,
    threads: Threads,
) -> Result<Vec<Subspace>, MergeError> {
    let (Some(spec), Some(block)) = (expert.router, expert.router_block()) else { return Ok(Vec::new()) };
    let experts: Vec<_> = plan.recipe.tasks().map(|i| &plan.models.all[i]).collect();
    let heads = plan.action_heads();
    let mut jobs = Vec::new();
    for (suffix, projection) in projections(&spec) {
        let key = projection_key(block, projection);
        let views = heads.iter().filter_map(|head| head.get(&key));
        let matrices: Vec<_> = views.map(|view| matrix(&key, &view)).collect::<Result<_, _>>()?;
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
