use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::decision::Outcome;
use crate::error::ERROR_KINDS;
use crate::protocol::{KINDS, PROTOCOLS};

/// Upper bounds of the latency histograms in seconds: from a policy that computes nothing to a large one on a small CPU.
const BOUNDS_S: [f64; 18] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0,
    120.0,
];

/// Names of tasks come from the policy; more than these are counted as one.
const MAX_TASKS: usize = 256;

/// What `/metrics` tells.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) clients: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) inference: Histogram,
    pub(crate) request: Histogram,
    /// By protocol and kind.
    requests: [[AtomicU64; KINDS.len()]; PROTOCOLS.len()],
    errors: [AtomicU64; ERROR_KINDS.len()],
    /// Chunks of actions.
    answers: ByTask,
    /// What the router decided; under no task where it abstained.
    decisions: ByTask,
}

/// Counts by task and by a word for how it came about.
#[derive(Default)]
struct ByTask(Mutex<BTreeMap<(String, &'static str), u64>>);

impl ByTask {
    fn count(&self, task: &str, word: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (task.to_owned(), word);
        if counts.len() >= MAX_TASKS && !counts.contains_key(&key) {
            key.0 = "other".to_owned();
        }
        *counts.entry(key).or_default() += 1;
    }

    fn write(&self, page: &mut Page, name: &str, label: &str) {
        for ((task, word), count) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            page.line(name, &[("task", task), (label, word)], *count as f64);
        }
    }
}

impl Metrics {
    pub(crate) fn count_request(&self, protocol: &str, kind: &str) {
        let index = |all: &[&str], one: &str| all.iter().position(|known| *known == one);
        if let (Some(protocol), Some(kind)) = (index(PROTOCOLS, protocol), index(&KINDS, kind)) {
            self.requests[protocol][kind].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_error(&self, kind: &str) {
        if let Some(index) = ERROR_KINDS.iter().position(|known| *known == kind) {
            self.errors[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_decision(&self, outcome: &Outcome) {
        if outcome.asked() {
            self.decisions.count(outcome.task().unwrap_or_default(), outcome.as_str());
        }
        if let Outcome::Ran(routing) = outcome {
            self.answers.count(&routing.task, routing.reason.as_str());
        }
    }

    /// Prometheus' text format, version 0.0.4.
    pub(crate) fn text(&self, ready: bool, queued: usize, device_memory_bytes: Option<u64>) -> String {
        let mut page = Page(String::new());
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;

        page.head("skillweld_requests_total", "counter", "Requests that were received.");
        for (protocol, counts) in PROTOCOLS.iter().zip(&self.requests) {
            for (kind, count) in KINDS.iter().zip(counts) {
                let labels = [("protocol", *protocol), ("kind", *kind)];
                page.line("skillweld_requests_total", &labels, number(count));
            }
        }
        page.head("skillweld_errors_total", "counter", "Requests that were answered with an error.");
        for (kind, count) in ERROR_KINDS.iter().zip(&self.errors) {
            page.line("skillweld_errors_total", &[("kind", kind)], number(count));
        }
        page.head("skillweld_answers_total", "counter", "Chunks of actions by their task and why it ran.");
        self.answers.write(&mut page, "skillweld_answers_total", "reason");
        page.head(
            "skillweld_decisions_total",
            "counter",
            "What the router decided, each time it was asked; no task where it abstained.",
        );
        self.decisions.write(&mut page, "skillweld_decisions_total", "outcome");
        page.histogram("skillweld_inference_seconds", "Time in the policy.", &self.inference);
        page.histogram("skillweld_request_seconds", "From a whole request to its reply.", &self.request);
        let gauges = [
            ("skillweld_ready", "1 once the policy is warm.", f64::from(u8::from(ready))),
            ("skillweld_clients", "Clients that are connected.", number(&self.clients)),
            ("skillweld_queue_length", "Requests that wait for the policy.", queued as f64),
        ];
        for (name, help, value) in gauges {
            page.head(name, "gauge", help);
            page.line(name, &[], value);
        }
        page.head("skillweld_connections_total", "counter", "Clients that have connected.");
        page.line("skillweld_connections_total", &[], number(&self.connections));
        page.head("skillweld_timeouts_total", "counter", "Clients that stopped answering pings or reading.");
        page.line("skillweld_timeouts_total", &[], number(&self.timed_out));
        if let Some(bytes) = device_memory_bytes {
            page.head("skillweld_device_memory_bytes", "gauge", "Memory taken on the accelerator.");
            page.line("skillweld_device_memory_bytes", &[], bytes as f64);
        }
        if let Some(bytes) = resident_bytes() {
            page.head("process_resident_memory_bytes", "gauge", "Resident memory of this process.");
            page.line("process_resident_memory_bytes", &[], bytes as f64);
        }
        page.0
    }
}

/// Counts of durations by upper bound.
#[derive(Default)]
pub(crate) struct Histogram {
    /// The last one is for what is above all bounds.
    counts: [AtomicU64; BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS_S.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut total = 0;
        for (bucket, count) in histogram.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = BOUNDS_S.get(bucket).map_or("+Inf".to_owned(), f64::to_string);
            self.line(&format!("{name}_bucket"), &[("le", &bound)], total as f64);
        }
        self.line(&format!("{name}_sum"), &[], histogram.sum_us.load(Ordering::Relaxed) as f64 / 1e6);
        self.line(&format!("{name}_count"), &[], total as f64);
    }
}

/// Resident memory of this process, where the kernel tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests;
