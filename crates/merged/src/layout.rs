//! Names and sizes of Skillweld's layout, for whoever writes and reads it.

/// Version of `skillweld.json` and of the layout around it.
pub const FORMAT_VERSION: u64 = 1;

/// Name of the provenance file in a merged checkpoint: tasks, recipe, hashes, report.
pub const PROVENANCE: &str = "skillweld.json";

/// Name of the provenance file in one task's checkpoint.
pub const TASK_PROVENANCE: &str = "skillweld_task.json";

/// Name of the provenance file in a checkpoint between a pretrained and a finetuned policy.
pub const RETAIN_PROVENANCE: &str = "skillweld_retain.json";
/// Name of the provenance file in what was exported for other programs: adapters, the published code's layout.
pub const EXPORT_PROVENANCE: &str = "skillweld_export.json";

/// All of them: one lies in every output of Skillweld.
pub const PROVENANCE_FILES: [&str; 4] = [PROVENANCE, TASK_PROVENANCE, RETAIN_PROVENANCE, EXPORT_PROVENANCE];

/// What the router's scores are on each task's own observations.
pub const ROUTER_CALIBRATION: &str = "router_calibration.json";

/// Normalisation statistics, by task or by data set.
pub const STATISTICS: &str = "dataset_statistics.json";

/// Name of a task's rescaler among the masks, after `<task>/`.
pub const RESCALER: &str = "__rescaler__";

/// Larger files of tensors are cut into shards of this size, as Hugging Face does.
pub const MAX_SHARD_BYTES: u64 = 5_000_000_000;

/// Elements computed at once: a few f32 buffers of this size lie in a core's L2 cache. A multiple of 8, so that a
/// block's mask is whole bytes.
pub const BLOCK: usize = 1 << 14;

/// Elements that one thread takes, and writes, at once: whole blocks.
pub const SLAB: usize = 1 << 20;

/// File stems of a merged checkpoint: `<stem>.safetensors`, or shards of it with an index.
pub mod stem {
    /// Θ₀ and averaged parts without pretrained value; the final weights when there are no masks.
    pub const MODEL: &str = "model";
    /// τ, under the keys that it belongs to.
    pub const TASK_VECTOR: &str = "task_vector";
    /// `<task>/<key>`, packed bits as U8.
    pub const MASKS: &str = "masks";
    /// Shared tensors by published name, `experts/<task>/<name>` for those of one task.
    pub const ACTION_EXPERT: &str = "action_expert";
    /// `<task>/<name>` for the names of [`ROUTER_PAIRS`](super::ROUTER_PAIRS), rank × d.
    pub const ROUTER: &str = "router";
}

/// Names of the router's subspaces, after `<task>/`: of action-query tokens and of task tokens, for each kind of projection
/// (see [`PROJECTIONS`]).
pub const ROUTER_PAIRS: [[&str; 2]; 2] = [["adapter", "task"], ["adapter_k", "task_k"]];

/// The layers of an action expert's block whose right singular vectors [`ROUTER_PAIRS`] hold: values, then keys.
pub const PROJECTIONS: [[&str; 2]; 2] = [["v_adapter", "v_task"], ["k_adapter", "k_task"]];

/// True for the files that describe one output and mean nothing in another.
pub fn is_provenance(name: &str) -> bool {
    PROVENANCE_FILES.contains(&name) || name == ROUTER_CALIBRATION
}

/// What the published names of an action expert's blocks begin with; the block's number from 0 follows.
pub const BLOCKS: &str = "model.mlp_resnet_blocks.";

/// The block (from 0) that a published name of an action expert belongs to.
pub fn block_index(key: &str) -> Option<usize> {
    let (index, _) = key.strip_prefix(BLOCKS)?.split_once('.')?;
    index.parse().ok()
}
