//! An expert's files as one [`Source`]: the vision-language model, an adapter on it, the action head, the projector.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use skillweld_linalg::gemm;
use skillweld_store::{Adapter, AdapterDelta, Checkpoint, ExpertFiles, StoreError};
use skillweld_tensor::{Dtype, LowRank, TensorError, TensorView, rounding};

use crate::PolicyError;
use crate::backend::{Result, ValuesMut};
use crate::weights::{Source, SourceTensor};

/// A published expert, opened: nothing is read but headers.
#[derive(Debug)]
pub struct ExpertSource {
    path: PathBuf,
    weights: Option<Checkpoint>,
    adapter: Option<BoundAdapter>,
    /// Action head and projector.
    parts: Vec<Checkpoint>,
    /// Key of this source → where it lies in `parts`.
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    part: usize,
    key: String,
    /// Only this element of a vector that holds one an expert.
    element: Option<usize>,
}

/// An adapter on weights that it has been checked against.
#[derive(Debug)]
struct BoundAdapter {
    adapter: Adapter,
    /// Key of the weights → the adapter's key.
    targets: BTreeMap<String, String>,
    /// The factors that were asked for last: blocks of one tensor are read one after the other.
    last: Mutex<Option<(String, Arc<LowRank>)>>,
}

/// A tensor of an expert.
struct ExpertTensor<'a> {
    stored: TensorView<'a>,
    form: Form<'a>,
    /// For errors.
    path: &'a Path,
    key: String,
}

/// What a stored tensor's values are.
enum Form<'a> {
    /// The tensor asked for.
    Whole,
    /// What the adapter's product for a target is added to.
    Adapted(&'a BoundAdapter, &'a str),
    /// One a task, of which this is asked for.
    Element(usize),
}

impl ExpertSource {
    /// Opens a directory as training leaves it: the model's weights, or `lora_adapter/` alone on the weights in `base`;
    /// `action_head--*.pt` and `proprio_projector--*.pt`. Where both weights and adapter are there the weights count:
    /// published checkpoints keep the adapter that is already merged into them.
    ///
    /// # Errors
    /// Any error of reading, [`PolicyError::Checkpoint`] when a part or the base is missing.
    pub fn open(dir: &Path, base: Option<&Path>) -> Result<Self> {
        let problem =
            |problem: &str| PolicyError::Checkpoint { path: dir.to_owned(), problem: problem.to_owned() };
        let files = ExpertFiles::discover(dir)?;
        let adapter =
            if dir.join("adapter_config.json").is_file() { Some(dir) } else { files.lora_adapter() };
        let (weights, adapter) = match Checkpoint::open(dir) {
            Ok(weights) => (weights, None),
            Err(StoreError::NoWeights { .. } | StoreError::OnlyAdapter { .. }) if adapter.is_some() => {
                let base = base.ok_or_else(|| {
                    problem("holds an adapter without the weights that it was trained on; name their folder as base (`--base DIR`)")
                })?;
                (Checkpoint::open(base)?, adapter)
            }
            Err(error) => return Err(error.into()),
        };
        let adapter = adapter.map(|dir| BoundAdapter::open(dir, &weights)).transpose()?;
        let head =
            files.action_head()?.ok_or_else(|| problem("holds no action_head--*.pt; an expert has one"))?;
        let projector = files
            .proprio_projector()?
            .ok_or_else(|| problem("holds no proprio_projector--*.pt; an expert has one"))?;
        let mut source = Self::of_head(dir, head, projector);
        (source.weights, source.adapter) = (Some(weights), adapter);
        Ok(source)
    }

    /// An action head and a projector without a vision-language model; `path` is for errors. The head is an expert's own or
    /// a merged one as the published code writes it, with `mlp_resnet_moe_blocks` and `….experts.<index>.…`.
    pub fn of_head(path: &Path, head: Checkpoint, projector: Checkpoint) -> Self {
        let mut places = BTreeMap::new();
        let shared =
            (0..).take_while(|index| head.get(&format!("{BLOCKS}.{index}.o_proj.weight")).is_some()).count();
        for key in head.keys() {
            let elements = head.get(key).map_or(0, |view| view.numel());
            for (name, element) in canonical(key, shared, elements) {
                places.insert(name, Place { part: 0, key: key.to_owned(), element });
            }
        }
        for key in projector.keys() {
            let place = Place { part: 1, key: key.to_owned(), element: None };
            places.insert(format!("proprio_projector.{key}"), place);
        }
        let parts = vec![head, projector];
        Self { path: path.to_owned(), weights: None, adapter: None, parts, places }
    }

