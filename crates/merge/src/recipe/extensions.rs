//! What Skillweld adds to mergekit's recipes: task masks, the action expert, parameters by modality.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::error::{Place, RecipeError};
use super::fields::{Fields, join};
use super::parameters::{self, Parameters, Setting};
use super::yaml::{Entry, Node, Yaml};

/// The part of a policy a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Modality {
    /// Vision encoder and projector.
    Vision,
    /// Language backbone.
    Language,
    /// Action expert and what feeds it.
    Action,
}

impl Modality {
    /// Every modality.
    pub const ALL: [Modality; 3] = [Modality::Vision, Modality::Language, Modality::Action];

    /// The recipe's name for what a checkpoint's keys are for; `None` for what belongs to no modality.
    pub(crate) fn from_store(modality: skillweld_store::Modality) -> Option<Modality> {
        match modality {
            skillweld_store::Modality::Vision => Some(Modality::Vision),
            skillweld_store::Modality::Language => Some(Modality::Language),
            skillweld_store::Modality::Action => Some(Modality::Action),
            skillweld_store::Modality::Other => None,
        }
    }

    /// The name in recipes.
    pub const fn name(self) -> &'static str {
        match self {
            Modality::Vision => "vision",
            Modality::Language => "language",
            Modality::Action => "action",
        }
    }
}

/// `mask:`: how task masks are made.
#[derive(Debug, Clone)]
pub struct MaskSpec {
    /// The mask method's name in the plugin registry, such as `tall`.
    pub method: String,
    /// Its parameters for all tasks.
    pub parameters: Parameters,
    /// Parameters of single tasks, by the task's name: `lambda: {pick: 0.6, push: 0.9}`.
    pub by_task: BTreeMap<String, Parameters>,
    /// Where it stands.
    pub place: Place,
}

/// What a recipe says about masks.
#[derive(Debug, Clone, Default)]
pub enum MaskChoice {
    /// Nothing: masks are made if the merge method comes with a mask method, as `emr` does.
    #[default]
    MethodsOwn,
    /// `mask: none`: one set of weights for all tasks.
    None,
    /// Masks by this method.
    Method(MaskSpec),
}

impl MaskChoice {
    /// The mask method that the recipe names.
    pub fn spec(&self) -> Option<&MaskSpec> {
        match self {
            MaskChoice::Method(spec) => Some(spec),
            MaskChoice::MethodsOwn | MaskChoice::None => None,
        }
    }

    pub(crate) fn to_value(&self) -> Option<Value> {
        match self {
            MaskChoice::MethodsOwn => None,
            MaskChoice::None => Some(json!("none")),
            MaskChoice::Method(spec) => Some(spec.to_value()),
        }
    }
}

/// What a recipe says about action experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActionExpertChoice {
    /// Nothing: a merge with masks or a router shares all but the last block.
    #[default]
    Implied,
    /// `action_expert: merge`: the merge method joins their tensors, as those of the model; one expert comes out.
    Merge,
    /// Some blocks are shared, and the others stay one copy per task.
    Heads(ActionExpertSpec),
}

impl ActionExpertChoice {
    /// How many blocks stay per task, where the recipe says it.
    pub fn spec(self) -> Option<ActionExpertSpec> {
        match self {
            ActionExpertChoice::Heads(spec) => Some(spec),
            ActionExpertChoice::Implied | ActionExpertChoice::Merge => None,
        }
    }

    pub(crate) fn parse(node: &Node, path: &str) -> Result<Self, RecipeError> {
        match &node.value {
            Yaml::Text(text) if text == "merge" => Ok(ActionExpertChoice::Merge),
            Yaml::Text(_) => Err(RecipeError::OutOfRange {
                place: node.place(path),
                expected: "`merge`, or a mapping such as `{head_blocks: 1}`".to_owned(),
                found: node.describe(),
            }),
            _ => ActionExpertSpec::parse(node, path).map(ActionExpertChoice::Heads),
        }
    }

    pub(crate) fn to_value(self) -> Option<Value> {
        match self {
            ActionExpertChoice::Implied => None,
            ActionExpertChoice::Merge => Some(json!("merge")),
            ActionExpertChoice::Heads(spec) => Some(spec.to_value()),
        }
    }
}

/// `action_expert:`: how action experts are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionExpertSpec {
    /// n: the last n blocks stay one copy per task, with `layer_norm2` and `fc2`. Default 1.
    pub head_blocks: usize,
    /// What becomes of `action_queries.weight`.
    pub action_queries: ActionQueries,
}

/// What becomes of Prismatic's action queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActionQueries {
    /// Their mean, as in the published code, whose base models have none.
    #[default]
    Mean,
    /// Merged and masked as all other weights are, from those of a base model that has some.
    Merge,
}

