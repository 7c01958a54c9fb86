//! Recipes: which experts are merged, and how, as YAML.
//!
//! A recipe that mergekit takes runs here unchanged if its models are local paths and its method is installed. What is
//! read differently is refused by name rather than skipped: mergekit passes over fields and parameters it does not know.
//! Parsing touches no file and no plugin: [`Recipe::check_parameters`] compares parameter names with the method's,
//! [`Recipe::locate`] looks for the models.
//!
//! # What mergekit does
//!
//! Learnt by running mergekit 0.1.5 on models of a few small layers whose weights say where they came from. The tests
//! in `tests/recipe_mergekit.rs` repeat these facts as numbers.
//!
//! **Gradients.** A list of k values stands at k equally spaced points from the first layer to the last and is
//! interpolated linearly for numbers; for booleans and words it is steps, each anchor lasting until the next. A slice of
//! n layers counts for itself: its layer i lies at i/(n−1), at every level, so that a gradient among the global
//! parameters begins anew in each slice. The only layer of a one-layer slice lies at 1. Keys outside layers
//! (embeddings, final norm, output head) lie at 0: they take the *first* value, the final norm too.
//!
//! **Filters** are plain text, looked for anywhere in the tensor's name, capitals distinguished; no pattern. `*`, an
//! empty filter and none hold for every key. The first rule that holds decides, so a rule without filter hides those
//! after it. If none holds, the next level is asked. Parameters per model see the tensor's name in *that* model, those
//! of the whole merge its name in the *output*: they differ where slices renumber layers.
//!
//! **Levels**, strongest first: source (or model), slice, module, global. (Ours asks `groups` between slice and
//! module.) mergekit ignores a parameter of the whole merge that is set on one model; so it is here, with a warning, for
//! those that mergekit has (`normalize`, `rescale`, `lambda`, `t`), and refused for our own.
//!
//! **Types.** `true` counts as 1 and `"0.5"` as 0.5 for a number; 0, 1, `yes`, `no`, `on`, `off`, `true`, `false` as
//! text count as booleans. An empty list counts as no value there and is refused here, as is NaN.
//!
//! **Slices** are stacked in order and layers renumbered from 0. Embeddings come from the first slice, final norm and
//! output head from the last, each with the parameters of its slice. Ranges that are empty or reversed give models
//! without layers there and are refused here.
//!
//! **Base.** In the `models` form a `base_model` that is not listed joins the models: methods without base (`linear`)
//! then ask a weight of it too, `slerp` counts it as one of its two, `passthrough` has one too many. In the `slices`
//! form it has to be among the sources for methods that need one, and is left out otherwise. Parameters on the base
//! itself are ignored by methods that measure from it. The same model twice in one list is refused. `nuslerp` and
//! `multislerp` measure from a base if the recipe names one, and take the models as they are if not; to `karcher` a base
//! is one more model, in the `models` form; `model_stock`, `nearswap` and `arcee_fusion` need one, and the last two exactly
//! one model besides.
//!
//! **Model references.** One `+` parts model and adapter, more are refused; the mapping form
//! `{model: {path: …}, lora: {path: …}}` takes paths literally, so it is the way to write a path with a `+`. A part
//! after `@` is a revision there; here models are local and `@` belongs to the path.
//!
//! **Thinning**, found in `f32` outputs of random models; `tests/mergekit_values.rs` repeats it as numbers:
//!
//! | method | `density` | `rescale` | here |
//! |---|---|---|---|
//! | `task_arithmetic` | no effect | no effect | the same, with a warning |
//! | `ties` | keeps the max(1, ⌊density·n⌋) largest of each tensor | false by default; true scales what is kept of each tensor and expert to the Σ\|τ\| it had, before weights, signs and `normalize` | the same |
//! | `dare_linear`, `dare_ties` | chance of each entry to be kept | true by default; means what it means for `ties`, not 1/density | true divides by the density, as the paper; with `rescale_by: norm` the same, for a second pass over the data |
//!
//! Nothing is rescaled where nothing is kept. mergekit also leaves alone what is kept if its Σ|τ| is below about 10⁻⁷;
//! Skillweld has no such unit of size. `rescale` may be a gradient or a list with filters; on one model mergekit ignores
//! it. `rescale_norm` has no effect on any of these methods there, `gamma` and `epsilon` none on `task_arithmetic`; here
//! they are refused.
//!
//! Which of several entries as large as the smallest kept one `ties` keeps is fixed by PyTorch's *unstable* descending
//! sort of the whole flattened |τ| (2.15 on the CPU): the same in every run, at any number of threads and instruction
//! set, but neither the first nor the last of the equal ones, nor anything that a block could know by itself. Skillweld
//! keeps as many, chosen by their place in the tensor.
//!
//! **`modules`** with `default` alone equals its contents written at the top level, its parameters ranking above the
//! global ones.