    fn find(&self, key: &str) -> Option<(TensorView<'_>, Form<'_>)> {
        if let Some(place) = self.places.get(key) {
            let view = self.parts[place.part].get(&place.key)?;
            return Some((view, place.element.map_or(Form::Whole, Form::Element)));
        }
        let weights = self.weights.as_ref()?;
        let stored_key = weights.resolve(key);
        let stored = stored_key.and_then(|key| weights.get(key));
        let target = self.adapter.as_ref().and_then(|bound| {
            let target = bound.targets.get(key).or_else(|| bound.targets.get(stored_key?))?;
            Some((bound, target.as_str()))
        });
        let form = match target {
            None => Form::Whole,
            Some((bound, target)) if bound.adapter.rank(target).is_some() => Form::Adapted(bound, target),
            Some((bound, target)) => match bound.adapter.delta(target).ok()? {
                Some(AdapterDelta::Replace(view)) => return Some((view, Form::Whole)),
                _ => Form::Whole,
            },
        };
        Some((stored?, form))
    }
}

const BLOCKS: &str = "model.mlp_resnet_blocks";
const HEAD_BLOCKS: &str = "model.mlp_resnet_moe_blocks.";

/// Names under which a tensor of a head's file is asked for, and which of its elements: one name, but for a vector of
/// gates of a merged head. `shared` is the number of blocks that all experts share.
fn canonical(key: &str, shared: usize, elements: usize) -> Vec<(String, Option<usize>)> {
    let mut name = key.to_owned();
    if let Some((index, rest)) = key.strip_prefix(HEAD_BLOCKS).and_then(|rest| rest.split_once('.'))
        && let Ok(index) = index.parse::<usize>()
    {
        name = format!("{BLOCKS}.{}.{rest}", shared + index);
        if rest == "gating_factor" {
            let own = |expert| (format!("experts/{expert}/action_head.{name}"), Some(expert));
            return (0..elements).map(own).collect();
        }
    }
    if let Some((module, rest)) = name.split_once(".experts.")
        && let Some((expert, parameter)) = rest.split_once('.')
        && expert.parse::<usize>().is_ok()
    {
        return vec![(format!("experts/{expert}/action_head.{module}.{parameter}"), None)];
    }
    vec![(format!("action_head.{name}"), None)]
}

impl Source for ExpertSource {
    fn tensor<'a>(&'a self, key: &str) -> Option<Box<dyn SourceTensor + 'a>> {
        let (stored, form) = self.find(key)?;
        Some(Box::new(ExpertTensor { stored, form, path: &self.path, key: key.to_owned() }))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl SourceTensor for ExpertTensor<'_> {
    fn shape(&self) -> Vec<usize> {
        match self.form {
            Form::Element(_) => vec![1],
            Form::Whole | Form::Adapted(..) => self.stored.shape().to_vec(),
        }
    }

    fn dtype(&self) -> Dtype {
        self.stored.dtype()
    }

    fn read(&self, offset: usize, out: ValuesMut<'_>) -> Result<()> {
        let offset = if let Form::Element(element) = self.form { element } else { offset };
        match (out, &self.form) {
            (ValuesMut::F32(out), _) => self.read_f32(offset, out)?,
            (ValuesMut::Bf16(out), Form::Adapted(..)) => {
                let mut sums = vec![0.0; out.len()];
                self.read_f32(offset, &mut sums)?;
                rounding::to_bf16(&sums, out);
            }
            (ValuesMut::Bf16(out), _) => {
                self.stored.decode_block_bf16(offset, out).map_err(|error| self.fail(error))?;
            }
        }
        Ok(())
    }
}

