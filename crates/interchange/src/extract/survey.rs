//! What changed between base and fine-tune, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use skillweld_merge::Control;
use skillweld_merged::layout::BLOCK;
use skillweld_store::Checkpoint;
use skillweld_tensor::TensorView;

use super::{ExtractOptions, Others};
use crate::InterchangeError;

/// One tensor of the fine-tune beside the base's.
#[derive(Debug)]
pub(crate) struct Surveyed<'a> {
    pub(crate) key: &'a str,
    /// `None` for a tensor that the base does not have.
    pub(crate) base: Option<TensorView<'a>>,
    pub(crate) tuned: TensorView<'a>,
    /// ‖τ‖; `None` without arithmetic or without a base.
    pub(crate) norm: Option<f64>,
    pub(crate) fate: Fate,
}

/// What becomes of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The base has it as it is.
    Unchanged,
    /// Factors.
    Adapt,
    /// Saved whole.
    Save,
    /// Changed, and not in the adapter.
    LeaveOut(&'static str),
}

const ASKED: &str = "no linear weight";
const TIED: &str = "tied to another tensor, and peft would part the two";
const BARE: &str = "a parameter of its own, neither weight nor bias of a module, which peft cannot hold";
const NO_ARITHMETIC: &str = "its dtype has no arithmetic";

/// Elements that [`survey`] and the decompositions after it tell `Control::advance`.
pub(crate) fn work(base: &Checkpoint, finetuned: &Checkpoint) -> u64 {
    let tuned = finetuned.keys().filter_map(|key| finetuned.get(key).map(|view| (key, view)));
    tuned
        .filter(|(key, _)| base.resolve(key).is_some())
        .map(|(key, view)| view.numel() as u64 * if is_linear(key, view.shape()) { 2 } else { 1 })
        .sum()
}

/// Compares all tensors, by key of the fine-tune.
pub(crate) fn survey<'a>(
    base: &'a Checkpoint,
    finetuned: &'a Checkpoint,
    options: &ExtractOptions,
    control: &Control<'_>,
) -> Result<Vec<Surveyed<'a>>, InterchangeError> {
    let mut tensors = pair(base, finetuned)?;
    let norms: Vec<Mutex<Option<f64>>> = tensors.iter().map(|_| Mutex::default()).collect();
    control.threads.for_each(tensors.len(), <[Vec<f32>; 2]>::default, |buffers, i| {
        control.check()?;
        let norm = norm(&tensors[i], buffers, control)?;
        *norms[i].lock().unwrap_or_else(PoisonError::into_inner) = norm;
        Ok::<_, InterchangeError>(())
    })?;
    for (tensor, norm) in tensors.iter_mut().zip(norms) {
        tensor.norm = norm.into_inner().unwrap_or_else(PoisonError::into_inner);
    }
    let tied: BTreeSet<&str> =
        [base, finetuned].iter().flat_map(|model| model.aliases()).flat_map(|(a, b)| [a, b]).collect();
    for tensor in &mut tensors {
        tensor.fate = fate(tensor, &tied);
    }
    save_whole_modules(&mut tensors);
    for tensor in tensors.iter_mut().filter(|tensor| tensor.fate == Fate::Save && has_changed(tensor)) {
        match options.others {
            Others::Save => {}
            Others::LeaveOut => tensor.fate = Fate::LeaveOut(ASKED),
            Others::Refuse => {
                let text = "has changed and is no linear weight; choose what becomes of such tensors with `--others save` \
                            or `--others leave-out`";
                return Err(InterchangeError::key(tensor.key, text));
            }
        }
    }
    if options.others == Others::LeaveOut {
        tensors.iter_mut().filter(|tensor| tensor.fate == Fate::Save).for_each(|t| t.fate = Fate::Unchanged);
    }
    check_rank(&tensors, options.rank)?;
    if !tensors.iter().any(|tensor| tensor.fate == Fate::Adapt) {
        let problem = match tensors.iter().any(has_changed) {
            false => {
                format!("holds the same weights as {}; there is nothing to extract", base.path().display())
            }
            true => {
                "differs from the base in no linear weight, and peft loads no adapter without one".to_owned()
            }
        };
        return Err(InterchangeError::unfit(finetuned.path(), problem));
    }
    Ok(tensors)
}

/// Every tensor of the fine-tune with the base's; shapes fit, and nothing is missing.
fn pair<'a>(base: &'a Checkpoint, finetuned: &'a Checkpoint) -> Result<Vec<Surveyed<'a>>, InterchangeError> {
    if let Some(key) = base.keys().find(|key| finetuned.resolve(key).is_none()) {
        let problem = format!(
            "is in {} but not in {}; both must be whole models of one kind",
            base.path().display(),
            finetuned.path().display()
        );
        return Err(InterchangeError::key(key, problem));
    }
    let mut tensors = Vec::with_capacity(finetuned.len());
    for key in finetuned.keys() {
        let Some(tuned) = finetuned.get(key) else { continue };
        let stored = base.resolve(key).and_then(|key| base.get(key));
        if let Some(stored) = stored.filter(|stored| stored.shape() != tuned.shape()) {
            let problem = format!(
                "has shape {:?} in the base and {:?} in the fine-tune; they must be models of one shape",
                stored.shape(),
                tuned.shape()
            );
            return Err(InterchangeError::key(key, problem));
        }
        tensors.push(Surveyed { key, base: stored, tuned, norm: None, fate: Fate::Unchanged });
    }
    Ok(tensors)
}