mod decimal;
mod documents;
mod draft;
mod error;
mod extensions;
mod fields;
mod layers;
mod lookup;
mod models;
mod parameters;
mod router;
mod slices;
mod tokenizer;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use skillweld_tensor::Dtype;

pub use decimal::Decimal;
pub use documents::{Documents, Stage};
pub use draft::Draft;
pub use error::{Allowed, Place, RecipeError};
pub use extensions::{ActionExpertChoice, ActionExpertSpec, ActionQueries, MaskChoice, MaskSpec, Modality};
pub use layers::layer_fraction;
pub use lookup::{KnownParameter, Lookup};
pub use models::Model;
pub use parameters::{ParamValue, ParameterKind, Parameters, Rule, Setting};
pub use router::{RouterChoice, RouterProjections, RouterSpec, RouterSubspace};
pub use skillweld_store::LayerKey;
pub use slices::{Slice, Source};
pub use tokenizer::Tokenizer;

use fields::Fields;
use models::{ModelTable, Reference};
use yaml::Node;

/// Every field a recipe may have at the top level.
const FIELDS: &[&str] = &[
    // What other recipes of the same file call the result.
    "name",
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "mask",
    "action_expert",
    "router",
    "statistics",
    "groups",
    "seed",
    "allow_non_finite",
];

/// A parsed recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The merge method's name in the plugin registry.
    pub method: String,
    /// Every model once, in the order first named: `base_model` first, if there is one.
    pub models: Vec<Model>,
    /// Which model is Θ₀; where it is absent, configuration and tokenizer come from the first model.
    pub base: Option<usize>,
    /// What is merged; never empty. One slice of whole models for recipes with `models`.
    pub slices: Vec<Slice>,
    /// Parameters for everything, a module's before the recipe's own.
    pub parameters: Parameters,
    /// Parameters by modality.
    pub groups: BTreeMap<Modality, Parameters>,
    /// Default of `out_dtype`. Inputs are never cast: everything is computed in f32.
    pub dtype: Option<Dtype>,
    /// What outputs are rounded to; `None` = `dtype`, or as the base (or first model) is.
    pub out_dtype: Option<Dtype>,
    /// Whose tokenizer the output gets; `None` = the base's, or the first model's.
    pub tokenizer: Option<Tokenizer>,
    /// Task masks.
    pub mask: MaskChoice,
    /// How action experts are merged.
    pub action_expert: ActionExpertChoice,
    /// The router's subspaces.
    pub router: RouterChoice,
    /// Whose normalisation statistics the output has, as an index into `models`; `None`: every task's own, and buffers in the
    /// weights only if all models have the same.
    pub statistics: Option<usize>,
    /// Seed of every random number of the merge.
    pub seed: u64,
    /// Merge NaN and infinite weights instead of refusing them. What becomes of one is the method's affair: a sum keeps
    /// it, `ties` may pass over it, so that a finite entry stands where an expert had none.
    pub allow_non_finite: bool,
    /// The recipe file's folder.
    pub(crate) folder: Option<PathBuf>,
    /// Other recipes of the same file by name, and where what they give lies.
    pub(crate) stages: BTreeMap<String, PathBuf>,
}

