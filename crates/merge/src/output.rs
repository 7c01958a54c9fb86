//! Where every byte of the output goes: files are laid out before the first tensor is computed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use skillweld_merged::layout::{RESCALER, stem};
use skillweld_store::{Hash, SafetensorsWriter, TensorSpec, content_hash};
use skillweld_tensor::{BitMask, Dtype, TensorView};

use crate::MergeError;
use crate::base_files::{BaseFiles, KeptBase};
use crate::execute::{BlockHashes, Cut};
use crate::plan::{Action, Part, Plan, PlannedTensor};

/// Shortest time between two rounds of syncing.
const MIN_SYNC_PAUSE: Duration = Duration::from_millis(5);

/// The open output files.
#[derive(Debug)]
pub(crate) struct Outputs {
    cut: Cut,
    files: Vec<OutputFile>,
    /// In the plan's order.
    slots: Vec<Slots>,
    /// Files are soon removed: they are neither hashed nor synced.
    temporary: bool,
}

#[derive(Debug)]
struct OutputFile {
    stem: &'static str,
    writer: SafetensorsWriter,
    specs: Vec<TensorSpec>,
    hashes: Vec<BlockHashes>,
}

/// Where one planned tensor goes.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// The result: merged weights, τ, or the mean.
    pub(crate) value: Option<Slot>,
    /// Θ₀ as it was, in masked merges.
    pub(crate) base: Option<Slot>,
    /// One mask a task.
    pub(crate) masks: Vec<Slot>,
    /// One copy a task.
    pub(crate) per_task: Vec<Slot>,
}

/// What [`content_hash`] wants to know of a tensor: key, dtype, shape and hash of its bytes.
type Hashed<'a> = (&'a str, Dtype, &'a [usize], Hash);

/// A tensor of an output file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    file: usize,
    tensor: usize,
}

/// Collects tensors of files before they are created.
#[derive(Default)]
struct Layout {
    files: Vec<(&'static str, Vec<TensorSpec>)>,
}

impl Layout {
    fn add(&mut self, stem: &'static str, name: String, dtype: Dtype, shape: &[usize]) -> Slot {
        let file = self.files.iter().position(|(s, _)| *s == stem).unwrap_or_else(|| {
            self.files.push((stem, Vec::new()));
            self.files.len() - 1
        });
        let specs = &mut self.files[file].1;
        specs.push(TensorSpec { name, dtype, shape: shape.to_vec() });
        Slot { file, tensor: specs.len() - 1 }
    }

    /// With `base_stays` the tensors of the base model are there already, or stay where they are.
    fn place<'a>(
        &mut self,
        plan: &Plan<'a>,
        tensor: &PlannedTensor<'a>,
        tasks: &[&str],
        base_stays: bool,
    ) -> Slots {
        let written = !base_stays || plan.in_base(tensor).is_none();
        let PlannedTensor { key, shape, dtype, part, action, .. } = tensor;
        let stem = match part {
            Part::Model => stem::MODEL,
            Part::ActionExpert => stem::ACTION_EXPERT,
        };
        let mut slots = Slots::default();
        match action {
            Action::Refuse(_) | Action::LeaveOut(_) => {}
            Action::Merge(merge) if plan.masked => {
                if let Some(base) = merge.base.filter(|_| written) {
                    slots.base = Some(self.add(stem, key.clone(), base.dtype(), shape));
                }
                slots.value = Some(self.add(stem::TASK_VECTOR, key.clone(), *dtype, shape));
                let mask_shape = [BitMask::byte_len(tensor.numel())];
                let mask =
                    |task: &&str| self.add(stem::MASKS, format!("{task}/{key}"), Dtype::U8, &mask_shape);
                slots.masks = tasks.iter().map(mask).collect();
            }
            Action::Copy(_) if !written => {}
            Action::Copy(_) | Action::Merge(_) | Action::Average(_) => {
                slots.value = Some(self.add(stem, key.clone(), *dtype, shape));
            }
            Action::PerTask(_) => {
                let own = |task: &&str| self.add(stem, format!("experts/{task}/{key}"), *dtype, shape);
                slots.per_task = tasks.iter().map(own).collect();
            }
        }
        slots
    }
}

impl Outputs {
    /// Creates all files in `dir`, preallocated, and gives the slots of the rescalers, one a task where the mask method
    /// has them.
    pub(crate) fn create(
        dir: &Path,
        plan: &Plan<'_>,
        base: &BaseFiles<'_>,
        temporary: bool,
    ) -> Result<(Self, Vec<Slot>), MergeError> {
        let (mut outputs, rescalers) = Self::create_cut(dir, plan, base, Cut::default())?;
        outputs.temporary = temporary;
        Ok((outputs, rescalers))
    }

