//! From a checked plan to a finished output directory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use skillweld_gpu::{Device, Fork};
use skillweld_linalg::Threads;
use skillweld_merged::layout::{FORMAT_VERSION, PROVENANCE, stem};
use skillweld_plugin_host::Method;
use skillweld_store::{
    Checkpoint, Hash, OutputDir, SafetensorsWriter, StoreError, TensorSpec, content_hash, write_json,
};
use skillweld_tensor::{Dtype, convert};

use crate::base_files::{BaseFiles, BaseMode, KeptBase};
use crate::block_distances::block_distances;
use crate::execute::{Control, Executed, HashBook, execute};
use crate::measure::Measures;
use crate::output::Outputs;
use crate::output_guard::guard_output;
use crate::plan::{Action, Plan};
use crate::recipe::ActionExpertChoice;
use crate::report::Report;
use crate::router::{Subspace, subspaces};
use crate::{MergeError, side_files};

/// Where an input stands in the provenance: the model's index, and what it is to the model.
type Place = (usize, &'static str);

/// How the output is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Replace an earlier output of Skillweld, at the moment the new one is complete. Any other folder that holds
    /// something is refused, as is one that holds an input.
    pub force: bool,
    /// How a merge with masks keeps Θ₀.
    pub base: BaseMode,
    /// The output is used at once and then removed: nothing is hashed, nothing waits for the disk, and inputs stay mapped
    /// for the next merge of the same [`Models`](crate::Models). The tensors are those of any other merge.
    pub temporary: bool,
}

/// What [`Plan::write`] wrote.
#[derive(Debug)]
pub struct Written {
    /// What the merge did.
    pub report: Report,
    /// What `skillweld.json` would say.
    pub provenance: Value,
}