impl ActionQueries {
    const NAMES: [(&str, Self); 2] = [("mean", Self::Mean), ("merge", Self::Merge)];
}

impl Default for ActionExpertSpec {
    fn default() -> Self {
        ActionExpertSpec { head_blocks: 1, action_queries: ActionQueries::Mean }
    }
}

/// More blocks than any action expert has.
const MAX_HEAD_BLOCKS: u64 = 256;
impl MaskSpec {
    /// `none`, a method's name, or a mapping of `method` and its parameters.
    pub(crate) fn parse(node: &Node, path: &str) -> Result<MaskChoice, RecipeError> {
        let (mut parameters, mut by_task) = (Parameters::new(), BTreeMap::<String, Parameters>::new());
        let method = match &node.value {
            Yaml::Text(method) => method.clone(),
            Yaml::Map(entries) => {
                let Some(method) = entries.iter().find(|entry| entry.key == "method") else {
                    return Err(RecipeError::Missing {
                        place: node.place(path),
                        field: "method",
                        remedy: "write `method: tall` (or `mask: none`)",
                    });
                };
                let method = method.value.text(&join(path, "method"))?.to_owned();
                for entry in entries.iter().filter(|entry| entry.key != "method") {
                    let Some(tasks) = values_by_task(&entry.value) else {
                        parameters.insert(entry.key.clone(), Setting::parse_entry(entry, path)?);
                        continue;
                    };
                    let path = join(path, &entry.key);
                    for task in tasks {
                        let of_task = by_task.entry(task.key.clone()).or_default();
                        of_task.insert(entry.key.clone(), Setting::parse_entry(task, &path)?);
                    }
                }
                method
            }
            _ => return Err(node.wrong_type(path, "`none`, a mask method, or a mapping with `method`")),
        };
        if method == "none" && !(parameters.is_empty() && by_task.is_empty()) {
            let problem = "`none` takes no parameters; remove them or name a mask method".to_owned();
            return Err(RecipeError::Conflict { place: node.place(path), problem });
        }
        Ok(match method.as_str() {
            "none" => MaskChoice::None,
            _ => MaskChoice::Method(MaskSpec { method, parameters, by_task, place: node.place(path) }),
        })
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut map = Map::from_iter([("method".to_owned(), json!(self.method))]);
        map.extend(self.parameters.iter().map(|(name, setting)| (name.clone(), setting.to_value())));
        for (task, parameters) in &self.by_task {
            for (name, setting) in parameters {
                map.entry(name.clone()).or_insert_with(|| json!({}))[task] = setting.to_value();
            }
        }
        Value::Object(map)
    }
}

/// The entries of a mapping from tasks to values, which a rule (`{filter: …, value: …}`) is not.
fn values_by_task(node: &Node) -> Option<&[Entry]> {
    let Yaml::Map(entries) = &node.value else { return None };
    let of_rule = |entry: &Entry| ["filter", "value"].contains(&entry.key.as_str());
    (!entries.is_empty() && !entries.iter().any(of_rule)).then_some(entries)
}

impl ActionExpertSpec {
    pub(crate) fn parse(node: &Node, path: &str) -> Result<Self, RecipeError> {
        let fields = Fields::open(node, path, &["head_blocks", "action_queries"])?;
        let mut spec = ActionExpertSpec::default();
        if let Some((node, path)) = fields.get("head_blocks") {
            spec.head_blocks = node.integer(&path, 0, MAX_HEAD_BLOCKS)? as usize;
        }
        if let Some((node, path)) = fields.get("action_queries") {
            spec.action_queries = node.choice(&path, &ActionQueries::NAMES)?;
        }
        Ok(spec)
    }

    pub(crate) fn to_value(self) -> Value {
        match self.action_queries {
            ActionQueries::Mean => json!({ "head_blocks": self.head_blocks }),
            ActionQueries::Merge => json!({ "head_blocks": self.head_blocks, "action_queries": "merge" }),
        }
    }
}

/// `groups:`: parameters by modality.
pub(crate) fn parse_groups(node: &Node, path: &str) -> Result<BTreeMap<Modality, Parameters>, RecipeError> {
    let fields = Fields::open(node, path, &Modality::ALL.map(Modality::name))?;
    let mut groups = BTreeMap::new();
    for modality in Modality::ALL {
        let parameters = parameters::parse_field(&fields, modality.name())?;
        if !parameters.is_empty() {
            groups.insert(modality, parameters);
        }
    }
    Ok(groups)
}

pub(crate) fn groups_to_value(groups: &BTreeMap<Modality, Parameters>) -> Value {
    groups.iter().map(|(modality, p)| (modality.name().to_owned(), parameters::to_value(p))).collect()
}
