//! Sweeps on a Ray cluster of this one machine, which is started for the test.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::{announce, command, output, target_dir};
use crate::python::Environment;
use crate::random_experts;

const RAY: Environment = Environment {
    name: "ray-venv",
    what: "Ray, through pip",
    of_the_system: false,
    described_by: &[],
    installs: &[&["ray[default]==2.60.0"]],
};

/// How long a head may take until its dashboard answers, and until it has gone.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) fn install() -> Result<()> {
    RAY.install()
}

/// Runs one sweep as jobs of Ray and on this machine: the scores must be the same. Where Ray cannot be installed, says so
/// and goes on; an error on CI.
pub(crate) fn test(skillweld: &Path) -> Result<()> {
    announce("a sweep on a Ray cluster");
    if let Err(error) = install() {
        ensure!(std::env::var_os("CI").is_none(), "{error:#}");
        println!("skipped: Ray cannot be installed ({error})");
        return Ok(());
    }
    let dir = target_dir().join("ray-demo");
    let (_, recipe) = random_experts::write_inputs(&dir)?;
    let head = Head::start(skillweld)?;
    let score = r#"import json, sys
report = json.load(open(sys.argv[1] + "/skillweld.json"))["report"]
print(json.dumps({"score": report["masks"]["selfish_ratio"], "seed": int(sys.argv[2])}))"#;
    let eval = format!("python3 -c '{score}' {{checkpoint}} {{seed}}");
    let sweep = |out: &str, engine: &[&str]| -> Result<Value> {
        let mut sweep = command(skillweld);
        sweep.arg("sweep").arg(&recipe).arg("--out").arg(dir.join(out)).args(["--eval", &eval, "--json"]);
        sweep.args(["--set", "mask.lambda=0.4,0.8", "--seeds", "2", "--parallel", "2"]).args(engine);
        Ok(serde_json::from_str(&output(&mut sweep)?)?)
    };
    let here = sweep("here", &[])?;
    let there = sweep("there", &["--engine", "ray", "--address", &head.address])?;
    ensure!(here["points"] == there["points"], "on this machine: {here:#}\non Ray: {there:#}");
    ensure!(here["points"][0]["mean"] != here["points"][1]["mean"], "the points are all alike: {here:#}");
    println!("the same scores as on this machine");
    head.stop()
}

/// A head with its workers, in the foreground of a process of ours.
struct Head {
    child: Child,
    address: String,
    log: PathBuf,
    /// Ray's files; sockets lie in it, whose paths must be short.
    temporary: PathBuf,
}

impl Head {
    /// Starts it on ports that are free, with `skillweld` on the workers' `PATH`.
    fn start(skillweld: &Path) -> Result<Self> {
        let ports = free_ports::<3>()?;
        let temporary = std::env::temp_dir().join(format!("ray-{}", std::process::id()));
        let log = target_dir().join("ray-demo/head.log");
        let programs = skillweld.parent().unwrap_or(Path::new("."));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut ray = command(RAY.python().with_file_name("ray"));
        ray.args(["start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2", "--port=0"])
            .args([
                "--include-dashboard=true",
                "--dashboard-host=127.0.0.1",
                "--object-store-memory=100000000",
            ])
            .arg(format!("--dashboard-port={}", ports[0]))
            .arg(format!("--ray-client-server-port={}", ports[1]))
            .arg(format!("--dashboard-agent-listen-port={}", ports[2]))
            .arg(format!("--temp-dir={}", temporary.display()))
            .env("PATH", format!("{}:{path}", programs.display()))
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let child = ray.spawn().context("cannot start Ray")?;
        let address = format!("http://127.0.0.1:{}", ports[0]);
        let mut head = Self { child, address, log, temporary };
        head.wait_for_dashboard(ports[0])?;
        Ok(head)
    }

    fn wait_for_dashboard(&mut self, port: u16) -> Result<()> {
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("Ray ended with {status}:\n{}", log());
            }
            ensure!(started.elapsed() < PATIENCE, "Ray's dashboard did not come up:\n{}", log());
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Ends it and all that it has started.
    fn stop(mut self) -> Result<()> {
        self.end();
        let status = self.child.try_wait()?;
        ensure!(status.is_some(), "Ray did not end");
        Ok(())
    }

    fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Asked to end, it ends all that it has started.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(200));
        }
        let _ = self.child.kill();
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Ports that nobody listens on right now, above those that Ray gives to its workers.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
