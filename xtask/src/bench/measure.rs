//! Wall time, processor time and peak anonymous memory of a whole process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::process::line;

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    /// User and system time of all threads, in the kernel's ticks of 10 ms.
    pub(crate) cpu_s: f64,
    /// Highest sum of anonymous pages seen, looked at every 5 ms. Mapped files are not counted: they are the page cache's.
    pub(crate) anonymous_mb: f64,
}

/// Runs `command` with its output in `log`, and fails with that log unless it succeeds.
pub(crate) fn measure(command: &mut Command, log: &Path) -> Result<Cost> {
    let line = line(command);
    let file = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file);

    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    let process = format!("/proc/{}", child.id());
    let pid = Pid::from_child(&child);
    let ended = AtomicBool::new(false);
    let (wall, anonymous_kb) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_kb(&process).unwrap_or(0));
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        // Leaves the ended child as a zombie, whose accounts can still be read.
        let waited = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let wall = start.elapsed();
        ended.store(true, Ordering::Relaxed);
        let peak = watcher.join().unwrap_or(0);
        waited.map(|_| (wall, peak))
    })?;
    let cpu_s = cpu_seconds(&process).context("no accounts of the ended process")?;
    let status = child.wait()?;
    ensure!(status.success(), "`{line}` failed ({status}):\n{}", fs::read_to_string(log).unwrap_or_default());
    Ok(Cost { wall_s: wall.as_secs_f64(), cpu_s, anonymous_mb: anonymous_kb as f64 * 1024.0 / 1e6 })
}

fn anonymous_kb(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Fields 14 to 17 of `stat`: user and system time of the process and of its children that ended.
fn cpu_seconds(process: &str) -> Option<f64> {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("{process}/stat")).ok()?;
    // The second field is the program's name in brackets, which may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks = after_name.split_whitespace().skip(11).take(4).map(str::parse::<u64>);
    Some(ticks.collect::<Result<Vec<_>, _>>().ok()?.iter().sum::<u64>() as f64 / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_shell_costs_what_it_burns() {
        let log = std::env::temp_dir().join(format!("skillweld-measure-{}", std::process::id()));
        let mut busy = Command::new("sh");
        busy.args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"]);
        let cost = measure(&mut busy, &log).unwrap();
        // One thread: processor time is wall time, but for ticks, start-up and what other processes took.
        assert!(cost.cpu_s > 0.0 && cost.cpu_s <= cost.wall_s + 0.03, "{cost:?}");
        assert!(cost.anonymous_mb < 100.0, "{cost:?}");
        let error = measure(Command::new("sh").args(["-c", "echo broken; exit 3"]), &log).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
        fs::remove_file(log).unwrap();
    }
}
