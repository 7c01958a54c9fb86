//! Task masks: which entries of the merged task vector serve which task.

mod consensus;
mod magnitude;
mod tall;

pub use consensus::Consensus;
pub use magnitude::Magnitude;
pub use tall::Tall;

use skillweld_plugin_sdk::{Param, export_methods};

export_methods!(mask: [Tall, Consensus, Magnitude]);

const CITATION: &str = "Wang et al., Localizing task information, ICML 2024, arXiv 2405.07813";

/// λ of a TALL mask.
fn lambda() -> Param {
    Param::number("lambda")
        .default(0.6)
        .at_least(0.0)
        .per_expert()
        .describe("larger keeps less; 0.6 to 0.9 works, 0.2 collapses")
}