impl ExpertTensor<'_> {
    fn read_f32(&self, offset: usize, out: &mut [f32]) -> Result<()> {
        self.stored.decode_block(offset, out).map_err(|error| self.fail(error))?;
        if let Form::Adapted(bound, target) = self.form
            && let Some(factors) = bound.factors(target)?
        {
            add_product(&factors, offset, out);
        }
        Ok(())
    }

    fn fail(&self, source: TensorError) -> StoreError {
        StoreError::Tensor { path: self.path.to_owned(), tensor: self.key.clone(), source }
    }
}

impl BoundAdapter {
    fn open(dir: &Path, weights: &Checkpoint) -> Result<Self> {
        let adapter = Adapter::open(dir)?;
        let targets = adapter.check_targets(weights)?;
        let targets = targets.into_iter().map(|(key, target)| (key, target.to_owned())).collect();
        Ok(Self { adapter, targets, last: Mutex::new(None) })
    }

    fn factors(&self, target: &str) -> Result<Option<Arc<LowRank>>> {
        let lock = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, factors)) = lock().as_ref().filter(|(key, _)| key == target) {
            return Ok(Some(Arc::clone(factors)));
        }
        let Some(AdapterDelta::LowRank(factors)) = self.adapter.delta(target)? else { return Ok(None) };
        let factors = Arc::new(factors);
        *lock() = Some((target.to_owned(), Arc::clone(&factors)));
        Ok(Some(factors))
    }
}

/// out += (B·A)\[offset ..\], the product flattened row by row.
fn add_product(factors: &LowRank, offset: usize, out: &mut [f32]) {
    let [_, n] = factors.shape();
    // Row-major without gaps: `LowRank` keeps both factors so.
    let (Some(b), Some(a), false) = (factors.b().as_slice(), factors.a().as_slice(), out.is_empty()) else {
        return;
    };
    let (first, end) = (offset / n, (offset + out.len()).div_ceil(n));
    let (m, k) = (end - first, factors.rank());
    let mut rows = vec![0.0; m * n];
    gemm(1.0, &b[first * k..end * k], a, &mut rows, (m, k, n));
    let product = &rows[offset - first * n..];
    out.iter_mut().zip(product).for_each(|(value, product)| *value += product);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;

    #[test]
    fn names_of_a_merged_head() {
        let one = |name: &str| vec![(name.to_owned(), None)];
        assert_eq!(canonical("model.fc1.weight", 23, 9), one("action_head.model.fc1.weight"));
        assert_eq!(canonical("model.fc2.experts.1.bias", 23, 9), one("experts/1/action_head.model.fc2.bias"));
        assert_eq!(
            canonical("model.mlp_resnet_moe_blocks.0.ffn.0.experts.1.weight", 23, 9),
            one("experts/1/action_head.model.mlp_resnet_blocks.23.ffn.0.weight")
        );
        let gate = |expert: usize| {
            (format!("experts/{expert}/action_head.model.mlp_resnet_blocks.24.gating_factor"), Some(expert))
        };
        assert_eq!(canonical("model.mlp_resnet_moe_blocks.1.gating_factor", 23, 2), vec![gate(0), gate(1)]);
    }

    proptest! {
        #[test]
        fn any_block_of_a_product_is_added(
            (m, r, n) in (1..9usize, 1..4usize, 1..9usize), cut in 0.0..1.0f64, end in 0.0..1.0f64,
        ) {
            // Small integers: every product and sum is exact, so the comparison is too.
            let value = |i: usize| ((i * 31) % 11) as f32 - 5.0;
            let b = Array2::from_shape_fn((m, r), |(i, j)| value(i * r + j));
            let a = Array2::from_shape_fn((r, n), |(i, j)| value(100 + i * n + j));
            let factors = LowRank::new(b, a).unwrap();
            let whole: Vec<f32> = factors.to_dense().into_iter().collect();
            let offset = (cut * (m * n) as f64) as usize;
            let len = (end * (m * n - offset) as f64).ceil() as usize;
            let mut out = vec![0.5; len];
            add_product(&factors, offset, &mut out);
            let expected: Vec<f32> = whole[offset..offset + len].iter().map(|x| x + 0.5).collect();
            prop_assert_eq!(out, expected);
        }
    }
}
