//! Which layers of which models are merged: `models`, `slices` and `modules` become one list of slices.

use std::ops::Range;

use serde_json::{Map, Value, json};

use super::error::RecipeError;
use super::fields::Fields;
use super::models::{Model, ModelTable, Reference};
use super::parameters::{self, Parameters};
use super::yaml::{Node, Yaml};

/// More layers than any model has; keeps ranges harmless to count with.
const MAX_LAYERS: u64 = 100_000;

/// A run of output layers, and where they come from. A recipe with `models` is one slice of whole models.
#[derive(Debug, Clone)]
pub struct Slice {
    /// At least one; all take the same number of layers.
    pub sources: Vec<Source>,
    /// Which source is the base Θ₀ of this slice; `None` when the recipe names none, or not among these sources.
    pub base: Option<usize>,
    /// Parameters for all sources of this slice.
    pub parameters: Parameters,
}

/// One model's part in a slice.
#[derive(Debug, Clone)]
pub struct Source {
    /// Index into [`Recipe::models`](super::Recipe::models).
    pub model: usize,
    /// The layers taken; `None` = the whole model, with the keys outside layers.
    pub layers: Option<Range<usize>>,
    /// Parameters for this model in this slice.
    pub parameters: Parameters,
}

impl Slice {
    /// How many layers the slice has; `None` for whole models.
    pub fn layer_count(&self) -> Option<usize> {
        self.sources.first()?.layers.as_ref().map(Range::len)
    }
}

/// Parsed slices, and parameters that a `modules` entry puts between them and the global ones.
pub(crate) struct Layout {
    pub(crate) slices: Vec<Slice>,
    pub(crate) module_parameters: Parameters,
}

/// Reads whichever of `models`, `slices` and `modules` the recipe has.
pub(crate) fn parse(
    top: &Fields<'_>,
    base: Option<usize>,
    models: &mut ModelTable,
) -> Result<Layout, RecipeError> {
    if let Some((node, path)) = top.get("modules") {
        if top.get("models").is_some() || top.get("slices").is_some() {
            return Err(two_forms(node, &path));
        }
        return parse_modules(node, &path, base, models);
    }
    Ok(Layout { slices: parse_forms(top, base, models)?, module_parameters: Parameters::new() })
}

fn two_forms(node: &Node, path: &str) -> RecipeError {
    let problem = "give one of `models`, `slices` and `modules`, not several".to_owned();
    RecipeError::Conflict { place: node.place(path), problem }
}

fn parse_forms(
    fields: &Fields<'_>,
    base: Option<usize>,
    models: &mut ModelTable,
) -> Result<Vec<Slice>, RecipeError> {
    match (fields.get("models"), fields.get("slices")) {
        (Some(_), Some((node, path))) => Err(two_forms(node, &path)),
        (Some((node, path)), None) => Ok(vec![parse_models(node, &path, base, models)?]),
        (None, Some((node, path))) => nonempty(node, &path, "a list of slices")?
            .iter()
            .enumerate()
            .map(|(i, item)| parse_slice(item, &format!("{path}[{i}]"), base, models))
            .collect(),
        (None, None) => fields
            .require("models", "list the models to merge (or `slices` of their layers)")
            .map(|_| Vec::new()),
    }
}

/// mergekit's newer form. Its `default` module is the whole of a plain language model; others need definitions of
/// multi-part architectures, which Skillweld reads from the checkpoint instead.
fn parse_modules(
    node: &Node,
    path: &str,
    base: Option<usize>,
    models: &mut ModelTable,
) -> Result<Layout, RecipeError> {
    if let Yaml::Map(entries) = &node.value
        && let Some(entry) = entries.iter().find(|entry| entry.key != "default")
    {
        return Err(RecipeError::Unsupported {
            place: entry.value.place(path),
            what: format!("module `{}`", entry.key),
            remedy: "list the models at the top level, and set parameters by modality under `groups`",
        });
    }
    let modules = Fields::open(node, path, &["default"])?;
    let (node, path) = modules.require("default", "write the models at the top level instead")?;
    let fields = Fields::open(node, &path, &["models", "slices", "parameters"])?;
    Ok(Layout {
        slices: parse_forms(&fields, base, models)?,
        module_parameters: parameters::parse_field(&fields, "parameters")?,
    })
}

fn nonempty<'n>(node: &'n Node, path: &str, what: &'static str) -> Result<&'n [Node], RecipeError> {
    let items = node.list(path)?;
    if items.is_empty() {
        return Err(RecipeError::OutOfRange {
            place: node.place(path),
            expected: format!("{what} with at least one entry"),
            found: "empty".to_owned(),
        });
    }
    Ok(items)
}

/// `models` is one slice of whole models. A base that is not listed joins them, as in mergekit: methods that have a
/// base measure from it, and to methods that have none it is one more model.
fn parse_models(
    node: &Node,
    path: &str,
    base: Option<usize>,
    models: &mut ModelTable,
) -> Result<Slice, RecipeError> {
    let mut sources = Vec::new();
    for (i, item) in nonempty(node, path, "a list of models")?.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let fields = Fields::open(item, &path, &["model", "name", "statistics", "parameters"])?;
        sources.push(parse_source(&fields, None, &sources, models)?);
    }
    let listed = sources.iter().position(|source| Some(source.model) == base);
    let base = match (base, listed) {
        (Some(model), None) => {
            sources.push(Source { model, layers: None, parameters: Parameters::new() });
            Some(sources.len() - 1)
        }
        (_, listed) => listed,
    };
    Ok(Slice { sources, base, parameters: Parameters::new() })
}

