use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Ix2};
use skillweld_tensor::{LowRank, TensorView};

use super::config::Config;
use crate::{AdapterProblem, Checkpoint, StoreError};

/// A PEFT LoRA adapter: what it changes, by key of the base model.
#[derive(Debug)]
pub struct Adapter {
    dir: PathBuf,
    config: Config,
    tensors: Checkpoint,
    targets: BTreeMap<String, Target>,
}

/// How an adapter changes one tensor of its base.
#[derive(Debug)]
pub enum AdapterDelta<'a> {
    /// Added to the base: B·A with the scale folded into B, oriented as the base weight is.
    LowRank(LowRank),
    /// Takes the base tensor's place (`modules_to_save`, trained biases).
    Replace(TensorView<'a>),
}

/// Where a target's tensors lie, as keys of the adapter's own file.
#[derive(Debug, Default)]
struct Target {
    a: Option<String>,
    b: Option<String>,
    replace: Option<String>,
    /// The untouched base weight, which peft saves along with adapted embeddings.
    base_layer: Option<String>,
    /// B·A is the transpose of what is added (embeddings, `fan_in_fan_out`).
    transposed: bool,
    scale: f32,
}

/// What one stored name says.
enum Role<'a> {
    Factor { is_a: bool, module: &'a str, embedding: bool },
    Replace { key: String },
    BaseLayer { key: String },
}

