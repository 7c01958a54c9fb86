//! Recipes of the tables, from few words.

use std::fmt::Write as _;
use std::path::Path;

/// Suites that have an expert each, in the papers' order.
pub(crate) const SUITES: [&str; 4] = ["spatial", "object", "goal", "long"];

/// Ending of the names of experts that have VLA-Adapter's action expert, with self-attention.
pub(crate) const SELF: &str = "-self";

/// An expert of a merge.
pub(crate) struct Member {
    /// What the merged policy calls it: where all arms are alike, its suite.
    pub(crate) name: String,
    /// The shipped policy.
    pub(crate) expert: String,
    /// What it was trained on, in options that `skillweld sim demos` and `skillweld eval run` both have.
    pub(crate) own: String,
    /// Of the method, for this expert alone, in YAML's flow form.
    pub(crate) parameters: String,
}

impl Member {
    /// `kind`: ending of the expert's name.
    pub(crate) fn of_suite(suite: &str, kind: &str) -> Self {
        Self {
            name: suite.into(),
            expert: format!("{suite}{kind}"),
            own: format!("--suite {suite}"),
            parameters: String::new(),
        }
    }
}

/// A merge of shipped experts.
pub(crate) struct Recipe {
    /// Shipped, too: from which its experts were finetuned.
    pub(crate) base: &'static str,
    pub(crate) members: Vec<Member>,
    pub(crate) method: &'static str,
    /// Of the method, in YAML's flow form.
    pub(crate) parameters: String,
    /// The rest of the recipe: masks, heads, router.
    pub(crate) rest: String,
    /// Whether it makes a policy that chooses among its tasks.
    pub(crate) routes: bool,
}

impl Recipe {
    /// One policy without masks, its action expert merged whole: what merging did before MergeVLA.
    ///
    /// `kind`: ending of the experts' names.
    pub(crate) fn naive(kind: &str, method: &'static str, parameters: &str) -> Self {
        Self::of_kind(kind, (method, parameters), "action_expert: merge\n".to_owned(), false)
    }

    fn of_kind(kind: &str, (method, parameters): (&'static str, &str), rest: String, routes: bool) -> Self {
        let members = SUITES.iter().map(|suite| Member::of_suite(suite, kind)).collect();
        let base = if kind == SELF { "base-self" } else { "base" };
        Self { base, members, method, parameters: parameters.to_owned(), rest, routes }
    }

    /// MergeVLA's.
    pub(crate) fn masked(method: &'static str, parameters: &str, mask: &Mask) -> Self {
        Self::masked_of("", method, parameters, mask)
    }

    /// MergeVLA's of other experts. `kind`: ending of their names.
    pub(crate) fn masked_of(kind: &str, method: &'static str, parameters: &str, mask: &Mask) -> Self {
        let rest = format!(
            "mask: {{ {} }}\naction_expert: {{ head_blocks: {} }}\nrouter: {{ {} }}\n",
            mask.how, mask.head_blocks, mask.router
        );
        Self::of_kind(kind, (method, parameters), rest, true)
    }

    /// MergeVLA's with TIES, its best.
    pub(crate) fn ties(mask: &Mask) -> Self {
        Self::masked("ties", PAPERS_TIES, mask)
    }

    /// The same of other experts.
    pub(crate) fn of(self, members: Vec<Member>) -> Self {
        Self { members, ..self }
    }

    /// In YAML, of policies below `folder`.
    pub(crate) fn text(&self, folder: &Path) -> String {
        let folder = folder.display();
        let mut text =
            format!("merge_method: {}\nbase_model: {folder}/{}\nmodels:\n", self.method, self.base);
        for Member { name, expert, parameters, .. } in &self.members {
            write!(text, "  - {{ name: {name}, model: {folder}/{expert}").unwrap_or_default();
            if !parameters.is_empty() {
                write!(text, ", parameters: {{ {parameters} }}").unwrap_or_default();
            }
            text.push_str(" }\n");
        }
        text + &format!("parameters: {{ {} }}\n{}", self.parameters, self.rest)
    }
}

/// What MergeVLA's merges have beyond the method.
#[derive(Clone)]
pub(crate) struct Mask {
    /// Which masks; in YAML's flow form, as the router.
    pub(crate) how: String,
    pub(crate) head_blocks: u32,
    pub(crate) router: String,
}

impl Default for Mask {
    /// As the paper has it, but for its one block of four and twenty: of the four that these experts have two stay a copy a task.
    fn default() -> Self {
        Self { how: "method: tall, lambda: 0.6".into(), head_blocks: 2, router: "rank: 8".into() }
    }
}

impl Mask {
    /// TALL's of a keep-ratio.
    pub(crate) fn tall(lambda: &str) -> Self {
        Self { how: format!("method: tall, lambda: {lambda}"), ..Self::default() }
    }

    /// EMR's own.
    pub(crate) fn emr() -> Self {
        Self { how: "method: emr".into(), ..Self::default() }
    }
}

/// Parameters of TIES in the paper's form: no trimming, the sum of what agrees, signs over the whole vector.
pub(crate) const PAPERS_TIES: &str = "density: 1.0, normalize: false, scope: global";