/// ‖τ‖, block by block.
fn norm(
    tensor: &Surveyed<'_>,
    [stored, values]: &mut [Vec<f32>; 2],
    control: &Control<'_>,
) -> Result<Option<f64>, InterchangeError> {
    let Surveyed { key, base: Some(base), tuned, .. } = tensor else { return Ok(None) };
    if !(base.dtype().is_computable() && tuned.dtype().is_computable()) {
        (control.advance)(tuned.numel() as u64);
        return Ok(None);
    }
    let mut energy = 0.0;
    for start in (0..tuned.numel()).step_by(BLOCK) {
        let len = BLOCK.min(tuned.numel() - start);
        stored.resize(len, 0.0);
        values.resize(len, 0.0);
        for (model, view, out) in [("base", base, &mut *stored), ("fine-tune", tuned, &mut *values)] {
            if !view.decode_block(start, out).map_err(InterchangeError::tensor(key))? {
                let first = out.iter().position(|x| !x.is_finite()).unwrap_or(0);
                let problem = format!(
                    "the {model} holds NaN or infinity, first at element {}; repair that checkpoint",
                    start + first
                );
                return Err(InterchangeError::key(key, problem));
            }
        }
        let squares = values.iter().zip(&*stored).map(|(t, b)| f64::from(t - b).powi(2));
        energy += squares.sum::<f64>();
    }
    (control.advance)(tuned.numel() as u64);
    Ok(Some(energy.sqrt()))
}

fn has_changed(tensor: &Surveyed<'_>) -> bool {
    match (&tensor.base, tensor.norm) {
        (None, _) => true,
        (Some(_), Some(norm)) => norm > 0.0,
        (Some(base), None) => (base.dtype(), base.bytes()) != (tensor.tuned.dtype(), tensor.tuned.bytes()),
    }
}

fn fate(tensor: &Surveyed<'_>, tied: &BTreeSet<&str>) -> Fate {
    if !has_changed(tensor) {
        return Fate::Unchanged;
    }
    if tied.contains(tensor.key) {
        return Fate::LeaveOut(TIED);
    }
    if tensor.base.is_some() && tensor.norm.is_none() {
        return Fate::LeaveOut(NO_ARITHMETIC);
    }
    if tensor.base.is_some() && is_linear(tensor.key, tensor.tuned.shape()) {
        return Fate::Adapt;
    }
    if module(tensor.key).is_some() { Fate::Save } else { Fate::LeaveOut(BARE) }
}

/// `modules_to_save` takes whole modules: what belongs to one that is saved is saved too. A trained bias beside a linear
/// weight is saved alone.
fn save_whole_modules(tensors: &mut [Surveyed<'_>]) {
    let linear: BTreeMap<&str, bool> =
        tensors.iter().map(|t| (t.key, is_linear(t.key, t.tuned.shape()))).collect();
    let beside_linear = |key: &str| {
        let weight = key.strip_suffix(".bias").map(|module| format!("{module}.weight"));
        weight.is_some_and(|weight| linear.get(weight.as_str()).copied().unwrap_or(false))
    };
    let saved: BTreeSet<&str> = tensors
        .iter()
        .filter(|tensor| tensor.fate == Fate::Save && !beside_linear(tensor.key))
        .filter_map(|tensor| module(tensor.key))
        .collect();
    for tensor in tensors.iter_mut().filter(|tensor| tensor.fate == Fate::Unchanged) {
        if module(tensor.key).is_some_and(|module| saved.contains(module)) {
            tensor.fate = Fate::Save;
        }
    }
}

/// The module whose weight or bias a key is.
pub(crate) fn module(key: &str) -> Option<&str> {
    key.strip_suffix(".weight").or_else(|| key.strip_suffix(".bias"))
}

/// A matrix that a linear layer multiplies with, by name and shape: no embedding, which is a table.
pub(crate) fn is_linear(key: &str, shape: &[usize]) -> bool {
    const TABLES: [&str; 4] = ["wte", "wpe", "shared", "action_queries"];
    let Some(module) = key.strip_suffix(".weight") else { return false };
    let name = module.rsplit('.').next().unwrap_or(module);
    shape.len() == 2 && !shape.contains(&0) && !name.contains("embed") && !TABLES.contains(&name)
}

fn check_rank(tensors: &[Surveyed<'_>], rank: usize) -> Result<(), InterchangeError> {
    let linear = tensors.iter().filter(|tensor| is_linear(tensor.key, tensor.tuned.shape()));
    let largest = linear.max_by_key(|tensor| smaller_side(tensor.tuned.shape()));
    let problem = match largest {
        _ if rank == 0 => "an adapter has at least rank 1".to_owned(),
        Some(tensor) if rank > smaller_side(tensor.tuned.shape()) => format!(
            "no weight has so many singular values; `{}`, the largest, has {}",
            tensor.key,
            smaller_side(tensor.tuned.shape())
        ),
        _ => return Ok(()),
    };
    Err(InterchangeError::Rank { rank, problem })
}

/// min(m, n).
pub(crate) fn smaller_side(shape: &[usize]) -> usize {
    shape.iter().copied().min().unwrap_or(0)
}
