//! EMR-Merging (arXiv 2405.17461): one elected task vector, and a sign mask and rescaler for each task.

mod elect;
mod mask;

pub use elect::Emr;
pub use mask::EmrMask;

skillweld_plugin_sdk::export_methods!(merge: [Emr], mask: [EmrMask]);

const CITATION: &str = "Huang et al., EMR-Merging, NeurIPS 2024, arXiv 2405.17461";