impl Adapter {
    /// Opens a directory with `adapter_config.json` and `adapter_model.safetensors` (or `.bin`).
    ///
    /// # Errors
    /// [`StoreError::Adapter`] naming the feature, field or tensor that is not supported or does not fit, and any error
    /// of reading the two files.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let fail = |problem| StoreError::Adapter { dir: dir.to_owned(), problem };
        let path = dir.join("adapter_config.json");
        let text = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
        let fields = serde_json::from_slice(&text).map_err(|source| StoreError::Json { path, source })?;
        let config = Config::parse(&fields).map_err(fail)?;
        let weights = dir.join("adapter_model.safetensors");
        let weights = if weights.exists() { weights } else { dir.join("adapter_model.bin") };
        let tensors = Checkpoint::open(weights)?;
        let targets = targets(&config, &tensors).map_err(fail)?;
        Ok(Self { dir: dir.to_owned(), config, tensors, targets })
    }

    /// The directory that was opened.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The base that the adapter was trained on, as its config names it.
    pub fn base_model(&self) -> Option<&str> {
        self.config.base_model.as_deref()
    }

    /// The adapter's own tensors, for hashes and sizes.
    pub fn tensors(&self) -> &Checkpoint {
        &self.tensors
    }

    /// Keys of the base that the adapter changes, as its training named them, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.targets.keys().map(String::as_str)
    }

    /// Rank of the update of `key`; `None` for a replaced tensor or an untouched key.
    pub fn rank(&self, key: &str) -> Option<usize> {
        let factor = self.targets.get(key)?.a.as_ref()?;
        self.tensors.get(factor)?.shape().first().copied()
    }

    /// What B·A of `key` is multiplied with: alpha / r, or alpha / √r for rsLoRA, with the module's own alpha and rank
    /// where patterns give them; `None` for a replaced tensor or an untouched key.
    pub fn scale(&self, key: &str) -> Option<f32> {
        let target = self.targets.get(key)?;
        target.a.as_ref().map(|_| target.scale)
    }

    /// How `key` (one of [`Adapter::keys`]) changes; `None` for any other. Factors are decoded to f32 at each call.
    ///
    /// # Errors
    /// [`StoreError::Tensor`] for factors of a dtype without arithmetic.
    pub fn delta(&self, key: &str) -> Result<Option<AdapterDelta<'_>>, StoreError> {
        let Some(target) = self.targets.get(key) else { return Ok(None) };
        let view = |name: &Option<String>| name.as_deref().and_then(|name| self.tensors.get(name));
        if let Some(view) = view(&target.replace) {
            return Ok(Some(AdapterDelta::Replace(view)));
        }
        let (Some(a), Some(b)) = (view(&target.a), view(&target.b)) else { return Ok(None) };
        let fail = |source| StoreError::Tensor {
            path: self.tensors.path().to_owned(),
            tensor: key.to_owned(),
            source,
        };
        let (mut a, mut b) = (matrix(&a).map_err(fail)?, matrix(&b).map_err(fail)?);
        if target.transposed {
            // (B·A)ᵀ = Aᵀ·Bᵀ
            (b, a) = (a.reversed_axes(), b.reversed_axes());
        }
        b *= target.scale;
        LowRank::new(b, a).map(|low_rank| Some(AdapterDelta::LowRank(low_rank))).map_err(fail)
    }

    /// Checks every target against `base` and says which stored tensor it is: base key → key of this adapter. The two
    /// differ only where the base stores a tied weight under its other name. A tensor saved whole that the base lacks
    /// (such as `action_queries.weight`, trained from scratch) is added under its own key.
    ///
    /// # Errors
    /// [`StoreError::Adapter`] with [`AdapterProblem::WrongTarget`] for a key that the base lacks (the nearest is
    /// suggested), [`AdapterProblem::TargetShape`], [`AdapterProblem::TiedTarget`], [`AdapterProblem::OtherBase`].
    pub fn check_targets(&self, base: &Checkpoint) -> Result<BTreeMap<String, &str>, StoreError> {
        let mut bound: BTreeMap<String, &str> = BTreeMap::new();
        for (key, target) in &self.targets {
            if target.replace.is_some() && base.resolve(key).is_none() {
                // A module that the base does not have was trained from scratch and saved whole.
                bound.insert(key.clone(), key);
                continue;
            }
            let stored = self
                .check_target(base, key, target)
                .map_err(|problem| StoreError::Adapter { dir: self.dir.clone(), problem })?;
            let Some(stored) = stored else { continue };
            if let Some(other) = bound.insert(stored.to_owned(), key) {
                let problem = AdapterProblem::TiedTarget { target: key.clone(), stored: other.to_owned() };
                return Err(StoreError::Adapter { dir: self.dir.clone(), problem });
            }
        }
        Ok(bound)
    }

    fn check_target<'a>(
        &self,
        base: &'a Checkpoint,
        key: &str,
        target: &Target,
    ) -> Result<Option<&'a str>, AdapterProblem> {
        let wrong_target = || AdapterProblem::WrongTarget {
            target: key.to_owned(),
            base: base.path().to_owned(),
            nearest: skillweld_spelling::nearest(key, base.keys()).map(str::to_owned),
        };
        let stored = base.resolve(key).ok_or_else(wrong_target)?;
        let weight = base.get(stored).ok_or_else(wrong_target)?;
        let view = |name: &Option<String>| name.as_deref().and_then(|name| self.tensors.get(name));
        if let Some(own) = view(&target.base_layer)
            && (own.dtype(), own.shape(), own.bytes()) != (weight.dtype(), weight.shape(), weight.bytes())
        {
            return Err(AdapterProblem::OtherBase { target: key.to_owned() });
        }
        let shape = match (view(&target.replace), view(&target.a), view(&target.b)) {
            // A replaced output head is no longer tied to the embedding, and one tensor cannot be both.
            (Some(_), ..) if stored != key => {
                return Err(AdapterProblem::TiedTarget { target: key.to_owned(), stored: stored.to_owned() });
            }
            (Some(replacement), ..) => replacement.shape().to_vec(),
            (None, Some(a), Some(b)) if target.transposed => vec![a.shape()[1], b.shape()[0]],
            (None, Some(a), Some(b)) => vec![b.shape()[0], a.shape()[1]],
            _ => return Ok(None),
        };
        if shape != weight.shape() {
            return Err(AdapterProblem::TargetShape {
                target: key.to_owned(),
                adapter_shape: shape,
                base_shape: weight.shape().to_vec(),
            });
        }
        Ok(Some(stored))
    }
}

fn matrix(view: &TensorView<'_>) -> Result<Array2<f32>, skillweld_tensor::TensorError> {
    let mismatch = |_| skillweld_tensor::TensorError::ShapeMismatch {
        what: "LoRA factor",
        expected: vec![0, 0],
        actual: view.shape().to_vec(),
    };
    view.to_f32()?.into_dimensionality::<Ix2>().map_err(mismatch)
}

