//! Runs the user's command on this machine.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::command::quoted;
use crate::ledger::Outcome;
use crate::score::{LastScore, Tail};
use crate::{EvalCommand, SweepError};

/// How long an evaluation may take to end once it is asked to.
const GRACE: Duration = Duration::from_secs(3);
/// How long outputs are waited for when the shell has ended: somebody may still hold them.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longest pause between two looks at the child.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct Heard {
    score: LastScore,
    out: Tail,
    error: Tail,
}

/// Evaluates a checkpoint: its score, or why there is none.
///
/// # Errors
/// [`SweepError::Stopped`] once `cancelled` says so; the command and what it has started are ended then.
pub(crate) fn evaluate(
    command: &EvalCommand,
    (checkpoint, seed, point): (&Path, u64, &str),
    cancelled: &dyn Fn() -> bool,
) -> Result<Outcome, SweepError> {
    let filled = command.filled(&quoted(&checkpoint.to_string_lossy()), seed, point);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(filled);
    shell.env("SKILLWELD_CHECKPOINT", checkpoint).env("SKILLWELD_SEED", seed.to_string());
    shell.env("SKILLWELD_POINT", point);
    // A group of its own: what the command starts is ended with it.
    shell.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Group(shell.spawn().map_err(SweepError::Shell)?);
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (ended, all_read) = mpsc::channel();
    let listen = |mut stream: Option<Box<dyn Read + Send>>, take: fn(&mut Heard, &[u8])| {
        let (heard, ended) = (Arc::clone(&heard), ended.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(n) = stream.as_mut().and_then(|s| s.read(&mut buffer).ok()).filter(|n| *n > 0) {
                take(&mut heard.lock().unwrap_or_else(PoisonError::into_inner), &buffer[..n]);
            }
            let _ = ended.send(());
        });
    };
    let out = child.0.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
    let error = child.0.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
    listen(out, |heard, bytes| {
        heard.score.push(bytes);
        heard.out.push(bytes);
    });
    listen(error, |heard, bytes| heard.error.push(bytes));
    let status = child.wait(cancelled)?;
    for _ in 0..2 {
        let _ = all_read.recv_timeout(LAST_WORDS);
    }
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let score = heard.score.finish();
    let last_said = if heard.error.text().is_empty() { heard.out.text() } else { heard.error.text() };
    Ok(match score {
        _ if !status.success() => Outcome::Failed(with_tail(&status.to_string(), &heard.error.text())),
        Some(score) => Outcome::Scored(score),
        None => Outcome::Failed(with_tail(NO_SCORE, &last_said)),
    })
}

/// Why a command that ended well has failed.
pub(crate) const NO_SCORE: &str =
    "printed no line with a JSON number, or with an object that has a number `score`";

/// What happened, and the last that was heard.
pub(crate) fn with_tail(what: &str, tail: &str) -> String {
    if tail.is_empty() { what.to_owned() } else { format!("{what}: {tail}") }
}

/// The shell and all that it has started.
struct Group(Child);

impl Group {
    fn wait(&mut self, cancelled: &dyn Fn() -> bool) -> Result<ExitStatus, SweepError> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(status) = self.0.try_wait().map_err(SweepError::Shell)? {
                // Whatever it left running in the background would go on reading a checkpoint that is gone.
                self.signal(Signal::KILL);
                return Ok(status);
            }
            if cancelled() {
                self.end();
                return Err(SweepError::Stopped);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE);
        }
    }

    fn end(&mut self) {
        self.signal(Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(PAUSE);
        }
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        // It may be gone already.
        let _ = pid.map(|pid| kill_process_group(pid, signal));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;

    fn run(command: &str) -> Outcome {
        let command = EvalCommand::parse(command).unwrap();
        evaluate(&command, (Path::new("my point"), 3, "a=1"), &|| false).unwrap()
    }

    fn failed(command: &str) -> String {
        match run(command) {
            Outcome::Failed(why) => why,
            Outcome::Scored(score) => panic!("{score:?}"),
        }
    }

    #[test]
    fn scores_come_from_the_last_line() {
        let Outcome::Scored(score) = run("echo 5; echo '{\"score\": 0.5, \"steps\": 3}'; echo bye") else {
            panic!("no score")
        };
        assert_eq!((score.score, score.metrics["steps"]), (0.5, 3.0));
        let said = run(
            "test {checkpoint} = 'my point' && test \"$SKILLWELD_CHECKPOINT\" = {checkpoint} && echo $((SKILLWELD_SEED + {seed}))",
        );
        assert!(matches!(&said, Outcome::Scored(score) if score.score == 6.0), "{said:?}");
    }

    #[test]
    fn failures_say_why() {
        assert_eq!(failed("echo 1; echo no robot >&2; exit 3"), "exit status: 3: no robot");
        assert_eq!(failed("echo thinking"), format!("{NO_SCORE}: thinking"));
        assert!(failed("kill -9 $$").contains("signal: 9"));
        assert!(failed("no_such_program_at_all").contains("no_such_program_at_all"));
    }

    #[test]
    fn what_is_left_in_the_background_is_ended() {
        let started = Instant::now();
        assert!(matches!(run("sleep 60 & echo 1"), Outcome::Scored(_)));
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn a_stop_ends_the_command() {
        let command = EvalCommand::parse("sleep 60; echo 1").unwrap();
        let started = Instant::now();
        let stop = || started.elapsed() > Duration::from_millis(100);
        let result = evaluate(&command, (Path::new("."), 0, ""), &stop);
        assert!(matches!(result, Err(SweepError::Stopped)));
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    }
}