    /// [`create`](Self::create) for a merge that is cut in other places.
    pub(crate) fn create_cut(
        dir: &Path,
        plan: &Plan<'_>,
        base: &BaseFiles<'_>,
        cut: Cut,
    ) -> Result<(Self, Vec<Slot>), MergeError> {
        let (tasks, base_stays) = (plan.tasks(), base.kept != KeptBase::Copied);
        let mut layout = Layout::default();
        let slots: Vec<Slots> =
            plan.tensors.iter().map(|tensor| layout.place(plan, tensor, &tasks, base_stays)).collect();
        let mut rescalers = Vec::new();
        if plan.is_rescaled() {
            let name = |task: &&str| format!("{task}/{RESCALER}");
            rescalers.extend(tasks.iter().map(|task| layout.add(stem::MASKS, name(task), Dtype::F32, &[1])));
        }
        if plan.masked {
            // A masked merge of identical experts has no masks; its files say so by being empty.
            for stem in [stem::TASK_VECTOR, stem::MASKS] {
                if layout.files.iter().all(|(s, _)| *s != stem) {
                    layout.files.push((stem, Vec::new()));
                }
            }
        }
        let create = |(stem, specs): (&'static str, Vec<TensorSpec>)| match stem {
            stem::MODEL => OutputFile::create(dir, (stem, &base.rest_stem), specs, cut),
            _ => OutputFile::create(dir, (stem, stem), specs, cut),
        };
        let files = layout.files.into_iter().map(create);
        Ok((Self { cut, files: files.collect::<Result<_, _>>()?, slots, temporary: false }, rescalers))
    }

    /// Where everything is cut.
    pub(crate) fn cut(&self) -> Cut {
        self.cut
    }

    /// Where the `index`-th planned tensor goes.
    pub(crate) fn slots(&self, index: usize) -> &Slots {
        &self.slots[index]
    }

    /// Writes a part of a tensor and hashes it.
    pub(crate) fn write(&self, slot: Slot, offset_bytes: usize, bytes: &[u8]) -> Result<(), MergeError> {
        let file = &self.files[slot.file];
        if !self.temporary {
            file.hashes[slot.tensor].fill(offset_bytes, bytes);
        }
        Ok(file.writer.write_at(slot.tensor, offset_bytes as u64, bytes)?)
    }

    /// Keeps sending written pages to the disk until `done`, half of the time at most: writers wait while a file is
    /// synced. Whoever sets `done` unparks this thread.
    pub(crate) fn sync_until(&self, done: &AtomicBool) -> Result<(), MergeError> {
        if self.temporary {
            return Ok(());
        }
        let mut pause = MIN_SYNC_PAUSE;
        while !done.load(Ordering::Relaxed) {
            std::thread::park_timeout(pause);
            let start = Instant::now();
            for file in &self.files {
                file.writer.sync_data()?;
            }
            pause = start.elapsed().max(MIN_SYNC_PAUSE);
        }
        Ok(())
    }

    /// Checks that everything was written, syncs, and gives the content hash of each stem: of what was written there,
    /// and of `in_base` (tensors in the base model's files, with their hashes) under [`stem::MODEL`].
    pub(crate) fn finish(
        self,
        in_base: &[(&str, TensorView<'_>, Hash)],
    ) -> Result<BTreeMap<&'static str, Hash>, MergeError> {
        let mut all: BTreeMap<&'static str, Vec<Hashed<'_>>> = BTreeMap::new();
        if !in_base.is_empty() {
            let taken = in_base.iter().map(|(key, view, hash)| (*key, view.dtype(), view.shape(), *hash));
            all.insert(stem::MODEL, taken.collect());
        }
        for file in &self.files {
            let tensors = file.specs.iter().zip(&file.hashes);
            let tensors = tensors.map(|(spec, hash)| (&*spec.name, spec.dtype, &*spec.shape, hash.finish()));
            all.entry(file.stem).or_default().extend(tensors);
        }
        let hashes = all.into_iter().map(|(stem, tensors)| (stem, content_hash(tensors))).collect();
        for file in self.files {
            file.writer.finish()?;
        }
        Ok(hashes)
    }

    /// Checks that everything was written; for files that will soon be removed.
    pub(crate) fn finish_unsynced(self) -> Result<(), MergeError> {
        for file in self.files {
            file.writer.finish_unsynced()?;
        }
        Ok(())
    }
}

impl OutputFile {
    /// `stem` is what the file is to the checkpoint, `name` what it is called.
    fn create(
        dir: &Path,
        (stem, name): (&'static str, &str),
        specs: Vec<TensorSpec>,
        cut: Cut,
    ) -> Result<Self, MergeError> {
        let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        if stem == stem::MASKS {
            metadata.insert("bit_order".to_owned(), "little".to_owned());
        }
        let bytes = |spec: &TensorSpec| {
            skillweld_tensor::numel(&spec.shape).and_then(|n| spec.dtype.byte_len(n)).unwrap_or(0)
        };
        let hashes = specs.iter().map(|spec| BlockHashes::new(spec.dtype, bytes(spec), cut.block)).collect();
        // A file called otherwise is one of several already.
        let max_shard_bytes = (stem == name).then_some(cut.max_shard_bytes);
        let writer = SafetensorsWriter::create(dir, name, specs.clone(), &metadata, max_shard_bytes)?;
        Ok(Self { stem, writer, specs, hashes })
    }
}
