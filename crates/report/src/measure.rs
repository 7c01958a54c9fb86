//! Everything about one merged checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use skillweld_merged::MergedCheckpoint;
use skillweld_store::Family;

use crate::experts::ExpertVectors;
use crate::inputs::{Input, InputState, Inputs};
use crate::masks::MaskShares;
use crate::router::{Overlap, overlaps};
use crate::spectrum::{Spectrum, spectra};
use crate::vectors::{Changed, TaskVectors, sums};
use crate::{Control, ReportError};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Options {
    /// The pretrained model, for merged checkpoints that do not hold it.
    pub base: Option<PathBuf>,
    /// Look for the recipe's models and compare them with what was merged.
    pub inputs: bool,
    /// Where the recipe's relative paths start; without, the current folder and that beside the merged checkpoint.
    pub inputs_folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { base: None, inputs: true, inputs_folder: None }
    }
}

/// What a merge did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The checkpoint's folder, by its name.
    pub name: String,
    /// Names of the tasks.
    pub tasks: Vec<String>,
    /// True when each task has its own mask.
    pub masked: bool,
    /// True for the published code's layout.
    pub official: bool,
    /// The family of models whose key names it follows.
    pub family: Option<String>,
    /// Tensors of one task's model.
    pub tensors: u64,
    /// Their elements.
    pub elements: u64,
    /// Bytes of every file's tensors together.
    pub bytes: u64,
    /// Tensors by what happened to them, as the merge wrote it down.
    pub plan: BTreeMap<String, u64>,
    /// Task masks.
    pub masks: Option<MaskShares>,
    /// The merged task vectors.
    pub vectors: Option<TaskVectors>,
    /// The experts' own.
    pub experts: Option<ExpertVectors>,
    /// Singular values of τ.
    pub spectra: Vec<Spectrum>,
    /// Distances of action-expert blocks, as the merge measured them.
    pub blocks: Vec<Block>,
    /// Overlap of the router's subspaces.
    pub router: Vec<Overlap>,
    /// The models that were merged.
    pub inputs: Vec<Input>,
    /// `skillweld.json` without its report: recipe, methods, hashes, versions.
    pub provenance: Value,
    /// What is not in the report, and why.
    pub left_out: Vec<LeftOut>,
}

/// One block of the action expert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Block {
    /// Its number from 0, or the layer's name.
    pub block: String,
    /// True for parts that stay per task.
    pub per_task: bool,
    /// Mean relative L2 distance over pairs of experts.
    pub mean: Option<f64>,
    /// Least and greatest of the pairs.
    pub range: Option<[f64; 2]>,
}

/// A section that a report does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// `masks`, `vectors`, `experts`, `spectra`, `blocks` or `router`.
    pub section: &'static str,
    /// One sentence.
    pub why: String,
}

impl Report {
    /// Opens and measures a merged checkpoint: one with masks, one without, or one of the published code.
    ///
    /// # Errors
    /// [`ReportError`]: what is no merged checkpoint or broken, a tensor with NaN where a decomposition is wanted.
    pub fn measure(path: &Path, options: &Options, control: &Control<'_>) -> Result<Self, ReportError> {
        let merged = MergedCheckpoint::open_with_base(path, options.base.as_deref())?;
        let document = merged.document();
        let tasks = merged.tasks();
        let mut left_out = Vec::new();
        let mut leave_out = |section, why: &str| left_out.push(LeftOut { section, why: why.to_owned() });
        let inputs = match options.inputs {
            true => Inputs::seek(document, tasks, &folders(path, options), control)?,
            false => Inputs::not_sought(document, tasks),
        };
        let changed = Changed::all(&merged, inputs.base.as_deref())?;
        let experts = comparable(&inputs, document);
        let rescalers: Vec<f32> = (0..tasks.len()).map(|task| merged.rescaler(task)).collect();
        (control.start)(changed.iter().map(|tensor| tensor.base.numel() as u64).sum());
        let compared = experts.is_ok().then_some(inputs.experts.as_slice());
        let sums = sums(&changed, compared, control)?;
        let vectors = TaskVectors::new(&changed, &sums, &rescalers);
        let expert_vectors = ExpertVectors::new(&changed, &sums, tasks.len());
        let masks = MaskShares::new(&changed, &sums, rescalers);
        let spectra = spectra(&changed, control)?;
        let router = overlaps(&merged)?;
        let blocks = blocks(document);

        if masks.is_none() {
            leave_out("masks", "This merge has no task masks: all tasks share the final weights.");
        }
        if vectors.is_none() {
            leave_out(
                "vectors",
                if merged.is_masked() {
                    "The merge changed no tensor."
                } else {
                    "The merged task vector is what the weights have over the base, and without masks only the final weights are \
                 kept. The base was not found where the recipe says, with the hash it had."
                },
            );
        }
        match (&expert_vectors, &experts) {
            (None, Err(why)) => leave_out("experts", why),
            (None, Ok(())) => leave_out(
                "experts",
                "Without the merged task vector there is nothing to compare the experts with.",
            ),
            (Some(_), _) => {}
        }
        if spectra.is_empty() && vectors.is_some() {
            leave_out(
                "spectra",
                "No matrix of a layer was changed, or all of them are wider than 2048 in both directions.",
            );
        } else if spectra.is_empty() {
            leave_out("spectra", "Without the merged task vector it has no spectrum.");
        }
        if blocks.is_empty() {
            leave_out(
                "blocks",
                "The merge wrote down no distances: its experts had no action heads, or the published code made it.",
            );
        }
        if router.is_empty() {
            leave_out("router", "This merge has no router.");
        } else if tasks.len() < 2 {
            leave_out("router", "There is one task only.");
        }
        let keys = merged.keys();
        Ok(Self {
            name: name_of(path),
            tasks: tasks.to_vec(),
            masked: merged.is_masked(),
            official: merged.is_official(),
            family: Family::detect(keys.iter().copied()).map(|family| family.to_string()),
            tensors: keys.len() as u64,
            elements: merged.elements(),
            bytes: merged.checkpoints().map(|(_, checkpoint)| checkpoint.total_bytes()).sum(),
            plan: plan(document),
            masks,
            vectors,
            experts: expert_vectors,
            spectra,
            blocks,
            router,
            inputs: inputs.list,
            provenance: provenance(document),
            left_out,
        })
    }

