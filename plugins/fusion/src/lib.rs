//! Merges of one model into the base that decide entry by entry how much is taken over: `nearswap`, `arcee_fusion`.

mod arcee_fusion;
mod nearswap;

pub use arcee_fusion::ArceeFusion;
pub use nearswap::Nearswap;

skillweld_plugin_sdk::export_methods!(merge: [Nearswap, ArceeFusion]);
