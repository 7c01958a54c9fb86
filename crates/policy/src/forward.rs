//! The whole model: images, prompt and robot state in, a chunk of normalised actions out.

mod stages;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array2, Array3, ArrayView3, Axis, s};
use skillweld_linalg::Threads;
use skillweld_store::ExpertFiles;

use crate::backend::{Backend, Matrix, Result, WeightKind};
use crate::config::Config;
use crate::cpu::{Cpu, Precision};
use crate::expert::{ActionExpert, ExpertOptions, HiddenState};
use crate::language::{LanguageModel, Slices};
use crate::projector::Projector;
use crate::source::ExpertSource;
use crate::text::MAX_PROMPT_TOKENS;
use crate::vision::{CHANNELS, VisionTower};
use crate::weights::{Device, Plan, Source, WeightId, Weights};
use crate::{PolicyError, RopePrecision};

/// How to open an expert.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// The weights that an expert was trained on, for one that is an adapter alone.
    pub base: Option<PathBuf>,
    /// What weights are kept and multiplied in.
    pub precision: Precision,
    /// Precision of the action expert's rotary table; without it, that of the dtype that it is stored in.
    pub rope: Option<RopePrecision>,
    /// How many threads compute.
    pub threads: Threads,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { base: None, precision: Precision::F32, rope: None, threads: Threads::available() }
    }
}

/// A Prismatic vision-language-action model with its action expert: OpenVLA's trunk as VLA-Adapter and MergeVLA use it.
pub struct Model<B: Backend = Cpu> {
    backend: B,
    weights: Weights<B>,
    config: Config,
    towers: Vec<VisionTower>,
    projector: Projector,
    language: LanguageModel<B::Matrix>,
    action_queries: WeightId,
    queries: usize,
    expert: ActionExpert<B::Matrix>,
}

/// What a model is shown.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// (6 · images) × side × side: each image normalised for the first tower, then for the second.
    pub pixel_values: ArrayView3<'a, f32>,
    /// The prompt, without placeholders or stop token.
    pub input_ids: &'a [u32],
    /// The robot's state, normalised.
    pub proprio: &'a [f32],
}

/// What the vision-language model makes of images and prompt: all that router and action expert read.
#[derive(Debug)]
pub struct Perception<M> {
    /// Patches of all images × width of all towers. Shared with other tasks' perceptions where their weights agree so far.
    pub vision_features: Arc<M>,
    /// Patches × width of the language model.
    pub projected: Arc<M>,
    /// One state a depth: the embeddings, then every layer's output, the last after the final norm.
    pub hidden: Vec<HiddenState<M>>,
    /// How long it took.
    pub latency: Latency,
}

/// One forward's result and what led to it.
#[derive(Debug)]
pub struct Forward<M> {
    /// Images and prompt as understood.
    pub perception: Perception<M>,
    /// Chunk × action dimension, in −1 … 1 as the statistics have it.
    pub normalized_actions: Array2<f32>,
    /// How long it took.
    pub latency: Latency,
}

/// Wall time of each stage in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// Vision towers.
    pub vision_ms: f64,
    /// Projector.
    pub projector_ms: f64,
    /// Language model.
    pub language_ms: f64,
    /// Action expert.
    pub expert_ms: f64,
}

impl Latency {
    /// All stages.
    pub fn total_ms(&self) -> f64 {
        self.vision_ms + self.projector_ms + self.language_ms + self.expert_ms
    }
}

impl<M: Matrix> Perception<M> {
    /// All hidden states that are kept, depths × (task tokens, then action tokens) × width.
    ///
    /// # Errors
    /// Whatever the backend refuses.
    pub fn hidden_to_host(&self) -> Result<Array3<f32>> {
        let (task, action) = self.hidden.first().map_or((0, 0), |h| (h.task.rows(), h.action.rows()));
        let mut out = Array3::zeros((self.hidden.len(), task + action, self.projected.columns()));
        for (hidden, mut out) in self.hidden.iter().zip(out.axis_iter_mut(Axis(0))) {
            out.slice_mut(s![..task, ..]).assign(&hidden.task.to_host()?);
            out.slice_mut(s![task.., ..]).assign(&hidden.action.to_host()?);
        }
        Ok(out)
    }
}

impl Model<Cpu> {
    /// Opens an expert as published: `config.json`, the model's weights or `lora_adapter/` on a base,
    /// `action_head--*.pt`, `proprio_projector--*.pt`. All that a forward needs is read into memory once.
    ///
    /// # Errors
    /// [`PolicyError::Store`] for what cannot be read, [`PolicyError::Checkpoint`] for what is missing or does not fit.
    pub fn open(dir: impl AsRef<Path>, options: &ModelOptions) -> Result<Self> {
        Self::open_on(dir, options, Cpu::new(options.threads, options.precision))
    }
}

