use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::decision::{Reason, Routing, Scores};

type Labels = Vec<(String, String)>;

/// Prometheus' text format 0.0.4, read more strictly than Prometheus does: each metric has one HELP and one TYPE before its
/// samples, which stand together; names, labels and numbers are well-formed; no sample comes twice; histograms add up.
fn parse(page: &str) -> BTreeMap<String, Vec<(String, Labels, f64)>> {
    assert!(page.ends_with('\n') && !page.contains("\n\n"));
    let mut metrics: BTreeMap<String, Vec<(String, Labels, f64)>> = BTreeMap::new();
    let (mut helped, mut current, mut kind) = (String::new(), String::new(), String::new());
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !text.is_empty() && !text.contains('\\'), "{line}");
            helped = name.to_owned();
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, found) = typed.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP stands before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&found), "{line}");
            assert_eq!(found == "counter", name.ends_with("_total"), "{line}");
            assert!(metrics.insert(name.to_owned(), Vec::new()).is_none(), "{name} comes twice");
            (current, kind) = (name.to_owned(), found.to_owned());
        } else {
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} below {current}"));
            let expected: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(expected.contains(&suffix), "{line}");
            assert!(seen.insert((name.clone(), labels.clone())), "{line} comes twice");
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            metrics.get_mut(&current).unwrap().push((suffix.to_owned(), labels, value));
        }
    }
    for samples in metrics.values() {
        let buckets: Vec<_> = samples.iter().filter(|(suffix, ..)| suffix == "_bucket").collect();
        let Some((_, last, total)) = buckets.last() else { continue };
        assert_eq!(last[..], [("le".to_owned(), "+Inf".to_owned())]);
        let bound = |labels: &Labels| labels[0].1.replace("+Inf", "inf").parse::<f64>().unwrap();
        assert!(
            buckets.windows(2).all(|pair| bound(&pair[0].1) < bound(&pair[1].1) && pair[0].2 <= pair[1].2)
        );
        let count = samples.iter().find(|(suffix, ..)| suffix == "_count").unwrap();
        assert_eq!(count.2, *total);
        assert!(samples.iter().any(|(suffix, ..)| suffix == "_sum"));
    }
    metrics
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !name.is_empty()
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> (String, Labels, f64) {
    let name: String = line.chars().take_while(|c| !"{ ".contains(*c)).collect();
    assert!(is_name(&name), "{line}");
    let mut rest = &line[name.len()..];
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let (mut value, mut chars) = (String::new(), after.chars());
            loop {
                match chars.next().unwrap() {
                    '"' => break,
                    '\\' => value.push(match chars.next().unwrap() {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        c => panic!("\\{c} in {line}"),
                    }),
                    c => value.push(c),
                }
            }
            labels.push((label.to_owned(), value));
            rest = chars.as_str();
            match rest.split_at(1) {
                (",", more) => rest = more,
                ("}", more) => break rest = more,
                _ => panic!("{line}"),
            }
        }
    }
    (name, labels, rest.strip_prefix(' ').unwrap().parse().unwrap())
}

fn ran(task: &str, reason: Reason) -> Outcome {
    Outcome::Ran(Routing { task: task.into(), reason, scores: None, asked: reason != Reason::Requested })
}

#[test]
fn the_page_is_what_prometheus_reads() {
    let metrics = Metrics::default();
    metrics.count_request("starvla", "reset");
    metrics.count_error("busy");
    let odd = "pick \"it\"\\\n";
    metrics.count_decision(&ran(odd, Reason::Routed));
    metrics.count_decision(&ran(odd, Reason::Requested));
    metrics.count_decision(&ran("push", Reason::Fallback));
    metrics.count_decision(&Outcome::Abstained(Scores { candidates: Vec::new(), margin: 0.0 }));
    metrics.inference.observe(Duration::from_millis(3));
    metrics.inference.observe(Duration::from_secs(60));
    metrics.inference.observe(Duration::from_secs(600));
    let page = parse(&metrics.text(true, 2, Some(7)));
    let value = |name: &str, suffix: &str, labels: &[(&str, &str)]| {
        let same = |found: &Labels| found.iter().map(|(a, b)| (&**a, &**b)).eq(labels.iter().copied());
        let sample = page[name].iter().find(|(end, found, _)| end == suffix && same(found));
        sample.unwrap_or_else(|| panic!("{name}{suffix} {labels:?} in {page:?}")).2
    };
    assert_eq!(value("skillweld_requests_total", "", &[("protocol", "starvla"), ("kind", "reset")]), 1.0);
    assert_eq!(value("skillweld_requests_total", "", &[("protocol", "openpi"), ("kind", "infer")]), 0.0);
    // Every protocol that can be spoken, and no other.
    let protocols: BTreeSet<_> =
        page["skillweld_requests_total"].iter().map(|(_, labels, _)| &*labels[0].1).collect();
    let mut expected = BTreeSet::from(["openpi", "starvla", "xpolicylab"]);
    expected.extend(cfg!(feature = "zmq").then_some("gr00t"));
    assert_eq!(protocols, expected);
    assert_eq!(value("skillweld_errors_total", "", &[("kind", "busy")]), 1.0);
    // Answers are counted by task, and what the router decided apart from them.
    for (reason, count) in [("routed", 1.0), ("requested", 1.0)] {
        assert_eq!(value("skillweld_answers_total", "", &[("task", odd), ("reason", reason)]), count);
    }
    let decisions = [(odd, "routed"), ("push", "fallback"), ("", "abstained")];
    for (task, outcome) in decisions {
        assert_eq!(value("skillweld_decisions_total", "", &[("task", task), ("outcome", outcome)]), 1.0);
    }
    assert_eq!(page["skillweld_decisions_total"].len(), decisions.len());
    let histogram = "skillweld_inference_seconds";
    for (bound, count) in
        [("0.002", 0.0), ("0.005", 1.0), ("30", 1.0), ("60", 2.0), ("120", 2.0), ("+Inf", 3.0)]
    {
        assert_eq!(value(histogram, "_bucket", &[("le", bound)]), count, "{bound}");
    }
    assert_eq!(value(histogram, "_sum", &[]), 660.003);
    assert_eq!(value("skillweld_queue_length", "", &[]), 2.0);
    assert_eq!(value("skillweld_device_memory_bytes", "", &[]), 7.0);
    assert!(value("process_resident_memory_bytes", "", &[]) > 1e5);
}

#[test]
fn endless_task_names_do_not_fill_memory() {
    let metrics = Metrics::default();
    for index in 0..2 * MAX_TASKS {
        metrics.count_decision(&ran(&index.to_string(), Reason::Routed));
    }
    for counts in [&metrics.answers, &metrics.decisions] {
        assert!(counts.0.lock().unwrap().len() <= MAX_TASKS + 1);
    }
}
