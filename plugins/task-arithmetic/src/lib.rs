//! Merges of task vectors τ_k: `task_arithmetic`, `ties`, `dare_linear`, `dare_ties`, `della_linear`, `della`, `breadcrumbs`,
//! `breadcrumbs_ties`.
//!
//! Each first thins the task vectors out (trimming, random dropping, or not at all), weighs them, and then joins them:
//! by their sum, or by the sum of those that agree with the elected sign. Parameters bear mergekit's names. All sums
//! run in f32 in the order of the experts, so the bytes do not depend on how a tensor is cut into blocks.

mod arithmetic;
mod breadcrumbs;
mod dare;
mod della;
mod equals;
mod join;
mod rescale;
mod ties;

pub use arithmetic::TaskArithmetic;
pub use breadcrumbs::{Breadcrumbs, BreadcrumbsTies};
pub use dare::{DareLinear, DareTies};
pub use della::{Della, DellaLinear};
pub use ties::Ties;

use skillweld_plugin_sdk::{Param, Spec};

skillweld_plugin_sdk::export_methods!(merge: [
    TaskArithmetic,
    Ties,
    DareLinear,
    DareTies,
    DellaLinear,
    Della,
    Breadcrumbs,
    BreadcrumbsTies
]);

/// A method on task vectors with the parameters that all of them share.
fn spec(id: &'static str, summary: &'static str, normalize: bool) -> Spec {
    Spec::new(id, summary)
        .task_vectors()
        .param(Param::number("weight").default(1.0).per_expert().describe("factor of the task vector"))
        .param(
            Param::boolean("normalize")
                .default(normalize)
                .describe("divide by the sum of the weights that took part in the element"),
        )
        .param(Param::number("lambda").default(1.0).describe("factor of the merged task vector"))
}