impl Recipe {
    /// Reads a recipe file; relative paths in it start at its folder.
    pub fn read(path: &Path) -> Result<Recipe, RecipeError> {
        Ok(Recipe { folder: path.parent().map(Path::to_owned), ..Recipe::parse(&read_text(path)?)? })
    }

    /// Parses a recipe's text, touching no file.
    pub fn parse(text: &str) -> Result<Recipe, RecipeError> {
        Self::from_root(&Node::parse(text)?)
    }

    fn from_root(root: &Node) -> Result<Recipe, RecipeError> {
        let top = Fields::open(root, "", FIELDS)?;
        tokenizer::check_chat_template(&top)?;
        let (method, path) = top.require("merge_method", "name one, such as `merge_method: linear`")?;
        let method = method.text(&path)?.to_owned();

        let mut models = ModelTable::default();
        let base = match top.get("base_model") {
            Some((node, path)) => Some(models.intern(Reference::parse(node, &path)?, node.place(&path))),
            None => None,
        };
        let layout = slices::parse(&top, base, &mut models)?;
        let mut parameters = layout.module_parameters;
        for (name, setting) in parameters::parse_field(&top, "parameters")? {
            // A module's rules are asked first, the recipe's after them.
            match parameters.get_mut(&name) {
                Some(module) => module.rules.extend(setting.rules),
                None => {
                    parameters.insert(name, setting);
                }
            }
        }
        let mask =
            top.get("mask").map(|(node, path)| MaskSpec::parse(node, &path)).transpose()?.unwrap_or_default();
        if let (Some(mask), None) = (mask.spec(), base) {
            let problem = "masks select entries of task vectors, so they need a `base_model`".to_owned();
            return Err(RecipeError::Conflict { place: mask.place.clone(), problem });
        }
        let models = models.finish(base);
        let statistics = parse_statistics(&top, &models)?;
        Ok(Recipe {
            method,
            models,
            base,
            slices: layout.slices,
            parameters,
            groups: top
                .get("groups")
                .map_or_else(|| Ok(BTreeMap::new()), |(node, path)| extensions::parse_groups(node, &path))?,
            dtype: parse_dtype(&top, "dtype")?,
            out_dtype: parse_dtype(&top, "out_dtype")?,
            tokenizer: tokenizer::parse(&top)?,
            mask,
            action_expert: top
                .get("action_expert")
                .map(|(node, path)| ActionExpertChoice::parse(node, &path))
                .transpose()?
                .unwrap_or_default(),
            router: RouterChoice::parse(&top, "router")?,
            statistics,
            seed: top.get("seed").map_or(Ok(0), |(node, path)| node.integer(&path, 0, u64::MAX))?,
            allow_non_finite: top
                .get("allow_non_finite")
                .map_or(Ok(false), |(node, path)| node.boolean(&path))?,
            folder: None,
            stages: BTreeMap::new(),
        })
    }

    /// The models that are tasks, as indices into [`Recipe::models`]: those that some slice takes other than as base.
    pub fn tasks(&self) -> impl Iterator<Item = usize> {
        let is_expert = |slice: &Slice, model| {
            slice.sources.iter().enumerate().any(|(i, source)| source.model == model && Some(i) != slice.base)
        };
        (0..self.models.len()).filter(move |&model| self.slices.iter().any(|slice| is_expert(slice, model)))
    }

    /// The recipe asks for action experts with one head a task, by `action_expert` or by `router`; masks ask for it too.
    pub(crate) fn merges_action_experts(&self) -> bool {
        self.action_expert.spec().is_some() || self.router.spec().is_some()
    }

    /// Where a model's checkpoint and adapter lie. Relative paths are looked for in the recipe's folder, then in the
    /// working directory, which is where mergekit looks.
    ///
    /// # Panics
    /// If `model` is not an index into [`Recipe::models`].
    pub fn locate(&self, model: usize) -> Result<(PathBuf, Option<PathBuf>), RecipeError> {
        let Model { path, adapter, place, .. } = &self.models[model];
        Ok((self.find(path, place)?, adapter.as_deref().map(|path| self.find(path, place)).transpose()?))
    }

