//! PCB-Merging: entries compete within their expert and between experts; losers are dropped, winners weighed.

mod merge;
mod rank;
mod smooth;

pub use merge::Pcb;

skillweld_plugin_sdk::export_methods!(merge: [Pcb]);
