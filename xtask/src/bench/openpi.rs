//! Round trips of an observation through our server and through openpi's serving loop, asked in turns by the same clients.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::raw_client;
use super::report::Machine;
use crate::process::{announce, cargo, command, line, output, root, run as run_command, target_dir};
use crate::python;

/// Round trips of each client with each server in a round; blocks of so many take turns.
const REQUESTS: usize = 2000;
const BLOCK: usize = 100;

/// Milliseconds of every round trip, by client and server.
type Times = BTreeMap<(&'static str, &'static str), Vec<f64>>;

const OURS: &str = "Skillweld";
const THEIRS: &str = "openpi's loop";
const FLOOR: &str = "floor";
const PYTHON: &str = "openpi-client";
const RAW: &str = "raw";

pub(crate) fn run(rounds: usize) -> Result<()> {
    let python = python::install_openpi()?;
    announce("our server");
    run_command(cargo().args(["build", "--release", "-p", "skillweld-serve", "--example", "zero_cost"]))?;
    let machine = Machine::look()?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown").to_owned();
    let request = target_dir().join("openpi-request.msgpack");
    output(peer(&python, "openpi_round_trips.py").arg("--request").arg(&request))?;
    let frame = raw_client::frame(&fs::read(&request)?);

    announce("round trips");
    let (mut times, mut versions) = (Times::new(), Value::Null);
    for round in 0..rounds {
        let ours = Server::start(command(zero_cost()).args(["--port", "0"]))?;
        let theirs = Server::start(&mut peer(&python, "openpi_server.py"))?;
        let mut client = peer(&python, "openpi_round_trips.py");
        let floor = Server::start(peer(&python, "floor_server.py").arg(&request))?;
        let ports = [(OURS, ours.port), (THEIRS, theirs.port), (FLOOR, floor.port)];
        client.args(ports.map(|(_, port)| port.to_string()));
        client.args(["--requests", &REQUESTS.to_string(), "--block", &BLOCK.to_string()]);
        println!("$ {}", line(&client));
        let answer: Value = serde_json::from_str(&output(&mut client)?).context("no JSON came back")?;
        for (server, port) in ports {
            let found = answer["ms"][port.to_string()].as_array().context("no times came back")?;
            times.entry((PYTHON, server)).or_default().extend(found.iter().filter_map(Value::as_f64));
        }
        versions = answer["versions"].clone();
        let raw = raw_client::measure(ports, &frame, REQUESTS, BLOCK)?;
        for (server, found) in raw {
            times.entry((RAW, server)).or_default().extend(found);
        }
        println!("round {}: {:.2}×", round + 1, ratio(&times));
    }
    let text = page(&machine, &load, rounds, &versions, frame.len(), &times);
    announce("results");
    println!("{text}");
    let rows =
        times.iter().map(|((client, server), ms)| json!({"client": client, "server": server, "ms": ms}));
    let json = json!({
        "command": format!("cargo xtask bench --peer openpi --rounds {rounds}"),
        "commit": machine.commit,
        "date": machine.date,
        "load": load,
        "versions": versions,
        "ratio_p50": ratio(&times),
        "rows": rows.collect::<Vec<_>>(),
    });
    machine.keep("openpi", &text, &json)
}

fn zero_cost() -> PathBuf {
    target_dir().join("release/examples/zero_cost")
}

fn peer(python: &Path, script: &str) -> Command {
    let mut peer = command(python);
    peer.arg(root().join("benches/peers").join(script));
    peer
}

/// A server as a process of its own, which ends with this.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it and waits for its first line, which ends with the port.
    fn start(command: &mut Command) -> Result<Self> {
        let line = line(command);
        println!("$ {line} &");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut server = Self { child: child.with_context(|| format!("cannot start `{line}`"))?, port: 0 };
        let mut first = String::new();
        if let Some(out) = &mut server.child.stdout {
            BufReader::new(out).read_line(&mut first)?;
        }
        let port = first.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        server.port = port.with_context(|| format!("`{line}` says no port but `{}`", first.trim()))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn page(
    machine: &Machine,
    load: &str,
    rounds: usize,
    versions: &Value,
    frame_bytes: usize,
    times: &Times,
) -> String {
    let versions: Vec<String> = versions
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, version)| format!("{name} {}", version.as_str().unwrap_or("?")))
        .collect();
    let mut text = format!(
        "# Skillweld's server against openpi's serving loop\n\n`cargo xtask bench --peer openpi --rounds {rounds}` at {}, {}, \
         {} on {} cores, load {load} at the start.\n\n\
         One client sends a LIBERO observation ({frame_bytes} bytes) and waits for 8 × 7 actions, over and over; the policy \
         computes nothing on either side. Skillweld runs `crates/serve/examples/zero_cost.rs`. openpi's own server is not on \
         PyPI: `benches/peers/openpi_server.py` is a reconstruction of its serving loop from the same parts. Both run at the same \
         time and are asked in turns, {BLOCK} requests each, {} in all. `openpi-client` is PyPI's, with {}. The raw client \
         writes ready-made bytes into a socket and reads the reply's. `floor` is a server that reads as many bytes, looks at \
         none of them and answers with ready-made ones: what is left is the client and the kernel. **Ratios may be compared \
         between machines, milliseconds may not.**\n\n\
         | client | server | p50 | p95 | p99 | p50 to openpi's loop | both less the floor |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
        machine.commit,
        machine.date,
        machine.processor,
        machine.cores,
        REQUESTS * rounds,
        versions.join(", "),
    );
    for ((client, server), ms) in times {
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| quantile(ms, share));
        let median = |server| times.get(&(*client, server)).map_or(f64::NAN, |ms| quantile(ms, 0.5));
        let (theirs, floor) = (median(THEIRS), median(FLOOR));
        let _ = writeln!(
            text,
            "| {client} | {server} | {p50:.3} ms | {p95:.3} ms | {p99:.3} ms | {:.2}× | {:.2}× |",
            p50 / theirs,
            (p50 - floor) / (theirs - floor)
        );
    }
    text
}

/// Our median over theirs, by openpi's client.
fn ratio(times: &Times) -> f64 {
    let median = |server| times.get(&(PYTHON, server)).map_or(f64::NAN, |ms| quantile(ms, 0.5));
    median(OURS) / median(THEIRS)
}

/// The value that this share of all is not above.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.max(1) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|share| quantile(&values, share)), [50.0, 95.0, 99.0, 100.0]);
        assert_eq!(quantile(&[3.0], 0.5), 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