    /// The names of other recipes in the same file go before paths, as in mergekit.
    fn find(&self, written: &Path, place: &Place) -> Result<PathBuf, RecipeError> {
        match written.to_str().and_then(|name| self.stages.get(name)) {
            Some(lies) => Ok(lies.clone()),
            None => models::locate(written, self.folder.as_deref(), place),
        }
    }

    /// Where a model's statistics lie, if it has any; looked for as [`locate`](Self::locate) does.
    ///
    /// # Panics
    /// If `model` is not an index into [`Recipe::models`].
    pub fn locate_statistics(&self, model: usize) -> Result<Option<PathBuf>, RecipeError> {
        let Some((path, place)) = &self.models[model].statistics else { return Ok(None) };
        models::locate(path, self.folder.as_deref(), place).map(Some)
    }

    /// Where the checkpoint lies whose tokenizer the output gets.
    pub fn locate_tokenizer(&self) -> Result<PathBuf, RecipeError> {
        match &self.tokenizer {
            Some(Tokenizer::Model { path, place }) => self.find(path, place),
            Some(Tokenizer::Base | Tokenizer::Union { .. }) | None => {
                self.locate(self.base.unwrap_or(0)).map(|(path, _)| path)
            }
        }
    }

    /// The recipe in JSON with everything implied written out, for provenance. It is itself a recipe: parsed again it
    /// gives the same.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("merge_method".to_owned(), json!(self.method));
        if let Some(base) = self.base {
            map.insert("base_model".to_owned(), self.models[base].to_value());
        }
        let (form, layout) = slices::to_value(&self.slices, &self.models);
        map.insert(form.to_owned(), layout);
        map.insert("parameters".to_owned(), parameters::to_value(&self.parameters));
        map.insert("groups".to_owned(), extensions::groups_to_value(&self.groups));
        let optional = [
            ("dtype", self.dtype.map(|dtype| json!(dtype.name()))),
            ("out_dtype", self.out_dtype.map(|dtype| json!(dtype.name()))),
            ("tokenizer_source", self.tokenizer.as_ref().map(Tokenizer::to_value)),
            ("mask", self.mask.to_value()),
            ("action_expert", self.action_expert.to_value()),
            ("router", self.router.to_value()),
            ("statistics", self.statistics.map(|model| json!(self.models[model].name))),
        ];
        map.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        map.insert("seed".to_owned(), json!(self.seed));
        map.insert("allow_non_finite".to_owned(), json!(self.allow_non_finite));
        Value::Object(map)
    }
}

fn read_text(path: &Path) -> Result<String, RecipeError> {
    let bytes = std::fs::read(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|error| RecipeError::NotUtf8 {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// `statistics:` names a model.
fn parse_statistics(top: &Fields<'_>, models: &[Model]) -> Result<Option<usize>, RecipeError> {
    let Some((node, path)) = top.get("statistics") else { return Ok(None) };
    let name = node.text(&path)?;
    models.iter().position(|model| model.name == name).map(Some).ok_or_else(|| {
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        RecipeError::OutOfRange {
            place: node.place(&path),
            expected: format!("the name of a model: {}", names.join(", ")),
            found: node.describe(),
        }
    })
}

fn parse_dtype(top: &Fields<'_>, field: &str) -> Result<Option<Dtype>, RecipeError> {
    let Some((node, path)) = top.get(field) else { return Ok(None) };
    Dtype::parse_lenient(node.text(&path)?).filter(|dtype| dtype.is_computable()).map(Some).ok_or_else(|| {
        RecipeError::OutOfRange {
            place: node.place(&path),
            expected: "a float type, such as bfloat16, float16 or float32".to_owned(),
            found: node.describe(),
        }
    })
}
