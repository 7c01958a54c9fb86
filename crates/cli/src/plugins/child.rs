//! The law kit in a process of its own: a plugin that crashes takes that one down, one that hangs is stopped with it,
//! and we can tell.
//!
//! The child writes one JSON message a line to its standard output. Lines that are none, and all of standard error, are
//! the plugin's own prints. The child's standard input never has anything to read; it ends with the parent, and the child
//! with it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use skillweld_plugin_check::{CheckOptions, Outcome, check_watched};
use skillweld_plugin_host::Plugin;

use super::chatter::Chatter;
use crate::console::Console;

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
    /// It ended before its time: how, and over what.
    pub(crate) crash: Option<String>,
    /// It did not end in its time: over what.
    pub(crate) hang: Option<String>,
}

/// Flag that makes `plugins check` the child.
pub(crate) const FLAG: &str = "in-this-process";

/// Checks the plugin in a child process, which may spend `limit` on each law.
pub(crate) fn check_in_child(
    plugin: &Path,
    options: &CheckOptions,
    limit: Duration,
    console: Console,
) -> Result<Findings> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program)
        .args(["plugins", "check", &format!("--{FLAG}")])
        .args(["--cases", &options.cases.to_string(), "--seed", &options.seed.to_string(), "--"])
        .arg(plugin)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the process that checks the plugin")?;
    let heard = listen(&mut child)?;
    let (mut methods, mut unusable, mut chatter) = (Vec::new(), None, Chatter::new());
    let (mut now, mut deadline) = ("starting".to_owned(), Instant::now() + limit);
    let ended = loop {
        match heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Heard::Message(Message::Now(next))) => (now, deadline) = (next, Instant::now() + limit),
            Ok(Heard::Message(Message::Checked(report))) => methods.push(report),
            Ok(Heard::Message(Message::Unusable(error))) => unusable = Some(error),
            Ok(Heard::Print(line)) => chatter.line(&line),
            // Its time is over, or both outputs are closed and it is about to end.
            Err(_) => break end(&mut child, deadline)?,
        }
        // A plugin that prints without end is always heard in time.
        if Instant::now() >= deadline {
            break end(&mut child, deadline)?;
        }
    };
    chatter.finish(console);
    if let Some(error) = unusable {
        bail!(error);
    }
    let (mut crash, mut hang) = (None, None);
    match ended {
        Some(status) if status.success() => {}
        Some(status) => {
            let how = status.to_string().replace("signal: ", "signal ");
            crash = Some(format!("the plugin crashed: {how} while {now}"));
        }
        None => {
            let limit_s = limit.as_secs();
            hang = Some(format!(
                "the plugin hangs: stopped after {limit_s} s while {now}; if it only needs longer, raise `--timeout`"
            ));
        }
    }
    Ok(Findings { methods, crash, hang })
}

/// What comes from the child.
enum Heard {
    Message(Message),
    /// A line of the plugin's own.
    Print(String),
}

/// Reads both outputs of the child until they close, or nobody listens any more.
fn listen(child: &mut Child) -> Result<Receiver<Heard>> {
    // Bounded, so that a plugin that prints without end waits for us.
    let (sender, heard) = sync_channel(64);
    let output = child.stdout.take().context("the checking process has no output")?;
    let errors = child.stderr.take().context("the checking process has no error output")?;
    let for_errors = sender.clone();
    thread::spawn(move || forward(output, &sender, |line| serde_json::from_str(line).ok()));
    thread::spawn(move || forward(errors, &for_errors, |_| None));
    Ok(heard)
}

fn forward(output: impl Read, to: &SyncSender<Heard>, message: impl Fn(&str) -> Option<Message>) {
    /// Longer lines are cut; a message is never that long.
    const MAX_LINE: u64 = 1 << 20;
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        if !matches!(output.by_ref().take(MAX_LINE).read_until(b'\n', &mut line), Ok(1..)) {
            return;
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\r', '\n']);
        let heard = message(line).map_or_else(|| Heard::Print(line.to_owned()), Heard::Message);
        if to.send(heard).is_err() {
            return;
        }
    }
}

/// Waits for the child until the deadline, then kills it; `None` when it had to be killed.
fn end(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    const POLL: Duration = Duration::from_millis(5);
    let cannot = "cannot wait for the checking process";
    loop {
        if let Some(status) = child.try_wait().context(cannot)? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill().context("cannot stop the checking process")?;
            child.wait().context(cannot)?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Ends this process when the parent is gone, however that came.
fn end_with_parent() {
    let (ready, watching) = sync_channel(0);
    thread::spawn(move || {
        let mut parent = io::stdin().lock();
        let _ = ready.send(());
        // The parent holds the other end open and writes nothing.
        let _ = io::copy(&mut parent, &mut io::sink());
        // Not `exit`: its handlers wait for a plugin that hangs while it is loaded.
        std::process::abort();
    });
    // While a library is being loaded no thread gets past its start: this one has to be there before.
    let _ = watching.recv();
}

/// Checks the plugin here and tells the parent. Ends with success unless the plugin ends the process first.
pub(crate) fn check_here(plugin: &Path, options: &CheckOptions) -> Result<()> {
    end_with_parent();
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