impl Plan<'_> {
    /// Refuses an output that [`run`](Self::run) would refuse: before anybody reads a plan that leads nowhere.
    ///
    /// # Errors
    /// [`MergeError::Unfit`] and [`MergeError::Store`], as `run` gives them.
    pub fn check_output(&self, out: &Path, options: RunOptions) -> Result<(), MergeError> {
        guard_output(out, options.force, &self.inputs())?;
        OutputDir::check(out, options.force)?;
        Ok(())
    }

    /// Merges and writes the merged checkpoint to `out`, which appears complete or not at all.
    ///
    /// # Errors
    /// [`MergeError::Refused`] when a tensor cannot be merged; whatever fails on the way. Inputs and an earlier output
    /// are then as they were.
    pub fn run(&self, out: &Path, options: RunOptions, control: &Control<'_>) -> Result<Report, MergeError> {
        self.run_with::<Device>(out, options, control, None)
    }

    /// As [`run`](Self::run), and the same bytes: tensors whose methods bring device code along are merged on a GPU.
    ///
    /// # Errors
    /// As [`run`](Self::run); whatever the GPU refuses.
    pub fn run_on<F: Fork>(
        &self,
        out: &Path,
        options: RunOptions,
        control: &Control<'_>,
        fork: &F,
    ) -> Result<Report, MergeError> {
        self.run_with(out, options, control, Some(fork))
    }

    fn run_with<F: Fork>(
        &self,
        out: &Path,
        options: RunOptions,
        control: &Control<'_>,
        fork: Option<&F>,
    ) -> Result<Report, MergeError> {
        self.check()?;
        self.check_base(options.base)?;
        guard_output(out, options.force, &self.inputs())?;
        let dir = OutputDir::create(out, options.force)?;
        let Written { report, provenance } = self.write_with(dir.path(), options, control, fork)?;
        if let Some(statistics) = &self.statistics {
            side_files::write_statistics(dir.path(), statistics)?;
        }
        write_json(&dir.path().join(PROVENANCE), &provenance)?;
        control.check()?;
        if options.temporary {
            dir.commit_unsynced()?;
        } else {
            dir.commit()?;
        }
        Ok(report)
    }

    /// Writes weights, configuration and tokenizer into the folder `dir`, for whoever makes more of them than a merged
    /// checkpoint and sees to it that they appear at once; no statistics and no provenance.
    ///
    /// # Errors
    /// As [`run`](Self::run). What was written up to then stays: use it inside an [`OutputDir`].
    pub fn write(&self, dir: &Path, control: &Control<'_>) -> Result<Written, MergeError> {
        self.check()?;
        self.write_with::<Device>(dir, RunOptions::default(), control, None)
    }

    fn write_with<F: Fork>(
        &self,
        dir: &Path,
        options: RunOptions,
        control: &Control<'_>,
        fork: Option<&F>,
    ) -> Result<Written, MergeError> {
        let subspaces = match &self.expert {
            Some(expert) => subspaces(self, expert, control.threads)?,
            None => Vec::new(),
        };
        let temporary = options.temporary;
        let hashes = if temporary { HashBook::default() } else { self.hash_book() };
        let measures = Measures::new(self.tensors.len());
        let base = self.place_base(dir, options.base)?;
        let (outputs, rescaler_slots) = Outputs::create(dir, self, &base, temporary)?;
        let Executed { rescalers, device } = execute(self, &outputs, control, &hashes, &measures, fork)?;
        for (slot, rescaler) in rescaler_slots.iter().zip(rescalers.iter().flatten()) {
            outputs.write(*slot, 0, &rescaler.to_le_bytes())?;
        }
        let (input_hashes, output_hashes) = if temporary {
            outputs.finish_unsynced()?;
            self.write_rest(dir, &base, &subspaces)?;
            (Vec::new(), BTreeMap::new())
        } else {
            let input_hashes = self.input_hashes(&hashes, control.threads)?;
            let in_base = self.tensors_in_base(&base).into_iter();
            let in_base: Vec<_> = in_base.map(|(key, view)| (key, view, hashes.finish(&view))).collect();
            let mut output_hashes = std::thread::scope(|scope| {
                // Unmapping gigabytes takes the processor's time, the last sync the disk's.
                // Without a thread for it the process does it when it ends.
                let release = || self.release_inputs(control.threads);
                let _ = std::thread::Builder::new().spawn_scoped(scope, release);
                outputs.finish(&in_base)
            })?;
            output_hashes.extend(self.write_rest(dir, &base, &subspaces)?);
            (input_hashes, output_hashes)
        };
        side_files::copy(self, dir)?;
        let distances = block_distances(self, &measures, control.threads)?;
        let mut report = Report::new(self, &measures, rescalers.as_deref(), distances);
        report.base = self.masked.then_some(base.kept);
        report.device = device;
        let mut provenance = self.provenance(&input_hashes, &output_hashes, &report)?;
        if let Some(base) = self.base_provenance(base.kept, &input_hashes)? {
            provenance["base"] = base;
        }
        if temporary {
            provenance["temporary"] = true.into();
        }
        Ok(Written { report, provenance })
    }

    /// What comes beside the executor's files: the index over files of the base, and the router's subspaces, whose hash
    /// it gives.
    fn write_rest(
        &self,
        dir: &Path,
        base: &BaseFiles<'_>,
        subspaces: &[Subspace],
    ) -> Result<Option<(&'static str, Hash)>, MergeError> {
        self.write_base_index(dir, base)?;
        if subspaces.is_empty() {
            return Ok(None);
        }
        Ok(Some((stem::ROUTER, write_router(dir, subspaces)?)))
    }

    /// Accounts for every input tensor.
    fn hash_book(&self) -> HashBook {
        let mut book = HashBook::default();
        for (_, checkpoint) in self.input_checkpoints() {
            checkpoint.keys().filter_map(|key| checkpoint.get(key)).for_each(|view| book.register(&view));
        }
        for tensor in &self.tensors {
            if let Action::Copy(original) = &tensor.action {
                tensor.copies.iter().for_each(|copy| book.equate(copy, original));
            }
        }
        book
    }

    /// Gives the inputs' pages back: nearly everything has been read for the last time.
    fn release_inputs(&self, threads: Threads) {
        let checkpoints = self.input_checkpoints();
        let release = |(): &mut (), i: usize| {
            checkpoints[i].1.release();
            Ok::<_, Infallible>(())
        };
        let Ok(()) = threads.for_each(checkpoints.len(), || (), release);
    }

    /// Every checkpoint that is read, with its place in the provenance.
    fn input_checkpoints(&self) -> Vec<(Place, &Checkpoint)> {
        let mut all = Vec::new();
        for (index, model) in self.models.all.iter().enumerate() {
            all.push(((index, "weights"), &*model.weights));
            let files = &model.files;
            let parts = [
                ("adapter", model.adapter.as_ref().map(|adapter| adapter.adapter.tensors())),
                ("statistics", self.statistics_of(model)),
                ("action_head", files.action_head.as_ref()),
                ("proprio_projector", files.proprio_projector.as_ref()),
                ("noisy_action_projector", files.noisy_action_projector.as_ref()),
            ];
            let parts = parts.into_iter().filter_map(|(what, part)| Some(((index, what), part?)));
            // What the plan leaves out is no input.
            let of_model = |what: &str| ["adapter", "statistics"].contains(&what);
            let merges_parts =
                self.expert.is_some() || self.recipe.action_expert == ActionExpertChoice::Merge;
            all.extend(parts.filter(|((_, what), _)| of_model(what) || merges_parts));
        }
        all
    }

    /// Content hashes of all inputs; hashes now what the merge had no reason to read.
    fn input_hashes(&self, book: &HashBook, threads: Threads) -> Result<Vec<(Place, Hash)>, MergeError> {
        let checkpoints = self.input_checkpoints();
        let results: Vec<Mutex<Option<Hash>>> = checkpoints.iter().map(|_| Mutex::default()).collect();
        threads.for_each(
            checkpoints.len(),
            || (),
            |(), i| {
                let checkpoint = checkpoints[i].1;
                let tensors = checkpoint.keys().filter_map(|key| {
                    let view = checkpoint.get(key)?;
                    Some((key, view.dtype(), view.shape(), book.finish(&view)))
                });
                *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(content_hash(tensors));
                Ok::<_, MergeError>(())
            },
        )?;
        let hashes =
            results.into_iter().map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(checkpoints.iter().zip(hashes).filter_map(|((place, _), hash)| Some((*place, hash?))).collect())
    }

    /// What `skillweld.json` says: nothing that depends on time, machine or thread count.
    fn provenance(
        &self,
        input_hashes: &[(Place, Hash)],
        outputs: &BTreeMap<&'static str, Hash>,
        report: &Report,
    ) -> Result<Value, MergeError> {
        let mut inputs: Vec<Map<String, Value>> = self
            .models
            .all
            .iter()
            .enumerate()
            .map(|(index, model)| {
                let role = if self.recipe.base == Some(index) { "base" } else { "expert" };
                let mut input = Map::new();
                input.insert("name".to_owned(), json!(model.name));
                input.insert("role".to_owned(), json!(role));
                input.insert("path".to_owned(), json!(self.recipe.models[index].path));
                input
            })
            .collect();
        for ((index, what), hash) in input_hashes {
            inputs[*index].insert(format!("{what}_blake3"), json!(hash.to_hex().as_str()));
        }
        let outputs: Map<String, Value> =
            outputs.iter().map(|(stem, hash)| ((*stem).to_owned(), json!(hash.to_hex().as_str()))).collect();
        let mut value = json!({
            "format_version": FORMAT_VERSION,
            "skillweld_version": env!("CARGO_PKG_VERSION"),
            "tasks": self.tasks(),
            "masked": self.masked,
            "recipe": self.recipe.to_value(),
            "inputs": inputs,
            "methods": self.methods()?,
            "outputs_blake3": outputs,
            "report": report,
        });
        if let (Value::Object(map), Some(expert)) = (&mut value, &self.expert) {
            map.insert(
                "action_expert".to_owned(),
                json!({"blocks": expert.blocks, "head_blocks": expert.head_blocks}),
            );
            if let (Some(router), Some(block)) = (expert.router, expert.router_block()) {
                let subspace = router.to_value()["subspace"].clone();
                map.insert(
                    "router".to_owned(),
                    json!({"rank": router.rank, "subspace": subspace, "block": block}),
                );
            }
        }
        Ok(value)
    }

    /// Where Θ₀ is, when it has no bytes of its own in the output. What the file system did is no part of it.
    fn base_provenance(&self, kept: KeptBase, inputs: &[(Place, Hash)]) -> Result<Option<Value>, MergeError> {
        Ok(match kept {
            KeptBase::Copied | KeptBase::Reflinked => None,
            KeptBase::HardLinked | KeptBase::SymbolicLinked => Some(json!({"mode": "link"})),
            KeptBase::Referenced => {
                let of_base = |(index, what): &Place| Some(*index) == self.recipe.base && *what == "weights";
                let hash = inputs.iter().find(|(place, _)| of_base(place)).map(|(_, hash)| hash.to_hex());
                let blake3 = hash.as_ref().map(|hash| hash.as_str());
                Some(json!({"mode": "reference", "path": self.base_path()?, "blake3": blake3}))
            }
        })
    }

    /// The methods of all tensors, each once.
    pub(crate) fn methods_used(&self) -> Vec<&Method> {
        let mut used: Vec<&Method> = Vec::new();
        for tensor in &self.tensors {
            let Action::Merge(merge) = &tensor.action else { continue };
            for method in [Some(merge.method.method()), merge.mask.as_ref().map(|mask| mask.method())] {
                used.extend(
                    method.filter(|m| !used.iter().any(|u| (u.kind(), u.id()) == (m.kind(), m.id()))),
                );
            }
        }
        used
    }

    /// The methods used, with the hash of the library that each lives in.
    fn methods(&self) -> Result<Vec<Value>, MergeError> {
        let describe = |method: &Method| {
            let path = method.path();
            let library = std::fs::read(path).map_err(StoreError::io("read", path))?;
            Ok(json!({
                "kind": method.kind().to_string(),
                "id": method.id(),
                "version": method.version(),
                "plugin": path.file_name().map(|name| PathBuf::from(name).display().to_string()),
                "plugin_blake3": blake3::hash(&library).to_hex().as_str(),
            }))
        };
        self.methods_used().into_iter().map(describe).collect()
    }
}

/// Writes `router.safetensors`; gives its content hash.
fn write_router(dir: &Path, subspaces: &[Subspace]) -> Result<Hash, MergeError> {
    let spec = |subspace: &Subspace| TensorSpec {
        name: subspace.name.clone(),
        dtype: Dtype::F32,
        shape: subspace.rows.shape().to_vec(),
    };
    let specs: Vec<TensorSpec> = subspaces.iter().map(spec).collect();
    let writer = SafetensorsWriter::create(dir, stem::ROUTER, specs.clone(), &BTreeMap::new(), None)?;
    let mut hashes = Vec::with_capacity(subspaces.len());
    for (index, subspace) in subspaces.iter().enumerate() {
        let values: Vec<f32> = subspace.rows.iter().copied().collect();
        let mut bytes = vec![0; values.len() * 4];
        convert::encode(Dtype::F32, &values, &mut bytes).map_err(MergeError::tensor(&subspace.name))?;
        writer.write_at(index, 0, &bytes)?;
        hashes.push(blake3::hash(&bytes));
    }
    writer.finish()?;
    Ok(content_hash(
        specs.iter().zip(hashes).map(|(spec, hash)| (&*spec.name, spec.dtype, &*spec.shape, hash)),
    ))
}
