//! The layout of the published MergeVLA code: PyTorch files, one action head of all tasks, masks as one byte an element.
//!
//! Facts about it: `task2idx.pt` gives each task the index of its expert head. With masks, `model.safetensors` holds the
//! merged task vector alone (zeros under keys that no merge touched, the mean under `action_queries.weight`), and the
//! loader computes Θ₀ + mask · τ, times `rescaler` where the task's masks have one. Task names are members of a string
//! enumeration or plain strings. Dataset statistics are those of all experts in one table, by data set.

use std::path::Path;

use serde_json::{Map, Value};
use skillweld_store::{Checkpoint, ExpertFiles, PickleValue, TorchFile};

use crate::checkpoint::{ACTION_QUERIES, Masks, OfficialForm, Vector, Zeros};
use crate::error::problem;
use crate::layout::{BLOCKS, STATISTICS, block_index};
use crate::own::read_json;
use crate::parts::Parts;
use crate::{ExpertPart, MergedCheckpoint, MergedError, Role};

const ORDER: &str = "task2idx.pt";
const MASKS: &str = "tall_masks.pt";
/// Name of a task's rescaler among its masks.
pub(crate) const RESCALER: &str = "rescaler";

pub(crate) fn is_at(dir: &Path) -> bool {
    dir.join(ORDER).is_file() || dir.join(MASKS).is_file()
}

pub(crate) fn open(dir: &Path, base: Option<&Path>) -> Result<MergedCheckpoint, MergedError> {
    let tasks = tasks(&dir.join(ORDER))?;
    let merged = Checkpoint::open(dir)?;
    let masks_path = dir.join(MASKS);
    let (weights, vector, masks, rescalers) = if masks_path.is_file() {
        let weights: Vec<Checkpoint> = base.map(Checkpoint::open).transpose()?.into_iter().collect();
        let form = weights.first().map_or(OfficialForm::Unknown, |base| form(&merged, base));
        let rescalers = rescalers(&masks_path, &tasks)?;
        let masks = Masks { file: Checkpoint::open(&masks_path)?, packed: false };
        let zeros = Zeros::of(&merged);
        (weights, Vector::Official { merged, form, zeros }, Some(masks), rescalers)
    } else {
        if base.is_some() {
            return Err(problem(dir, "this checkpoint holds all its weights; leave `--base` out"));
        }
        (vec![merged], Vector::None, None, vec![1.0; tasks.len()])
    };
    let mut parts = Parts::new(tasks.len());
    let files = ExpertFiles::discover(dir)?;
    if let Some(head) = files.action_head()? {
        add_action_head(head, &tasks, &mut parts)?;
    }
    let projectors = [
        (ExpertPart::ProprioProjector, files.proprio_projector()?),
        (ExpertPart::NoisyActionProjector, files.noisy_action_projector()?),
    ];
    for (part, checkpoint) in projectors {
        let Some(checkpoint) = checkpoint else { continue };
        let keys: Vec<String> = checkpoint.keys().map(str::to_owned).collect();
        let file = parts.add_file(Role::ActionExpert, checkpoint);
        keys.iter().for_each(|key| parts.add_shared(part, key, (file, key)));
    }
    let statistics = statistics(&dir.join(STATISTICS), &tasks)?;
    let document = Value::Null;
    Ok(MergedCheckpoint {
        dir: dir.to_owned(),
        tasks,
        document,
        weights,
        vector,
        masks,
        rescalers,
        parts,
        statistics,
    })
}

/// Task names in the order of their expert heads.
fn tasks(path: &Path) -> Result<Vec<String>, MergedError> {
    if !path.is_file() {
        return Err(problem(
            path,
            "is missing, and nothing else says in which order the tasks are; copy it here",
        ));
    }
    let file = TorchFile::open(path)?;
    let bad = || problem(path, "must give each task its index, 0 to N − 1; fetch it again");
    let entries = file.root().entries();
    let mut tasks = vec![None; entries.len()];
    for (name, index) in entries {
        let (PickleValue::Str(name), PickleValue::Int(index)) = (name, index) else { return Err(bad()) };
        let slot = usize::try_from(*index).ok().and_then(|index| tasks.get_mut(index)).ok_or_else(bad)?;
        if slot.replace(name.to_string()).is_some() {
            return Err(bad());
        }
    }
    let tasks: Option<Vec<String>> = tasks.into_iter().collect();
    tasks.filter(|tasks| !tasks.is_empty()).ok_or_else(bad)
}

