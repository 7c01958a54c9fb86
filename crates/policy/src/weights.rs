//! Weights by key: a plan says which ones a model needs, a source gives their values, a backend keeps them.
//!
//! Layers hold [`WeightId`]s, not weights, so that the values can be rewritten in place (another task's) without anybody
//! else noticing, and no value is ever held twice.

use std::collections::BTreeMap;
use std::ops::Index;
use std::path::Path;

use skillweld_tensor::Dtype;

use crate::PolicyError;
use crate::backend::{Backend, Result, ValuesMut, WeightKind};

/// Where the values of weights come from: an expert's files, or a merged checkpoint seen through one task's mask.
///
/// Keys are those of the published checkpoints. The action expert's have `action_head.` in front of the names in its file,
/// the proprio projector's `proprio_projector.`; what belongs to one expert head alone has `experts/<index>/` before that.
pub trait Source: Sync {
    /// A tensor; `None` when there is no such one.
    fn tensor<'a>(&'a self, key: &str) -> Option<Box<dyn SourceTensor + 'a>>;

    /// What is read, for errors.
    fn path(&self) -> &Path;
}

/// A tensor of a [`Source`].
pub trait SourceTensor: Sync {
    /// Dimensions, outermost first.
    fn shape(&self) -> Vec<usize>;

    /// The dtype that it is stored in.
    fn dtype(&self) -> Dtype;

    /// Elements from `offset` of the flattened tensor on, as many as there is room for.
    ///
    /// # Errors
    /// Values that cannot be read.
    fn read(&self, offset: usize, out: ValuesMut<'_>) -> Result<()>;
}

/// A weight of [`Weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightId(usize);

/// What a model needs of a source, each checked to be there in the right shape.
pub struct Plan<'a> {
    source: &'a dyn Source,
    entries: Vec<PlannedWeight>,
    by_key: BTreeMap<String, WeightId>,
}

struct PlannedWeight {
    key: String,
    kind: WeightKind,
    rows: usize,
    columns: usize,
}

/// A linear layer's weight, out × in, and bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) weight: WeightId,
    pub(crate) bias: Option<WeightId>,
}

/// A LayerNorm's gain and bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm {
    pub(crate) gain: WeightId,
    pub(crate) bias: WeightId,
}

impl<'a> Plan<'a> {
    /// An empty plan.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, entries: Vec::new(), by_key: BTreeMap::new() }
    }

    /// Where values come from.
    pub fn source(&self) -> &'a dyn Source {
        self.source
    }

    /// The error that something is wrong with what is read.
    pub fn problem(&self, problem: impl Into<String>) -> PolicyError {
        PolicyError::Checkpoint { path: self.source.path().to_owned(), problem: problem.into() }
    }

    /// True when the source has this tensor.
    pub fn has(&self, key: &str) -> bool {
        self.source.tensor(key).is_some()
    }

    /// Dimensions of a tensor that must be there.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] when it is missing.
    pub fn shape(&self, key: &str) -> Result<Vec<usize>> {
        Ok(self.tensor(key)?.shape())
    }

    fn tensor(&self, key: &str) -> Result<Box<dyn SourceTensor + 'a>> {
        let missing = || self.problem(format!("tensor `{key}` is missing: not a whole Prismatic checkpoint"));
        self.source.tensor(key).ok_or_else(missing)
    }

    /// Dimensions of a tensor that must have N of them.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] when it is missing or has another number.
    pub fn dims<const N: usize>(&self, key: &str) -> Result<[usize; N]> {
        let shape = self.shape(key)?;
        let wrong = |shape| self.problem(format!("tensor `{key}`: expected {N} dimensions, got {shape:?}"));
        shape.try_into().map_err(wrong)
    }

    /// How many of `<prefix>N<suffix>` there are, N counting from `first`.
    pub fn count(&self, prefix: &str, first: usize, suffix: &str) -> usize {
        (first..).take_while(|index| self.has(&format!("{prefix}{index}{suffix}"))).count()
    }

    /// Adds a weight whose elements make `rows` × `columns`, however it is shaped beyond its first dimension.
    ///
    /// # Errors
    /// [`PolicyError::Checkpoint`] when it is missing, of another size, or of a dtype without arithmetic.
    pub fn add(&mut self, kind: WeightKind, key: &str, rows: usize, columns: usize) -> Result<WeightId> {
        if let Some(&id) = self.by_key.get(key) {
            return Ok(id);
        }
        let tensor = self.tensor(key)?;
        let (shape, dtype) = (tensor.shape(), tensor.dtype());
        let fits = match kind {
            WeightKind::Vector => rows == 1 && shape == [columns],
            WeightKind::Matrix | WeightKind::TrunkMatrix => {
                shape.first() == Some(&rows) && shape.iter().product::<usize>() == rows * columns
            }
            WeightKind::Table => {
                shape.last() == Some(&columns) && shape.iter().product::<usize>() == rows * columns
            }
        };
        if !fits {
            let expected = if kind == WeightKind::Vector { vec![columns] } else { vec![rows, columns] };
            return Err(self.problem(format!("tensor `{key}` has shape {shape:?}, expected {expected:?}")));
        }
        if !dtype.is_computable() {
            return Err(self.problem(format!("tensor `{key}` is {dtype}: store it as BF16, F16 or F32")));
        }
        let id = WeightId(self.entries.len());
        self.entries.push(PlannedWeight { key: key.to_owned(), kind, rows, columns });
        self.by_key.insert(key.to_owned(), id);
        Ok(id)
    }

    pub(crate) fn vector(&mut self, key: &str, len: usize) -> Result<WeightId> {
        self.add(WeightKind::Vector, key, 1, len)
    }

    /// `<name>.weight`, `out` × `input`, and `<name>.bias` where the source has one.
    pub(crate) fn linear(&mut self, name: &str, out: usize, input: usize) -> Result<Linear> {
        let weight = self.add(WeightKind::Matrix, &format!("{name}.weight"), out, input)?;
        let bias = format!("{name}.bias");
        let bias = if self.has(&bias) { Some(self.vector(&bias, out)?) } else { None };
        Ok(Linear { weight, bias })
    }

    /// `<name>.weight` and `<name>.bias` of a LayerNorm.
    pub(crate) fn layer_norm(&mut self, name: &str, width: usize) -> Result<LayerNorm> {
        let gain = self.vector(&format!("{name}.weight"), width)?;
        Ok(LayerNorm { gain, bias: self.vector(&format!("{name}.bias"), width)? })
    }

    /// A whole tensor in f32, for what is computed once when a model is opened.
    pub(crate) fn values(&self, key: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(key)?;
        let mut values = vec![0.0; tensor.shape().iter().product()];
        tensor.read(0, ValuesMut::F32(&mut values))?;
        Ok(values)
    }

    /// Loads everything planned.
    ///
    /// # Errors
    /// Whatever backend or source refuse.
    pub fn load<B: Backend>(self, backend: &B) -> Result<Weights<B>> {
        let allocate = |planned: PlannedWeight| {
            let storage = backend.allocate(planned.kind, planned.rows, planned.columns)?;
            Ok(Entry { key: planned.key, storage })
        };
        let entries = self.entries.into_iter().map(allocate).collect::<Result<_>>()?;
        let mut weights = Weights { entries };
        weights.rewrite(backend, self.source, |_| true)?;
        Ok(weights)
    }
}

