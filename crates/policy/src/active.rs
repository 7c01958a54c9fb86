//! The weights in memory and the tasks they belong to: a bounded number of models, rewritten in place for other tasks.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Instant;

use ndarray::Array2;
use skillweld_merged::{ExpertPart, MergedCheckpoint};
use skillweld_tensor::TensorView;

use crate::backend::{Backend, Result};
use crate::config::Config;
use crate::expert::ExpertOptions;
use crate::forward::Model;
use crate::policy::PolicyOptions;
use crate::task_source::TaskSource;
use crate::{PolicyError, RopePrecision};

/// P_k of one task, rank × d each: of action-query tokens and of task tokens, a pair for each kind of projection.
pub(crate) type Subspaces = Vec<[Array2<f32>; 2]>;

/// Stages of the model in which no task differs from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommonStages {
    /// None.
    None,
    /// The vision towers.
    Vision,
    /// The towers and the projector after them.
    VisionAndProjector,
}

/// Gives every model a backend of its own.
pub(crate) type MakeBackend<B> = Box<dyn Fn() -> Result<B> + Send + Sync>;

/// Models in memory, most recently used last, each with the weights of one task.
pub(crate) struct ActiveTasks<B: Backend> {
    slots: Vec<Slot<B>>,
    capacity: NonZeroUsize,
    merged: Option<Merged<B>>,
}

struct Slot<B: Backend> {
    /// `None` while it is being rewritten: a failure in the middle leaves weights of no task.
    task: Option<usize>,
    model: Model<B>,
}

/// What other tasks are made from.
struct Merged<B> {
    checkpoint: MergedCheckpoint,
    config: Config,
    rope: Option<RopePrecision>,
    backend: MakeBackend<B>,
    /// Keys of the model in which tasks differ.
    own: BTreeSet<String>,
    /// One a task; none without a router.
    subspaces: Vec<Subspaces>,
    /// Blocks of the action expert that all tasks share.
    shared_blocks: usize,
}

impl<B: Backend> ActiveTasks<B> {
    /// One model, one task.
    pub(crate) fn of_single(model: Model<B>) -> Self {
        Self { slots: vec![Slot { task: Some(0), model }], capacity: NonZeroUsize::MIN, merged: None }
    }

    /// All tasks of a merged checkpoint; its first is loaded.
    pub(crate) fn of_merged(
        checkpoint: MergedCheckpoint,
        config: Config,
        options: &PolicyOptions,
        backend: MakeBackend<B>,
    ) -> Result<Self> {
        let subspaces = subspaces(&checkpoint)?;
        let names: BTreeSet<&str> =
            checkpoint.shared_part(ExpertPart::ActionHead).map(|(name, _)| name).collect();
        let block =
            |index: &usize| names.contains(format!("model.mlp_resnet_blocks.{index}.o_proj.weight").as_str());
        let shared_blocks = (0..).take_while(block).count();
        let own = BTreeSet::new();
        let mut merged =
            Merged { checkpoint, config, rope: options.model.rope, backend, own, subspaces, shared_blocks };
        let mut model = merged.load(0)?;
        merged.own = merged.own_keys(&mut model)?;
        merged.check_subspaces(&model)?;
        let slots = vec![Slot { task: Some(0), model }];
        Ok(Self { slots, capacity: options.active_tasks, merged: Some(merged) })
    }