/// `{task: {…, "rescaler": x}}` or `{"rescaler": {task: x}}`; 1 where there is neither.
fn rescalers(path: &Path, tasks: &[String]) -> Result<Vec<f32>, MergedError> {
    let file = TorchFile::open(path)?;
    let of = |task: &String| {
        let own = file.root().get(task).and_then(|masks| masks.get(RESCALER));
        let Some(value) = own.or_else(|| file.root().get(RESCALER)?.get(task)) else { return Ok(1.0) };
        let number = match value {
            PickleValue::Float(value) => Some(*value as f32),
            PickleValue::Int(value) => Some(*value as f32),
            PickleValue::Tensor(tensor) => {
                let mut value = [0.0];
                let view = file.view(tensor).ok().filter(|view| view.numel() == 1);
                view.and_then(|view| view.decode_block(0, &mut value).ok()).map(|_| value[0])
            }
            _ => None,
        };
        let number = number.filter(|value| value.is_finite());
        number.ok_or_else(|| problem(path, format!("the rescaler of task `{task}` is not one finite number")))
    };
    tasks.iter().map(of).collect()
}

/// Tells τ from Θ₀ + τ by how much of Θ₀ is in it: the projection ⟨stored, Θ₀⟩ / ‖Θ₀‖² is near 0 for the one and near 1
/// for the other. The first elements of every tensor suffice.
fn form(merged: &Checkpoint, base: &Checkpoint) -> OfficialForm {
    const SAMPLE: usize = 1024;
    let (mut product, mut squares) = (0.0f64, 0.0f64);
    let mut buffers = [[0.0f32; SAMPLE]; 2];
    for key in merged.keys().filter(|key| *key != ACTION_QUERIES) {
        let (Some(stored), Some(base)) = (merged.get(key), base.get(key)) else { continue };
        let len = stored.numel().min(base.numel()).min(SAMPLE);
        let [a, b] = &mut buffers;
        if stored.decode_block(0, &mut a[..len]).is_err() || base.decode_block(0, &mut b[..len]).is_err() {
            continue;
        }
        for (a, b) in a[..len].iter().zip(&b[..len]) {
            product += f64::from(*a) * f64::from(*b);
            squares += f64::from(*b) * f64::from(*b);
        }
    }
    if product > 0.5 * squares { OfficialForm::Dense } else { OfficialForm::TaskVector }
}

/// Splits the head of all tasks into shared tensors and expert heads, under the names that one expert's head has.
fn add_action_head(head: Checkpoint, tasks: &[String], parts: &mut Parts) -> Result<(), MergedError> {
    let shared_blocks = head.keys().filter_map(block_index).max().map_or(0, |last| last + 1);
    let path = head.path().to_owned();
    let keys: Vec<(String, usize)> =
        head.keys().map(|key| (key.to_owned(), head.get(key).map_or(0, |view| view.numel()))).collect();
    let file = parts.add_file(Role::ActionExpert, head);
    for (key, numel) in &keys {
        let refuse = |why: &str| problem(&path, format!("`{key}` {why}; the files are of different merges"));
        match HeadKey::read(key, shared_blocks) {
            HeadKey::Shared => parts.add_shared(ExpertPart::ActionHead, key, (file, key)),
            HeadKey::Own { expert, .. } | HeadKey::Router { expert, .. } if expert >= tasks.len() => {
                return Err(refuse(&format!(
                    "is of expert {expert}, but task2idx.pt has {} tasks",
                    tasks.len()
                )));
            }
            HeadKey::Own { expert, name } => {
                parts.add_own(ExpertPart::ActionHead, expert, &name, (file, key, None));
            }
            HeadKey::OneEach { .. } if *numel != tasks.len() => {
                return Err(refuse(&format!(
                    "holds {numel} values, but task2idx.pt has {} tasks",
                    tasks.len()
                )));
            }
            HeadKey::OneEach { name } => {
                for expert in 0..tasks.len() {
                    parts.add_own(ExpertPart::ActionHead, expert, &name, (file, key, Some(expert)));
                }
            }
            HeadKey::Router { expert, which } => parts.add_router(expert, [0, which], (file, key)),
            HeadKey::Bookkeeping => {}
            HeadKey::Unknown => return Err(refuse("is not known in a merged action head")),
        }
    }
    Ok(())
}

