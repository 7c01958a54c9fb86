//! LoRA adapters as the `peft` package writes them: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! Read: LoRA (arXiv 2106.09685) with rsLoRA scaling (arXiv 2312.03732), rank and alpha patterns, `fan_in_fan_out`,
//! embedding factors, `modules_to_save` and trained biases. Everything that makes the merged weight something else
//! than W + s·B·A is refused by name.

mod adapter;
mod config;

pub use adapter::{Adapter, AdapterDelta};
