//! Merges that are stopped, killed, or run out of disk: nothing half-written, nothing lost.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{Bench, Ran, contents, run, skillweld};

/// A merge that takes seconds, caught in the middle.
struct Running {
    bench: Bench,
    child: Child,
}

impl Running {
    fn start(oddity: &str, force: bool, prepare: impl FnOnce(&Bench)) -> Self {
        let bench = Bench::language_models();
        let plugin = bench.odd_plugin(&[oddity]);
        let recipe = bench.language_recipe("odd", "");
        prepare(&bench);
        let mut command = skillweld();
        command.arg("merge").arg(recipe).arg(bench.join("merged")).arg("--plugin").arg(plugin);
        command.args(["--threads", "1"]).args(force.then_some("--force"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut running = Self { bench, child };
        let started = Instant::now();
        while running.partial().is_none() {
            assert!(running.child.try_wait().unwrap().is_none(), "it ended too soon");
            assert!(started.elapsed() < Duration::from_secs(60), "it never began to write");
            std::thread::sleep(Duration::from_millis(2));
        }
        running
    }

    /// The hidden folder that it writes to.
    fn partial(&self) -> Option<String> {
        self.bench.names().into_iter().find(|name| name.starts_with(".merged.partial"))
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    fn end(self) -> (Bench, std::process::ExitStatus, Ran) {
        let output = self.child.wait_with_output().unwrap();
        (self.bench, output.status, output.into())
    }
}

#[test]
fn the_first_signal_stops_cleanly() {
    for signal in ["INT", "TERM"] {
        let running = Running::start("SLOW", false, |_| ());
        running.signal(signal);
        let asked = Instant::now();
        let (bench, _, ran) = running.end();
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(ran.code, Some(130), "{}", ran.error);
        assert_eq!(ran.said(), ["stopped; nothing was written"]);
        assert_eq!(bench.names(), ["base", "expert0", "expert1", "odd.so", "recipe.yaml"]);
    }
}

#[test]
fn the_second_signal_ends_even_what_does_not_listen() {
    let mut running = Running::start("STUCK", false, |_| ());
    // A signal before the plugin is called would stop the merge in time.
    let out = BufReader::new(running.child.stdout.as_mut().unwrap());
    assert!(out.lines().any(|line| line.unwrap() == "stuck"), "the plugin was never called");
    running.signal("INT");
    // Signals of one kind that come together are one.
    std::thread::sleep(Duration::from_millis(200));
    assert!(running.child.try_wait().unwrap().is_none(), "the plugin should be stuck");
    running.signal("INT");
    let (bench, _, ran) = running.end();
    assert_eq!(ran.code, Some(130), "{}", ran.error);
    assert!(!bench.join("merged").exists());
}

#[test]
fn a_kill_leaves_inputs_and_the_earlier_output_and_the_next_run_cleans_up() {
    let running = Running::start("SLOW", true, |bench| {
        fs::create_dir(bench.join("merged")).unwrap();
        fs::write(bench.join("merged/skillweld.json"), "precious").unwrap();
    });
    let inputs = |bench: &Bench| ["base", "expert0", "expert1"].map(|name| contents(&bench.join(name)));
    let before = inputs(&running.bench);
    running.signal("KILL");
    let (bench, status, _) = running.end();
    assert_eq!(status.signal(), Some(9));
    assert!(bench.names().iter().any(|name| name.starts_with(".merged.partial")), "{:?}", bench.names());
    assert!(inputs(&bench) == before, "an input has changed");
    assert_eq!(fs::read_to_string(bench.join("merged/skillweld.json")).unwrap(), "precious");

    let (recipe, out) = (bench.language_recipe("linear", ""), bench.join("merged"));
    run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--force".as_ref()]).succeeded();
    assert!(bench.join("merged/model.safetensors").is_file());
    assert_eq!(bench.names(), ["base", "expert0", "expert1", "merged", "odd.so", "recipe.yaml"]);
}

/// Mounts a file system of size `$1` at `$2`, runs the rest there, and writes the names that are left on it to `$3`.
const ON_A_SMALL_DISK: &str = r#"
mount -t tmpfs -o "size=$1" skillweld-test "$2" || exit 99
disk=$2 left=$3
shift 3
"$@"
code=$?
ls -A "$disk" >"$left"
exit $code
"#;

/// Runs the program on a disk so small that a merge cannot fit, in a namespace of its own: that needs no privileges, and
/// the disk goes with the process. `None` where the system gives nobody such a namespace.
fn on_a_small_disk(bench: &Bench, size: &str, args: &[&Path]) -> Option<(Ran, String)> {
    let (disk, left) = (bench.join("disk"), bench.join("left"));
    fs::create_dir(&disk).unwrap();
    ["-rm", "-m"].iter().find_map(|namespace| {
        let program = skillweld();
        let mut command = Command::new("unshare");
        command.args([namespace, "sh", "-c", ON_A_SMALL_DISK, "sh", size]).arg(&disk).arg(&left);
        command.arg(program.get_program()).args(args);
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().ok()?;
        // Otherwise there was no namespace, or nothing could be mounted in it.
        let names = fs::read_to_string(&left).ok()?;
        Some((output.into(), names))
    })
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    // Too small for the weights, and just too small for what comes after them.
    for (size, file) in [("64k", "model.safetensors"), ("116k", "merged")] {
        let bench = Bench::language_models();
        let (recipe, out) = (bench.language_recipe("linear", ""), bench.join("disk/merged"));
        let Some((ran, left)) = on_a_small_disk(&bench, size, &["merge".as_ref(), &recipe, &out]) else {
            support::say(
                "a_full_disk_is_an_error_that_leaves_nothing: SKIPPED, no namespace with a disk of its own here",
            );
            return;
        };
        ran.failed_with(&["space left", file]);
        assert_eq!(left, "");
    }
}