impl<B: Backend> Model<B> {
    /// As [`Model::open`], on another backend; `threads` and `precision` of the options are the processor's.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_on(dir: impl AsRef<Path>, options: &ModelOptions, backend: B) -> Result<Self> {
        let dir = dir.as_ref();
        let base = options.base.as_deref();
        let source = ExpertSource::open(dir, base)?;
        let config = ExpertFiles::discover(dir)?.file("config.json");
        let config = config.or_else(|| Some(base?.join("config.json")));
        let config = Config::open(&config.unwrap_or_else(|| dir.join("config.json")))?;
        let expert = ExpertOptions { chunk_len: config.chunk_len, rope: options.rope };
        Self::load(backend, config, &source, expert)
    }

    /// Loads a model's weights from a source onto a backend.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] for what is missing or does not fit, and whatever source or backend refuse.
    pub fn load(backend: B, config: Config, source: &dyn Source, options: ExpertOptions) -> Result<Self> {
        let mut plan = Plan::new(source);
        let names = ["vision_backbone.featurizer", "vision_backbone.fused_featurizer"];
        let towers = config.towers.iter().zip(names);
        let towers = towers.map(|(tower, name)| VisionTower::plan(&mut plan, &config, tower, name));
        let towers = towers.collect::<Result<Vec<_>>>()?;
        if towers.iter().any(|tower| {
            (tower.patches(), tower.image_side()) != (towers[0].patches(), towers[0].image_side())
        }) {
            return Err(
                config.problem("both vision towers must have images and patches of the same size".to_owned())
            );
        }
        let language = LanguageModel::plan(&mut plan, &config)?;
        let width = towers.iter().map(VisionTower::width).sum();
        let projector = Projector::plan(&mut plan, width, language.width())?;
        let [queries, _] = plan.dims("action_queries.weight")?;
        let action_queries =
            plan.add(WeightKind::Table, "action_queries.weight", queries, language.width())?;
        let expert = ActionExpert::plan(&mut plan, options)?;
        if (expert.depth(), expert.width()) != (language.depth(), language.width()) {
            return Err(plan.problem(format!(
                "the action expert has {} blocks of width {}, but the language model {} layers of width {}",
                expert.depth(),
                expert.width(),
                language.depth(),
                language.width()
            )));
        }
        let weights = plan.load(&backend)?;
        Ok(Self { backend, weights, config, towers, projector, language, action_queries, queries, expert })
    }

    /// What `config.json` says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The action expert.
    pub fn expert(&self) -> &ActionExpert<B::Matrix> {
        &self.expert
    }

    /// The weights and the backend that keeps them, to be rewritten for another task. Constants that are made of weights
    /// when a model is opened (the action expert's first activations and its gates) stay as they are: all expert heads are
    /// there from the beginning, and what a task switch rewrites is the vision-language model.
    pub fn weights_mut(&mut self) -> (&mut Weights<B>, &B) {
        (&mut self.weights, &self.backend)
    }

    fn device(&self) -> Device<'_, B> {
        Device { backend: &self.backend, weights: &self.weights }
    }

    /// Images, prompt and state to normalised actions of one expert (0 where there is one).
    ///
    /// # Errors
    /// [`PolicyError::Observation`] for inputs of the wrong size or not finite, and whatever the backend refuses.
    pub fn forward(&self, inputs: Inputs<'_>, expert: usize) -> Result<Forward<B::Matrix>> {
        let [forward] = array(self.forward_all(&[inputs], expert)?);
        Ok(forward)
    }

    /// [`Model::forward`] of several observations: the same values, sooner than one after the other. All have as many images.
    ///
    /// # Errors
    /// As [`Model::forward`], of any of them.
    pub fn forward_all(&self, inputs: &[Inputs<'_>], expert: usize) -> Result<Vec<Forward<B::Matrix>>> {
        for inputs in inputs {
            self.check_proprio(inputs.proprio)?;
            self.check(&inputs.pixel_values, inputs.input_ids)?;
        }
        if let [first, others @ ..] = inputs
            && others.iter().any(|other| other.pixel_values.dim() != first.pixel_values.dim())
        {
            let problem = "pixel_values: observations of one batch have different numbers of images";
            return Err(PolicyError::Observation(problem.to_owned()));
        }
        let threads = self.backend.side_by_side();
        let each = inputs.len().div_ceil(threads.count()).max(1);
        let shares: Vec<_> = inputs.chunks(each).map(|inputs| (inputs, Mutex::new(Vec::new()))).collect();
        threads.for_each(
            shares.len(),
            || (),
            |(), index| {
                let (inputs, forwards) = &shares[index];
                *forwards.lock().unwrap_or_else(PoisonError::into_inner) =
                    self.forward_share(inputs, expert)?;
                Ok::<_, PolicyError>(())
            },
        )?;
        let forwards = shares.into_iter().map(|(_, forwards)| forwards.into_inner());
        Ok(forwards.flat_map(|forwards| forwards.unwrap_or_else(PoisonError::into_inner)).collect())
    }

    /// In products of the rows of all; checked before.
    fn forward_share(&self, inputs: &[Inputs<'_>], expert: usize) -> Result<Vec<Forward<B::Matrix>>> {
        let pixel_values: Vec<_> = inputs.iter().map(|inputs| inputs.pixel_values).collect();
        let prompts: Vec<_> = inputs.iter().map(|inputs| inputs.input_ids).collect();
        let perceptions = self.understand(&self.see(&pixel_values)?, &prompts)?;
        let forwards = perceptions.into_iter().zip(inputs).map(|(perception, inputs)| {
            let (normalized_actions, expert_ms) = self.act(&perception.hidden, inputs.proprio, expert)?;
            let latency = Latency { expert_ms, ..perception.latency };
            Ok(Forward { perception, normalized_actions, latency })
        });
        forwards.collect()
    }

    /// Images and prompt to hidden states.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn perceive(
        &self,
        pixel_values: &ArrayView3<'_, f32>,
        input_ids: &[u32],
    ) -> Result<Perception<B::Matrix>> {
        self.check(pixel_values, input_ids)?;
        let [perception] = array(self.understand(&self.see(&[*pixel_values])?, &[input_ids])?);
        Ok(perception)
    }

    /// Refuses images and prompts that the stages below cannot take.
    pub(crate) fn check(&self, pixel_values: &ArrayView3<'_, f32>, input_ids: &[u32]) -> Result<()> {
        let images = self.check_images(pixel_values)?;
        let patches = images * self.towers[0].patches();
        self.check_prompt(input_ids, Slices::new(patches, input_ids.len(), self.queries).sequence_len())
    }

    /// Number of images.
    fn check_images(&self, pixel_values: &ArrayView3<'_, f32>) -> Result<usize> {
        let (channels, height, width) = pixel_values.dim();
        let (per_image, side) = (CHANNELS * self.towers.len(), self.towers[0].image_side());
        if channels == 0 || channels % per_image != 0 || (height, width) != (side, side) {
            return Err(PolicyError::Observation(format!(
                "pixel_values: shape [{channels}, {height}, {width}], expected [{per_image} · images, {side}, {side}]"
            )));
        }
        if pixel_values.iter().any(|value| !value.is_finite()) {
            return Err(PolicyError::Observation("pixel_values: a value is NaN or infinite".to_owned()));
        }
        Ok(channels / per_image)
    }

    fn check_prompt(&self, input_ids: &[u32], sequence_len: usize) -> Result<()> {
        let fail = |problem| Err(PolicyError::Observation(format!("input_ids: {problem}")));
        if input_ids.is_empty() {
            return fail("the prompt is empty; it has at least one token".to_owned());
        }
        if input_ids.len() > MAX_PROMPT_TOKENS {
            let tokens = input_ids.len();
            return fail(format!(
                "a prompt of {tokens} tokens, but {MAX_PROMPT_TOKENS} are the most that is taken; shorten the instruction"
            ));
        }
        let vocabulary = self.language.vocabulary();
        if let Some(id) = input_ids.iter().find(|&&id| id as usize >= vocabulary) {
            return fail(format!("token {id} is not one of the model's {vocabulary}"));
        }
        match self.config.language.max_positions {
            // The last query and the stop token count, though nobody reads them.
            Some(max) if sequence_len + 2 > max => fail(format!(
                "a prompt of {} tokens makes a sequence of {}, but the model takes {max}; shorten the instruction",
                input_ids.len(),
                sequence_len + 2
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn check_proprio(&self, proprio: &[f32]) -> Result<()> {
        let expected = self.expert.proprio_dim();
        if proprio.len() != expected {
            let problem = format!("proprio: {} values, expected {expected}", proprio.len());
            return Err(PolicyError::Observation(problem));
        }
        if proprio.iter().any(|value| !value.is_finite()) {
            return Err(PolicyError::Observation("proprio: a value is NaN or infinite".to_owned()));
        }
        Ok(())
    }
}

/// What repeated work gave: as many matrices as it says itself.
pub(crate) fn array<M, const N: usize>(matrices: Vec<M>) -> [M; N] {
    matrices.try_into().unwrap_or_else(|_| unreachable!("the work gives {N} matrices"))
}
