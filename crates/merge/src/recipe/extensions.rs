//! What Skillweld adds to mergekit's recipes: task masks, the action expert, the router, parameters by modality.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use skillweld_spelling::nearest;

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
}

/// What a recipe says about the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouterChoice {
    /// Nothing: a merge with masks has one as in the paper, as far as the heads allow.
    #[default]
    Implied,
    /// `router: none`, `false` or null: the merged policy has to be told its task.
    None,
    /// These subspaces.
    Subspaces(RouterSpec),
}

/// `router:`: the subspaces that the test-time task router compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterSpec {
    /// k_r: how many right singular vectors are kept of each projection. Default 8.
    pub rank: usize,
    /// Whose projections they come from.
    pub subspace: RouterSubspace,
    /// Which projections: the paper's ablation.
    pub projections: RouterProjections,
}

/// Projections of the last merged block whose right singular vectors span the router's subspaces. The paper (table of
/// ablations, average success on LIBERO: K 53.6, K&V 65.1, V 89.7) does not say how K&V is scored: ours is the mean over
/// all four subspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouterProjections {
    /// `v`: the values, `v_adapter` and `v_task`.
    #[default]
    Values,
    /// `k`: the keys, `k_adapter` and `k_task`.
    Keys,
    /// `kv`: both.
    Both,
}

impl RouterProjections {
    /// The name in recipes.
    pub const fn name(self) -> &'static str {
        match self {
            RouterProjections::Values => "v",
            RouterProjections::Keys => "k",
            RouterProjections::Both => "kv",
        }
    }

    /// Whether values, and whether keys are among them.
    pub(crate) const fn pairs(self) -> [bool; 2] {
        match self {
            RouterProjections::Values => [true, false],
            RouterProjections::Keys => [false, true],
            RouterProjections::Both => [true, true],
        }
    }
}

/// Whose projections span the router's subspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RouterSubspace {
    /// Each task's own expert before merging, as in the published code.
    #[default]
    PerTask,
    /// The merged expert, as in the paper.
    Merged,
}

impl Default for ActionExpertSpec {
    fn default() -> Self {
        ActionExpertSpec { head_blocks: 1 }
    }
}

impl Default for RouterSpec {
    fn default() -> Self {
        RouterSpec { rank: 8, subspace: RouterSubspace::PerTask, projections: RouterProjections::Values }
    }
}

/// More blocks than any action expert has.
const MAX_HEAD_BLOCKS: u64 = 256;
/// More directions than any projection has.
const MAX_ROUTER_RANK: u64 = 4096;

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
        let fields = Fields::open(node, path, &["head_blocks"])?;
        let mut spec = ActionExpertSpec::default();
        if let Some((node, path)) = fields.get("head_blocks") {
            spec.head_blocks = node.integer(&path, 0, MAX_HEAD_BLOCKS)? as usize;
        }
        Ok(spec)
    }

    pub(crate) fn to_value(self) -> Value {
        json!({ "head_blocks": self.head_blocks })
    }
}

impl RouterChoice {
    /// The subspaces that the recipe asks for.
    pub fn spec(&self) -> Option<&RouterSpec> {
        match self {
            RouterChoice::Subspaces(spec) => Some(spec),
            RouterChoice::Implied | RouterChoice::None => None,
        }
    }

    pub(crate) fn parse(top: &Fields<'_>, field: &str) -> Result<Self, RecipeError> {
        let Some((node, path)) = top.get_or_null(field) else { return Ok(RouterChoice::Implied) };
        match &node.value {
            Yaml::Null | Yaml::Bool(false) => Ok(RouterChoice::None),
            Yaml::Text(text) if text == "none" => Ok(RouterChoice::None),
            Yaml::Map(_) => RouterSpec::parse(node, &path).map(RouterChoice::Subspaces),
            _ => Err(node.wrong_type(&path, "`none`, or a mapping such as `{rank: 8, subspace: per_task}`")),
        }
    }

    pub(crate) fn to_value(self) -> Option<Value> {
        match self {
            RouterChoice::Implied => None,
            RouterChoice::None => Some(json!("none")),
            RouterChoice::Subspaces(spec) => Some(spec.to_value()),
        }
    }
}

impl RouterSpec {
    pub(crate) fn parse(node: &Node, path: &str) -> Result<Self, RecipeError> {
        let fields = Fields::open(node, path, &["rank", "subspace", "projections"])?;
        let mut spec = RouterSpec::default();
        if let Some((node, path)) = fields.get("rank") {
            spec.rank = node.integer(&path, 1, MAX_ROUTER_RANK)? as usize;
        }
        if let Some((node, path)) = fields.get("subspace") {
            spec.subspace = match node.text(&path)? {
                "per_task" => RouterSubspace::PerTask,
                "merged" => RouterSubspace::Merged,
                other => {
                    let hint = nearest(other, ["per_task", "merged"])
                        .map_or(String::new(), |right| format!("; did you mean `{right}`?"));
                    return Err(RecipeError::OutOfRange {
                        place: node.place(&path),
                        expected: format!("`per_task` or `merged`{hint}"),
                        found: node.describe(),
                    });
                }
            };
        }
        if let Some((node, path)) = fields.get("projections") {
            let known = [RouterProjections::Values, RouterProjections::Keys, RouterProjections::Both];
            let named = node.text(&path)?;
            spec.projections = known.into_iter().find(|known| known.name() == named).ok_or_else(|| {
                RecipeError::OutOfRange {
                    place: node.place(&path),
                    expected: "`v`, `k` or `kv`".to_owned(),
                    found: node.describe(),
                }
            })?;
        }
        Ok(spec)
    }

    pub(crate) fn to_value(self) -> Value {
        let subspace = match self.subspace {
            RouterSubspace::PerTask => "per_task",
            RouterSubspace::Merged => "merged",
        };
        json!({ "rank": self.rank, "subspace": subspace, "projections": self.projections.name() })
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
