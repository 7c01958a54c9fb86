//! `router:`: whether a merge has one, and what it compares.

use serde_json::{Value, json};

use super::error::RecipeError;
use super::fields::Fields;
use super::yaml::{Node, Yaml};

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
    const NAMES: [(&str, Self); 3] = [("v", Self::Values), ("k", Self::Keys), ("kv", Self::Both)];

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

impl RouterSubspace {
    const NAMES: [(&str, Self); 2] = [("per_task", Self::PerTask), ("merged", Self::Merged)];
}

impl Default for RouterSpec {
    fn default() -> Self {
        RouterSpec { rank: 8, subspace: RouterSubspace::PerTask, projections: RouterProjections::Values }
    }
}

/// More directions than any projection has.
const MAX_ROUTER_RANK: u64 = 4096;

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
            spec.subspace = node.choice(&path, &RouterSubspace::NAMES)?;
        }
        if let Some((node, path)) = fields.get("projections") {
            spec.projections = node.choice(&path, &RouterProjections::NAMES)?;
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