/// All weights of a model, on a backend.
pub struct Weights<B: Backend> {
    entries: Vec<Entry<B::Weight>>,
}

struct Entry<W> {
    key: String,
    storage: W,
}

impl<B: Backend> Weights<B> {
    /// Every key, in the order in which the model uses them.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// Every key with its storage, to be written in place.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut B::Weight)> {
        self.entries.iter_mut().map(|entry| (entry.key.as_str(), &mut entry.storage))
    }

    /// Overwrites the weights that `wanted` picks with the values of `source`, in place, blockwise and in parallel. This
    /// is how a task is switched: shapes are those of the source that the model was opened with.
    ///
    /// # Errors
    /// Whatever backend or source refuse; weights are then partly written, and must be rewritten before use.
    pub fn rewrite(&mut self, backend: &B, source: &dyn Source, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let (mut tensors, mut storage) = (Vec::new(), Vec::new());
        for (key, weight) in self.iter_mut().filter(|(key, _)| wanted(key)) {
            let missing = || PolicyError::Checkpoint {
                path: source.path().to_owned(),
                problem: format!("tensor `{key}` is missing"),
            };
            tensors.push(source.tensor(key).ok_or_else(missing)?);
            storage.push(weight);
        }
        backend.write(&mut storage, &|index, offset, out| tensors[index].read(offset, out))
    }
}

impl<B: Backend> Index<WeightId> for Weights<B> {
    type Output = B::Weight;

    fn index(&self, id: WeightId) -> &B::Weight {
        &self.entries[id.0].storage
    }
}

/// A backend with a model's weights: what layers compute with.
pub struct Device<'a, B: Backend> {
    /// Runs the operations.
    pub backend: &'a B,
    /// Read by the operations.
    pub weights: &'a Weights<B>,
}

impl<B: Backend> Clone for Device<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Device<'_, B> {}

impl<'a, B: Backend> Device<'a, B> {
    /// The storage of a weight.
    pub(crate) fn weight(self, id: WeightId) -> &'a B::Weight {
        &self.weights[id]
    }

    pub(crate) fn linear(
        self,
        x: &B::Matrix,
        layer: Linear,
        then: crate::backend::Then<'_, B>,
    ) -> Result<B::Matrix> {
        let bias = layer.bias.map(|bias| self.weight(bias));
        self.backend.linear(x, self.weight(layer.weight), bias, then)
    }

    pub(crate) fn layer_norm(self, x: &B::Matrix, norm: LayerNorm, epsilon: f32) -> Result<B::Matrix> {
        self.backend.layer_norm(x, self.weight(norm.gain), self.weight(norm.bias), epsilon)
    }
}