    /// Tasks whose weights are in memory, most recently used last.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().filter_map(|slot| slot.task)
    }

    /// The model used last.
    pub(crate) fn current(&mut self) -> &Model<B> {
        let last = self.slots.len() - 1;
        &self.slots[last].model
    }

    /// The task whose weights were used last.
    pub(crate) fn current_task(&self) -> Option<usize> {
        self.slots.last().and_then(|slot| slot.task)
    }

    /// The model with the weights of `task`, and how long it took to get them there, in milliseconds.
    pub(crate) fn switch_to(&mut self, task: usize) -> Result<(&Model<B>, f64)> {
        let started = Instant::now();
        let slot = match self.slots.iter().position(|slot| slot.task == Some(task)) {
            Some(index) => self.slots.remove(index),
            None => self.make(task)?,
        };
        self.slots.push(slot);
        let elapsed_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok((self.current(), elapsed_ms))
    }

    /// A slot with the weights of a task that no slot has.
    fn make(&mut self, task: usize) -> Result<Slot<B>> {
        let Some(merged) = &self.merged else {
            return Err(PolicyError::Observation(format!(
                "there is no task {task}: this is a single expert"
            )));
        };
        if self.slots.len() < self.capacity.get() {
            return Ok(Slot { task: Some(task), model: merged.load(task)? });
        }
        // The one used longest ago. It stays in its place until it is whole again.
        let slot = &mut self.slots[0];
        if !merged.own.is_empty() || slot.task.is_none() {
            slot.task = None;
            let (weights, backend) = slot.model.weights_mut();
            let source = TaskSource::new(&merged.checkpoint, task);
            weights.rewrite(backend, &source, |key| merged.own.contains(key))?;
        }
        slot.task = Some(task);
        Ok(self.slots.remove(0))
    }

    /// How many directions all router subspaces of a task have.
    pub(crate) fn directions(&self, task: usize) -> usize {
        self.subspaces(task).into_iter().flatten().flatten().map(Array2::nrows).sum()
    }

    /// The router's subspaces of a task.
    pub(crate) fn subspaces(&self, task: usize) -> Option<&Subspaces> {
        self.merged.as_ref()?.subspaces.get(task)
    }

    /// What one forward may take from another task's.
    pub(crate) fn common_stages(&self) -> CommonStages {
        let Some(merged) = &self.merged else { return CommonStages::VisionAndProjector };
        let differs = |prefix: &str| merged.own.iter().any(|key| key.starts_with(prefix));
        match (differs("vision_backbone."), differs("projector.")) {
            (true, _) => CommonStages::None,
            (false, true) => CommonStages::Vision,
            (false, false) => CommonStages::VisionAndProjector,
        }
    }

    /// The depth that feeds the first block of the expert head: block l reads depth l + 1.
    pub(crate) fn routing_depth(&self) -> usize {
        self.merged.as_ref().map_or(0, |merged| merged.shared_blocks + 1)
    }

    /// The action expert's head of a task among the model's.
    pub(crate) fn expert_of(&mut self, task: usize) -> usize {
        // Without heads of their own all tasks share one.
        if self.current().expert().experts() > 1 { task } else { 0 }
    }
}

impl<B: Backend> Merged<B> {
    fn load(&self, task: usize) -> Result<Model<B>> {
        let expert = ExpertOptions { chunk_len: self.config.chunk_len, rope: self.rope };
        let source = TaskSource::new(&self.checkpoint, task);
        Model::load((self.backend)()?, self.config.clone(), &source, expert)
    }

    /// Keys of the model in which tasks differ. The action expert's are not among them: heads of all tasks are in memory.
    fn own_keys(&self, model: &mut Model<B>) -> Result<BTreeSet<String>> {
        let (weights, _) = model.weights_mut();
        let mut own = BTreeSet::new();
        for key in weights.keys().filter(|key| !is_of_expert(key)) {
            if self.checkpoint.depends_on_task(key)? {
                own.insert(key.to_owned());
            }
        }
        Ok(own)
    }

    /// Subspaces must be of the width of the hidden states, at a depth that there is.
    fn check_subspaces(&self, model: &Model<B>) -> Result<()> {
        let fail = |problem| Err(PolicyError::Checkpoint { path: self.checkpoint.dir().to_owned(), problem });
        let (width, depth) = (model.expert().width(), model.expert().depth());
        for (task, subspaces) in self.checkpoint.tasks().iter().zip(&self.subspaces) {
            if let Some(other) = subspaces.iter().flatten().map(Array2::ncols).find(|&found| found != width) {
                return fail(format!(
                    "the router's subspaces of `{task}` are {other} wide, the model's hidden states {width}"
                ));
            }
        }
        if !self.subspaces.is_empty() && self.shared_blocks >= depth {
            return fail("a router without expert heads has nothing to route to; merge with `head_blocks` of 1 or more".to_owned());
        }
        Ok(())
    }
}

/// True for the action expert's keys, as a [`TaskSource`] names them.
fn is_of_expert(key: &str) -> bool {
    ["experts/", "action_head.", "proprio_projector."].iter().any(|prefix| key.starts_with(prefix))
}

fn subspaces(checkpoint: &MergedCheckpoint) -> Result<Vec<Subspaces>> {
    let matrix = |task: &str, view: TensorView<'_>| {
        let fail = |problem: String| PolicyError::Checkpoint { path: checkpoint.dir().to_owned(), problem };
        let values = view.to_f32().map_err(|error| fail(format!("router of `{task}`: {error}")))?;
        let shape = values.shape().to_vec();
        values.into_dimensionality::<ndarray::Ix2>().map_err(|_| {
            fail(format!("router of `{task}`: a subspace has shape {shape:?}, expected rank × width"))
        })
    };
    let mut found = Vec::new();
    for (index, task) in checkpoint.tasks().iter().enumerate() {
        let pairs = checkpoint.router(index).into_iter();
        let pairs = pairs.map(|pair| Ok([matrix(task, pair.adapter)?, matrix(task, pair.task)?]));
        found.push(pairs.collect::<Result<Subspaces>>()?);
    }
    // A checkpoint has the same projections of every task.
    Ok(if found.iter().all(Vec::is_empty) { Vec::new() } else { found })
}
