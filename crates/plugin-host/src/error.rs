use std::path::PathBuf;

use crate::Kind;

/// What can go wrong between Skillweld and a plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The file cannot be read.
    #[error("cannot read plugin {}: {source}", path.display())]
    Unreadable {
        /// The plugin's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refuses to load the file as a shared library.
    #[error("{} is not a library that this machine can load: {reason}", path.display())]
    NotALibrary {
        /// The plugin's file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// A library, but of another trade.
    #[error(
        "{} is not a Skillweld plugin: it exports no symbol {}; Rust authors need export_methods!, C authors SKW_EXPORT",
        path.display(), skillweld_plugin_abi::SYMBOL
    )]
    NotAPlugin {
        /// The plugin's file.
        path: PathBuf,
    },
    /// A plugin of another major version of the boundary.
    #[error("{} was built for plugin ABI {found}, this Skillweld speaks 1: rebuild it against this version", path.display())]
    OtherAbi {
        /// The plugin's file.
        path: PathBuf,
        /// The major version it speaks.
        found: u32,
    },
    /// The exported struct is not what version 1 says.
    #[error("plugin {}: {reason}", path.display())]
    BadPlugin {
        /// The plugin's file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// A method describes itself wrongly.
    #[error("plugin {}, method {method}: {reason}", path.display())]
    BadMethod {
        /// The plugin's file.
        path: PathBuf,
        /// The method's id, or its number when the id itself is wrong.
        method: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// No loaded plugin has this method.
    #[error("no {kind} method is called `{id}`{}", suggestion(nearest.as_deref(), known))]
    UnknownMethod {
        /// Merge or mask.
        kind: Kind,
        /// The id asked for.
        id: String,
        /// The known id with the most similar spelling, when one is similar.
        nearest: Option<String>,
        /// Every known id of that kind.
        known: Vec<String>,
    },
    /// A method was asked to join too few or too many experts.
    #[error("{method} takes {} experts, got {count}", expert_range(*min, *max))]
    ExpertCount {
        /// The method's id.
        method: String,
        /// Experts given.
        count: usize,
        /// Fewest allowed.
        min: usize,
        /// Most allowed, if there is a limit.
        max: Option<usize>,
    },
    /// A parameter has a value outside its schema.
    #[error("{method}: parameter `{parameter}`{} is {value}, allowed is {allowed}", of_expert(*expert))]
    BadParameter {
        /// The method's id.
        method: String,
        /// The parameter's name.
        parameter: String,
        /// Which expert the value was for (from 0), when the parameter has one value an expert.
        expert: Option<usize>,
        /// The value given, as JSON.
        value: String,
        /// Type, range or choices.
        allowed: String,
    },
    /// A parameter without default was not given.
    #[error("{method}: parameter `{parameter}`{} is required: {allowed}", of_expert(*expert))]
    MissingParameter {
        /// The method's id.
        method: String,
        /// The parameter's name.
        parameter: String,
        /// Which expert lacks it (from 0), when the parameter has one value an expert.
        expert: Option<usize>,
        /// Type, range or choices.
        allowed: String,
    },
    /// The method's `plan` asks for something that the boundary does not offer.
    #[error("{method} asks for an impossible plan: {reason}")]
    BadPlan {
        /// The method's id.
        method: String,
        /// What is wrong.
        reason: String,
    },
    /// The caller's buffers do not fit together; the plugin was not called.
    #[error("{method} on tensor {key}: {reason}")]
    BadCall {
        /// The method's id.
        method: String,
        /// The tensor's name.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// The method reported a failure.
    #[error("{method} failed on {}: {message}", place(key))]
    Failed {
        /// The method's id.
        method: String,
        /// The tensor's name; empty in calls that have none.
        key: String,
        /// The plugin's words.
        message: String,
    },
    /// The method panicked; the plugin's SDK caught it.
    #[error("{method} panicked on {}: {message}; this is a bug of the plugin", place(key))]
    Panicked {
        /// The method's id.
        method: String,
        /// The tensor's name; empty in calls that have none.
        key: String,
        /// The panic's message.
        message: String,
    },
    /// The method stopped because [`HostHooks::cancelled`](crate::HostHooks::cancelled) said so.
    #[error("{method} stopped on {} because the run was cancelled", place(key))]
    Cancelled {
        /// The method's id.
        method: String,
        /// The tensor's name; empty in calls that have none.
        key: String,
    },
    /// The method returned a status that version 1 does not have.
    #[error("{method} returned the unknown status {status} on {}: {message}", place(key))]
    UnknownStatus {
        /// The method's id.
        method: String,
        /// The tensor's name; empty in calls that have none.
        key: String,
        /// What it returned.
        status: i32,
        /// The plugin's words, if any.
        message: String,
    },
}

fn suggestion(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(id) => format!("; did you mean `{id}`?"),
        None if known.is_empty() => {
            "; no plugin is loaded: set SKILLWELD_PLUGINS to the folder that holds them".into()
        }
        None => format!(
            "; there are: {}. One of your own is found by --plugin or SKILLWELD_PLUGINS",
            known.join(", ")
        ),
    }
}

fn expert_range(min: usize, max: Option<usize>) -> String {
    match max {
        Some(max) if max == min => format!("exactly {min}"),
        Some(max) => format!("{min} to {max}"),
        None => format!("at least {min}"),
    }
}

fn of_expert(expert: Option<usize>) -> String {
    expert.map_or_else(String::new, |k| format!(" of expert {k}"))
}

fn place(key: &str) -> String {
    if key.is_empty() { "no particular tensor".into() } else { format!("tensor {key}") }
}