/// Sorts the adapter's tensors by the base key that they change, and checks that factors come in fitting pairs.
fn targets(config: &Config, tensors: &Checkpoint) -> Result<BTreeMap<String, Target>, AdapterProblem> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    for name in tensors.keys() {
        let role = role(name)?;
        let key = match &role {
            Role::Replace { key } | Role::BaseLayer { key } => key.clone(),
            Role::Factor { module, .. } => format!("{module}.weight"),
        };
        let target = targets.entry(key.clone()).or_default();
        let place = match role {
            Role::Replace { .. } => &mut target.replace,
            Role::BaseLayer { .. } => &mut target.base_layer,
            Role::Factor { is_a, module, embedding } => {
                target.transposed = embedding || config.fan_in_fan_out;
                target.scale = config.scale(module);
                if is_a { &mut target.a } else { &mut target.b }
            }
        };
        if let Some(first) = place.replace(name.to_owned()) {
            return Err(AdapterProblem::TwoTensors { target: key, first, second: name.to_owned() });
        }
    }
    for (key, target) in &targets {
        check_factors(config, tensors, key, target)?;
    }
    Ok(targets)
}

fn check_factors(
    config: &Config,
    tensors: &Checkpoint,
    key: &str,
    target: &Target,
) -> Result<(), AdapterProblem> {
    let (a, b) = match (&target.a, &target.b) {
        (None, None) => return Ok(()),
        (Some(a), Some(b)) => (a, b),
        _ => return Err(AdapterProblem::MissingFactor { target: key.to_owned() }),
    };
    if target.replace.is_some() {
        return Err(AdapterProblem::Unsupported {
            feature: format!("both factors and a replacement of `{key}`"),
        });
    }
    let shape = |name: &str| tensors.get(name).map(|view| view.shape().to_vec()).unwrap_or_default();
    let (a_shape, b_shape) = (shape(a), shape(b));
    let rank = config.rank(key.strip_suffix(".weight").unwrap_or(key));
    match (&a_shape[..], &b_shape[..]) {
        ([a_rank, _], [_, b_rank]) if (*a_rank, *b_rank) == (rank, rank) => Ok(()),
        ([_, _], [_, _]) => {
            Err(AdapterProblem::FactorShapes { target: key.to_owned(), a_shape, b_shape, rank })
        }
        _ => {
            Err(AdapterProblem::Unsupported { feature: format!("convolution or vector factors at `{key}`") })
        }
    }
}

/// Reads a stored name: `base_model.model.<module>.lora_A.weight`, the same with an adapter's name before `.weight`, or
/// a whole tensor.
fn role(name: &str) -> Result<Role<'_>, AdapterProblem> {
    let unknown = || AdapterProblem::UnknownTensor { tensor: name.to_owned() };
    let own = name.strip_prefix("base_model.model.").ok_or_else(unknown)?;
    if let Some((module, rest)) = own.split_once(".lora_") {
        let mut parts = rest.split('.');
        let kind = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.collect();
        return match (kind, &rest[..]) {
            ("A", ["weight"] | [_, "weight"]) => Ok(Role::Factor { is_a: true, module, embedding: false }),
            ("B", ["weight"] | [_, "weight"]) => Ok(Role::Factor { is_a: false, module, embedding: false }),
            ("embedding_A", [] | [_]) => Ok(Role::Factor { is_a: true, module, embedding: true }),
            ("embedding_B", [] | [_]) => Ok(Role::Factor { is_a: false, module, embedding: true }),
            ("magnitude_vector", _) => {
                Err(AdapterProblem::Unsupported { feature: format!("DoRA (`{name}`)") })
            }
            (_, [.., "bias"]) => {
                Err(AdapterProblem::Unsupported { feature: format!("lora_bias (`{name}`)") })
            }
            _ => Err(unknown()),
        };
    }
    if own.contains(".token_adapter.") {
        return Err(AdapterProblem::Unsupported { feature: format!("trainable tokens (`{name}`)") });
    }
    if let Some((module, parameter)) = own.split_once(".base_layer.") {
        let key = format!("{module}.{parameter}");
        // A bias is there because it was trained (`bias: lora_only`), a weight because it is an embedding's.
        return Ok(if parameter == "bias" { Role::Replace { key } } else { Role::BaseLayer { key } });
    }
    // Older versions keep the wrapper and the adapter's name in the key.
    let key = match own.split_once(".modules_to_save.") {
        Some((module, rest)) => format!("{module}.{}", rest.strip_prefix("default.").unwrap_or(rest)),
        None => own.to_owned(),
    };
    if key.ends_with(".weight") || key.ends_with(".bias") {
        Ok(Role::Replace { key })
    } else {
        Err(unknown())
    }
}