/// What a key of the merged action head says.
#[derive(Debug, PartialEq, Eq)]
enum HeadKey {
    /// Of all tasks.
    Shared,
    /// Of one task, with the name that it has in the expert's own head.
    Own {
        expert: usize,
        name: String,
    },
    /// A vector with one value a task.
    OneEach {
        name: String,
    },
    /// A subspace of values; 0 for adapter, 1 for task tokens.
    Router {
        expert: usize,
        which: usize,
    },
    /// The depth that the router looks at: block L − n again.
    Bookkeeping,
    Unknown,
}

impl HeadKey {
    fn read(key: &str, shared_blocks: usize) -> Self {
        if matches!(key, "model.router_layer_idx" | "model.gate_layer_idx") {
            return Self::Bookkeeping;
        }
        if let Some(rest) = key.strip_prefix("model.gate.gate.") {
            let parts: Vec<&str> = rest.split('.').collect();
            return match parts[..] {
                [which @ ("0" | "1"), "routers", expert] => expert.parse().map_or(Self::Unknown, |expert| {
                    Self::Router { expert, which: usize::from(which == "1") }
                }),
                _ => Self::Unknown,
            };
        }
        // The last n blocks count from 0 in the merged head, from L − n in an expert's.
        let published = match key.strip_prefix("model.mlp_resnet_moe_blocks.") {
            None => Some(key.to_owned()),
            Some(rest) => rest.split_once('.').and_then(|(block, rest)| {
                let block = block.parse::<usize>().ok()? + shared_blocks;
                Some(format!("{BLOCKS}{block}.{rest}"))
            }),
        };
        let Some(published) = published else { return Self::Unknown };
        match published.split_once(".experts.") {
            None if published == key => Self::Shared,
            None if published.ends_with(".gating_factor") => Self::OneEach { name: published },
            None => Self::Unknown,
            Some((before, rest)) => rest
                .split_once('.')
                .and_then(|(expert, after)| Some((expert.parse().ok()?, format!("{before}.{after}"))))
                .map_or(Self::Unknown, |(expert, name)| Self::Own { expert, name }),
        }
    }
}

/// Each task's data set: called as the task, or with `_no_noops` behind.
fn statistics(path: &Path, tasks: &[String]) -> Result<Vec<Option<Map<String, Value>>>, MergedError> {
    if !path.is_file() {
        return Ok(tasks.iter().map(|_| None).collect());
    }
    let all = read_json(path)?;
    let of = |task: &String| {
        let names = [task.clone(), format!("{task}_no_noops")];
        let found =
            names.into_iter().find_map(|name| all.get(&name).map(|value| (name.clone(), value.clone())));
        found.map(|entry| Map::from_iter([entry]))
    };
    Ok(tasks.iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_merged_head_get_their_published_names() {
        let own = |expert, name: &str| HeadKey::Own { expert, name: name.to_owned() };
        for (key, read) in [
            ("model.fc1.weight", HeadKey::Shared),
            ("model.mlp_resnet_blocks.22.ffn.1.bias", HeadKey::Shared),
            ("model.fc2.experts.3.bias", own(3, "model.fc2.bias")),
            (
                "model.mlp_resnet_moe_blocks.1.ffn.0.experts.2.weight",
                own(2, "model.mlp_resnet_blocks.24.ffn.0.weight"),
            ),
            (
                "model.mlp_resnet_moe_blocks.0.gating_factor",
                HeadKey::OneEach { name: "model.mlp_resnet_blocks.23.gating_factor".to_owned() },
            ),
            ("model.gate.gate.1.routers.2", HeadKey::Router { expert: 2, which: 1 }),
            ("model.gate.gate.2.routers.0", HeadKey::Unknown),
            ("model.router_layer_idx", HeadKey::Bookkeeping),
            ("model.mlp_resnet_moe_blocks.x.o_proj.experts.0.weight", HeadKey::Unknown),
            ("model.mlp_resnet_moe_blocks.0.o_proj.weight", HeadKey::Unknown),
        ] {
            assert_eq!(HeadKey::read(key, 23), read, "{key}");
        }
    }
}
