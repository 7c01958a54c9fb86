//! How far the tasks' action experts are apart, block by block.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use skillweld_linalg::Threads;
use skillweld_merged::layout::{BLOCK, block_index};
use skillweld_store::Checkpoint;
use skillweld_tensor::TensorView;

use crate::MergeError;
use crate::measure::{Distances, Measures};
use crate::plan::{Part, Plan};
use crate::report::{BlockDistances, by_pair};

/// One block, or one layer outside the blocks.
#[derive(Default)]
struct Block {
    /// The key of one of its tensors.
    key: String,
    sums: Distances,
    not_compared: Vec<String>,
}

/// Distances of every block, then of the layers outside blocks that are part of the action head: over every tensor of the
/// heads, whatever the plan did with it. What the merge has not measured in passing is read now: tensors that are the same
/// in all heads (copied; their norms count), and those of other dtypes or shapes (each task's own copy).
///
/// # Errors
/// A tensor that cannot be decoded.
pub(crate) fn block_distances(
    plan: &Plan<'_>,
    measures: &Measures,
    threads: Threads,
) -> Result<Vec<BlockDistances>, MergeError> {
    let Some(expert) = &plan.expert else { return Ok(Vec::new()) };
    let heads = plan.action_heads();
    let keys: BTreeSet<&str> = heads.iter().flat_map(|head| head.keys()).collect();
    let keys: Vec<&str> = keys.into_iter().collect();
    let tensors = plan.tensors.iter().enumerate().filter(|(_, tensor)| tensor.part == Part::ActionExpert);
    let planned: HashMap<&str, usize> = tensors.map(|(index, tensor)| (tensor.key.as_str(), index)).collect();
    let results: Vec<Mutex<Distances>> = keys.iter().map(|_| Mutex::default()).collect();
    threads.for_each(keys.len(), Vec::new, |buffers, i| {
        let in_passing = planned.get(keys[i]).and_then(|&index| measures.distances(index));
        let distances = in_passing.map_or_else(|| read(&heads, keys[i], buffers), Ok)?;
        *results[i].lock().unwrap_or_else(PoisonError::into_inner) = distances;
        Ok::<_, MergeError>(())
    })?;
    // Blocks by number, then everything else by name.
    let mut blocks: BTreeMap<(bool, usize, &str), Block> = BTreeMap::new();
    for (key, distances) in keys.into_iter().zip(results) {
        let distances = distances.into_inner().unwrap_or_else(PoisonError::into_inner);
        let name = key.strip_prefix("model.").unwrap_or(key);
        let place = match block_index(key) {
            Some(index) => (false, index, ""),
            None => (true, 0, name.split('.').next().unwrap_or(name)),
        };
        let block = blocks.entry(place).or_default();
        block.key = key.to_owned();
        block.sums.add(&distances);
        block.not_compared.extend(distances.is_partial().then(|| key.to_owned()));
    }
    let tasks = plan.tasks();
    let report = |((outside, index, name), block): ((bool, usize, &str), Block)| {
        let relative = block.sums.relative();
        let known: Vec<f64> = relative.iter().flatten().copied().collect();
        BlockDistances {
            block: if outside { name.to_owned() } else { index.to_string() },
            per_task: expert.is_per_task(&block.key),
            pairs: by_pair(&tasks, relative.into_iter()),
            mean: (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64),
            not_compared: block.not_compared,
        }
    };
    Ok(blocks.into_iter().map(report).collect())
}

/// Distances between the heads' copies of one tensor, as far as they have one shape.
fn read(heads: &[&Checkpoint], key: &str, buffers: &mut Vec<Vec<f32>>) -> Result<Distances, MergeError> {
    let views = heads.iter().map(|head| head.get(key).filter(|view| view.dtype().is_computable()));
    let views: Vec<Option<TensorView<'_>>> = views.collect();
    buffers.resize_with(heads.len().max(buffers.len()), Vec::new);
    let mut all = Distances::among(&vec![None; heads.len()]);
    for shape in views.iter().flatten().map(TensorView::shape).collect::<BTreeSet<_>>() {
        let alike: Vec<Option<&TensorView<'_>>> =
            views.iter().map(|view| view.as_ref().filter(|view| view.shape() == shape)).collect();
        let numel = alike.iter().flatten().next().map_or(0, |view| view.numel());
        // An empty tensor is one empty block: compared, and no distance.
        for start in (0..numel.max(1)).step_by(BLOCK) {
            let mut values = Vec::with_capacity(heads.len());
            for (view, buffer) in alike.iter().zip(buffers.iter_mut()) {
                let Some(view) = view else {
                    values.push(None);
                    continue;
                };
                buffer.resize(BLOCK.min(numel - start), 0.0);
                view.decode_block(start, buffer).map_err(MergeError::tensor(key))?;
                values.push(Some(buffer.as_slice()));
            }
            all.add(&Distances::among(&values));
        }
    }
    Ok(all)
}
