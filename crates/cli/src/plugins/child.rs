//! The law kit in a process of its own: a plugin that crashes takes that one down, and we can tell.
//!
//! The child writes one JSON message a line to its standard output. Lines that are none are the plugin's own prints.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use skillweld_plugin_check::{CheckOptions, Outcome, check_watched};
use skillweld_plugin_host::Plugin;

/// What came of one method.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MethodReport {
    pub(crate) method: String,
    /// `merge` or `mask`.
    pub(crate) kind: String,
    pub(crate) laws: Vec<Law>,
}

/// What came of one law.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Law {
    pub(crate) name: String,
    pub(crate) statement: String,
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(crate) enum Verdict {
    Kept { cases: u32 },
    NotApplicable { reason: String },
    Broken { counterexample: String },
}

impl MethodReport {
    pub(crate) fn passed(&self) -> bool {
        !self.laws.iter().any(|law| matches!(law.verdict, Verdict::Broken { .. }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// What is done next: what was going on, should nothing follow.
    Now(String),
    /// A method is finished.
    Checked(MethodReport),
    /// The file is no usable plugin.
    Unusable(String),
}

/// What the child found, and how it ended if it did not end well.
pub(crate) struct Findings {
    pub(crate) methods: Vec<MethodReport>,
    pub(crate) crash: Option<String>,
}

/// Flag that makes `plugins check` the child.
pub(crate) const FLAG: &str = "in-this-process";

/// Checks the plugin in a child process.
pub(crate) fn check_in_child(plugin: &Path, options: &CheckOptions) -> Result<Findings> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program)
        .args(["plugins", "check", &format!("--{FLAG}")])
        .args(["--cases", &options.cases.to_string(), "--seed", &options.seed.to_string(), "--"])
        .arg(plugin)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the process that checks the plugin")?;
    let output = child.stdout.take().context("the checking process has no output")?;
    let (mut methods, mut now, mut unusable) = (Vec::new(), "starting".to_owned(), None);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot hear the checking process")?;
        match serde_json::from_slice(&line) {
            Ok(Message::Now(next)) => now = next,
            Ok(Message::Checked(report)) => methods.push(report),
            Ok(Message::Unusable(error)) => unusable = Some(error),
            Err(_) if line.is_empty() => {}
            Err(_) => eprintln!("{}", String::from_utf8_lossy(&line)),
        }
    }
    let status = child.wait().context("cannot wait for the checking process")?;
    if let Some(error) = unusable {
        bail!(error);
    }
    let how = status.to_string().replace("signal: ", "signal ");
    let crash = (!status.success()).then(|| format!("the plugin crashed: {how} while {now}"));
    Ok(Findings { methods, crash })
}

/// Checks the plugin here and tells the parent. Ends with success unless the plugin ends the process first.
pub(crate) fn check_here(plugin: &Path, options: &CheckOptions) -> Result<()> {
    tell(&Message::Now("loading it".to_owned()))?;
    let plugin = match Plugin::load(plugin) {
        Ok(plugin) => plugin,
        Err(error) => return tell(&Message::Unusable(error.to_string())),
    };
    for method in plugin.methods() {
        let mut told = Ok(());
        let report = check_watched(method, options, |law| {
            let now = format!("checking law {law} of {} method `{}`", method.kind(), method.id());
            told = tell(&Message::Now(now));
        });
        told?;
        let law = |law: skillweld_plugin_check::LawResult| Law {
            name: law.name.to_owned(),
            statement: law.statement.to_owned(),
            verdict: match law.outcome {
                Outcome::Passed { cases } => Verdict::Kept { cases },
                Outcome::Skipped { reason } => Verdict::NotApplicable { reason },
                Outcome::Failed { message } => Verdict::Broken { counterexample: message },
            },
        };
        let laws = report.laws.into_iter().map(law).collect();
        tell(&Message::Checked(MethodReport { method: report.method, kind: report.kind.to_string(), laws }))?;
    }
    tell(&Message::Now("unloading it".to_owned()))
}

/// One line to the parent. It starts on a fresh line, whatever the plugin has printed.
fn tell(message: &Message) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{}", serde_json::to_string(message)?)?;
    Ok(out.flush()?)
}
