//! Loads merge-method plugins and calls them safely: a shared library goes in, a [`Method`] comes out.
//!
//! ```text
//! Registry::discover ─▶ Registry ─▶ Method ── bind(parameters) ─▶ Bound ── observe / run / run_mask / rescale
//!   (search path)        (by id)    (schema)                        (per tensor block, from any thread)
//! ```
//!
//! Everything that crosses the boundary is checked here, on both sides of a call: the handshake and each method's
//! description when a library is loaded ([`Plugin::load`]), parameters against the schema ([`Method::bind`]), every
//! length before a call, the status and the tail bits of masks after it. What cannot be checked is trusted: a plugin
//! is native code in this process.
//!
//! This crate knows nothing of recipes, checkpoints or threads.

#![allow(unsafe_code, reason = "calls into shared libraries; the rules are those of plugin-abi")]

mod bound;
mod call;
mod error;
mod few;
mod handshake;
mod hooks;
mod method;
mod plugin;
mod registry;
mod schema;

pub use bound::{Bound, Plan, Scope};
pub use call::{BlockInputs, ExpertBlock, UNWRITTEN_BITS};
pub use error::PluginError;
pub use hooks::{HostHooks, Level, NO_REASON};
pub use method::{CudaCode, Kind, Method};
pub use plugin::Plugin;
pub use registry::{Registry, Skipped};
pub use schema::{ParamKind, ParamSpec, Range};
pub use skillweld_plugin_abi::{flags, laws};