    /// Why a section is left out; `None` for one that is there.
    pub fn why_not(&self, section: &str) -> Option<&str> {
        self.left_out
            .iter()
            .find(|left_out| left_out.section == section)
            .map(|left_out| left_out.why.as_str())
    }
}

/// A folder's own name, also of `.`.
fn name_of(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real.file_name().unwrap_or(real.as_os_str()).to_string_lossy().into_owned()
}

/// Where a recipe's relative paths may start: what a recipe of several stages made on the way lies in `OUT.stages`, and such
/// a stage's own inputs beside it.
fn folders(path: &Path, options: &Options) -> Vec<PathBuf> {
    if let Some(folder) = &options.inputs_folder {
        return vec![folder.clone()];
    }
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut folders = vec![PathBuf::from(".")];
    folders.extend(real.parent().map(Path::to_owned));
    let mut stages = real.into_os_string();
    stages.push(".stages");
    folders.push(stages.into());
    folders
}

/// Whether the experts can be compared with what came of them; one sentence if not.
fn comparable(inputs: &Inputs, document: &Value) -> Result<(), String> {
    if document["recipe"].get("slices").is_some() {
        return Err(
            "The recipe stacks slices: layers of the merge are not the layers of the experts.".to_owned()
        );
    }
    if inputs.list.is_empty() {
        return Err("The published code writes down no inputs.".to_owned());
    }
    if inputs.list.iter().any(|input| input.state == InputState::NotSought) {
        return Err("The recipe's models were not looked for.".to_owned());
    }
    if inputs.base.is_none() {
        return Err("The base was not found where the recipe says, with the hash it had; `--inputs FOLDER` names the \
                    folder in which the recipe's paths start.".to_owned());
    }
    let gone: Vec<&str> = inputs
        .list
        .iter()
        .filter(|input| input.role != "base" && input.state != InputState::Found)
        .map(|input| input.name.as_str())
        .collect();
    match gone.as_slice() {
        [] => Ok(()),
        gone => Err(format!(
            "Not found where the recipe says, with the hashes they had: {}; `--inputs FOLDER` names the folder in which \
             the recipe's paths start.",
            gone.join(", ")
        )),
    }
}

fn plan(document: &Value) -> BTreeMap<String, u64> {
    let groups = document["report"]["tensors"].as_object().into_iter().flatten();
    groups.filter_map(|(group, count)| Some((group.clone(), count.as_u64()?))).collect()
}

fn blocks(document: &Value) -> Vec<Block> {
    let block = |block: &Value| {
        let pairs = block["pairs"].as_array().into_iter().flatten().filter_map(|pair| pair[2].as_f64());
        let pairs: Vec<f64> = pairs.collect();
        let range = pairs.iter().copied().reduce(f64::min).zip(pairs.iter().copied().reduce(f64::max));
        Block {
            block: block["block"].as_str().unwrap_or_default().to_owned(),
            per_task: block["per_task"].as_bool().unwrap_or(false),
            mean: block["mean"].as_f64(),
            range: range.map(|(low, high)| [low, high]),
        }
    };
    document["report"]["action_expert"].as_array().into_iter().flatten().map(block).collect()
}

fn provenance(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(fields) = document.as_object_mut() {
        fields.shift_remove("report");
        fields.shift_remove("inputs");
    }
    document
}