fn parse_slice(
    node: &Node,
    path: &str,
    base: Option<usize>,
    models: &mut ModelTable,
) -> Result<Slice, RecipeError> {
    let slice = Fields::open(node, path, &["sources", "base_model", "residual_weight", "parameters"])?;
    slice.refuse("residual_weight", "remove it")?;
    let own_base = match slice.get("base_model") {
        Some((node, path)) => {
            let place = node.place(&path);
            Some((models.intern(Reference::parse(node, &path)?, place.clone()), place))
        }
        None => None,
    };
    let (list, path) = slice.require("sources", "list the models and their `layer_range`")?;
    let mut sources: Vec<Source> = Vec::new();
    for (i, item) in nonempty(list, &path, "a list of sources")?.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let fields =
            Fields::open(item, &path, &["model", "name", "statistics", "layer_range", "parameters"])?;
        let (range, range_path) =
            fields.require("layer_range", "write `layer_range: [first, end]`; `end` is not taken")?;
        let layers = parse_range(range, &range_path)?;
        let count = sources.first().and_then(|first| first.layers.as_ref()).map_or(layers.len(), Range::len);
        if count != layers.len() {
            let problem = format!(
                "takes {} layers, but the slice's first source takes {count}; all must take as many",
                layers.len()
            );
            return Err(RecipeError::Conflict { place: range.place(&range_path), problem });
        }
        sources.push(parse_source(&fields, Some(layers), &sources, models)?);
    }
    let wanted = own_base.as_ref().map(|(model, _)| *model).or(base);
    let base = sources.iter().position(|source| Some(source.model) == wanted);
    if let (Some((_, place)), None) = (own_base, base) {
        let problem = "is not among the slice's sources; list it there with its `layer_range`".to_owned();
        return Err(RecipeError::Conflict { place, problem });
    }
    Ok(Slice { sources, base, parameters: parameters::parse_field(&slice, "parameters")? })
}

fn parse_source(
    fields: &Fields<'_>,
    layers: Option<Range<usize>>,
    before: &[Source],
    models: &mut ModelTable,
) -> Result<Source, RecipeError> {
    let (node, path) = fields.require("model", "write the model's path")?;
    let model = models.intern(Reference::parse(node, &path)?, node.place(&path));
    if let Some(first) = before.iter().position(|source| source.model == model) {
        let problem = format!("is the same model as entry {first} of this list; list it once");
        return Err(RecipeError::Conflict { place: node.place(&path), problem });
    }
    if let Some((node, path)) = fields.get("name") {
        models.name(model, node, &path)?;
    }
    if let Some((node, path)) = fields.get("statistics") {
        models.statistics(model, node, &path)?;
    }
    Ok(Source { model, layers, parameters: parameters::parse_field(fields, "parameters")? })
}

fn parse_range(node: &Node, path: &str) -> Result<Range<usize>, RecipeError> {
    let [first, end] = node.list(path)? else {
        return Err(node.wrong_type(path, "two layer numbers, [first, end]"));
    };
    let number =
        |node: &Node, i: usize| node.integer(&format!("{path}[{i}]"), 0, MAX_LAYERS).map(|n| n as usize);
    let layers = number(first, 0)?..number(end, 1)?;
    if layers.is_empty() {
        return Err(RecipeError::OutOfRange {
            place: node.place(path),
            expected: "a range of at least one layer; the second number is not taken".to_owned(),
            found: format!("[{}, {}]", layers.start, layers.end),
        });
    }
    Ok(layers)
}

/// The field `models` or `slices` in JSON.
pub(crate) fn to_value(slices: &[Slice], models: &[Model]) -> (&'static str, Value) {
    let source_value = |source: &Source| {
        let model = &models[source.model];
        let mut map = Map::new();
        map.insert("model".to_owned(), model.to_value());
        map.insert("name".to_owned(), json!(model.name));
        if let Some((path, _)) = &model.statistics {
            map.insert("statistics".to_owned(), json!(path.to_string_lossy()));
        }
        if let Some(layers) = &source.layers {
            map.insert("layer_range".to_owned(), json!([layers.start, layers.end]));
        }
        map.insert("parameters".to_owned(), parameters::to_value(&source.parameters));
        Value::Object(map)
    };
    let sources = |slice: &Slice| slice.sources.iter().map(source_value).collect::<Value>();
    match slices {
        [whole] if whole.layer_count().is_none() => ("models", sources(whole)),
        slices => {
            let slice_value = |slice: &Slice| {
                let mut map = Map::new();
                map.insert("sources".to_owned(), sources(slice));
                if let Some(base) = slice.base {
                    map.insert("base_model".to_owned(), models[slice.sources[base].model].to_value());
                }
                map.insert("parameters".to_owned(), parameters::to_value(&slice.parameters));
                Value::Object(map)
            };
            ("slices", slices.iter().map(slice_value).collect())
        }
    }
}
