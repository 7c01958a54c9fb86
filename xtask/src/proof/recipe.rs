//! Recipes of the tables, from few words.

use std::fmt::Write as _;
use std::path::Path;

/// Suites that have an expert each, in the papers' order.
pub(crate) const SUITES: [&str; 4] = ["spatial", "object", "goal", "long"];

/// A merge of shipped experts, one a suite and called by it.
pub(crate) struct Recipe {
    pub(crate) experts: Vec<String>,
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
        let rest = "action_expert: merge\n".to_owned();
        Self { experts: experts(kind), method, parameters: parameters.to_owned(), rest, routes: false }
    }

    /// MergeVLA's.
    pub(crate) fn masked(method: &'static str, parameters: &str, mask: &Mask) -> Self {
        let rest = format!(
            "mask: {{ {} }}\naction_expert: {{ head_blocks: {} }}\nrouter: {{ {} }}\n",
            mask.how, mask.head_blocks, mask.router
        );
        Self { experts: experts(""), method, parameters: parameters.to_owned(), rest, routes: true }
    }

    /// MergeVLA's with TIES, its best.
    pub(crate) fn ties(mask: &Mask) -> Self {
        Self::masked("ties", PAPERS_TIES, mask)
    }

    /// In YAML, of policies below `folder`.
    pub(crate) fn text(&self, folder: &Path) -> String {
        let folder = folder.display();
        let mut text = format!("merge_method: {}\nbase_model: {folder}/base\nmodels:\n", self.method);
        for (name, expert) in SUITES.iter().zip(&self.experts) {
            writeln!(text, "  - {{ name: {name}, model: {folder}/{expert} }}").unwrap_or_default();
        }
        text + &format!("parameters: {{ {} }}\n{}", self.parameters, self.rest)
    }
}

/// What MergeVLA's merges have beyond the method.
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
    /// EMR's own.
    pub(crate) fn emr() -> Self {
        Self { how: "method: emr".into(), ..Self::default() }
    }
}

/// Parameters of TIES in the paper's form: no trimming, the sum of what agrees, signs over the whole vector.
const PAPERS_TIES: &str = "density: 1.0, normalize: false, scope: global";

fn experts(kind: &str) -> Vec<String> {
    SUITES.iter().map(|suite| format!("{suite}{kind}")).collect()
}
