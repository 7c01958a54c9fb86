//! Episodes with a merged policy: which task runs, and why.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod merge;

use std::num::NonZeroUsize;

use merge::{Merge, observation};
use skillweld_policy::{Outcome, Policy, PolicyError, Reason, Routing, Rule, Session, Step};
use tempfile::TempDir;

const TASKS: usize = 3;

fn merged() -> (TempDir, Policy) {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(TASKS, 1).write(dir.path());
    let policy = Policy::open(dir.path()).unwrap();
    (dir, policy)
}

fn router(rule: Rule, every: usize) -> Routing {
    Routing::Router { rule, every_chunks: NonZeroUsize::new(every) }
}

/// Nobody is this sure: the router abstains.
fn never_sure() -> Rule {
    Rule { min_probability: 1.0, ..Rule::default() }
}

fn only(task: usize) -> Rule {
    Rule { candidates: vec![task], ..Rule::default() }
}

/// What a step says about its task: which, why, whether the router was asked, and how many forwards that took.
fn said(step: &Step) -> (usize, Reason, bool, usize) {
    (step.task, step.reason, step.decision.is_some(), step.forwards.language)
}

#[test]
fn the_router_is_asked_on_the_first_observation_alone() {
    let (_dir, policy) = merged();
    let mut session = policy.session_with(router(Rule::default(), 0));
    assert_eq!((session.task(), session.decision()), (None, None));
    let first = session.step(&observation(0)).unwrap();
    let task = first.task;
    assert_eq!(said(&first), (task, Reason::Routed, true, TASKS));
    for seed in 1..4 {
        assert_eq!(said(&session.step(&observation(seed)).unwrap()), (task, Reason::Routed, false, 1));
    }
    assert_eq!((session.task(), session.decision()), (Some(task), first.decision.as_ref()));
    session.reset();
    assert_eq!((session.task(), session.decision()), (None, None));
    assert_eq!(said(&session.step(&observation(0)).unwrap()), (task, Reason::Routed, true, TASKS));
}

#[test]
fn chunks_are_counted_from_the_last_decision() {
    let (_dir, policy) = merged();
    let asked = |session: &mut Session<&Policy>, steps: usize| -> Vec<bool> {
        (0..steps).map(|seed| session.step(&observation(seed)).unwrap().decision.is_some()).collect()
    };
    let mut session = policy.session_with(router(only(1), 3));
    assert_eq!(asked(&mut session, 7), [true, false, false, true, false, false, true]);
    // One chunk after a decision: another way to choose starts a new count.
    session.set_routing(Routing::Fixed(2));
    assert_eq!(asked(&mut session, 2), [false, false]);
    session.set_routing(router(only(0), 2));
    assert_eq!(asked(&mut session, 5), [true, false, true, false, true]);
    session.reset();
    assert_eq!(asked(&mut session, 3), [true, false, true]);
}

#[test]
fn a_requested_task_goes_before_the_sessions_own_until_it_is_withdrawn() {
    let (_dir, policy) = merged();
    let mut session = policy.session_with(router(only(1), 0));
    let mut step = |task| {
        session.request(task);
        said(&session.step(&observation(0)).unwrap())
    };
    assert_eq!(step(None), (1, Reason::Routed, true, 1));
    assert_eq!(step(Some(2)), (2, Reason::Requested, false, 1));
    assert_eq!(step(Some(2)), (2, Reason::Requested, false, 1));
    assert_eq!(step(None), (1, Reason::Routed, true, 1));
    assert_eq!(step(None), (1, Reason::Routed, false, 1));
    let mut fixed = policy.session_with(Routing::Fixed(0));
    fixed.request(Some(2));
    fixed.reset();
    assert_eq!(fixed.task(), Some(2));
    fixed.request(None);
    assert_eq!(said(&fixed.step(&observation(0)).unwrap()), (0, Reason::Fixed, false, 1));
    for unknown in [policy.session_with(Routing::Fixed(TASKS)), {
        fixed.request(Some(TASKS));
        fixed
    }] {
        let mut session = unknown;
        let error = session.step(&observation(0)).unwrap_err().to_string();
        assert!(error.contains("no task 3"), "{error}");
    }
}

#[test]
fn only_the_first_routing_may_fail_for_being_unsure() {
    let (_dir, policy) = merged();
    let mut session = policy.session_with(router(never_sure(), 2));
    for _ in 0..2 {
        let error = session.step(&observation(0)).unwrap_err();
        let PolicyError::Abstained { probabilities } = error else { panic!("{error}") };
        assert_eq!(probabilities.len(), TASKS);
        assert_eq!((session.task(), session.decision()), (None, None));
    }
    // Sure of the first observation, of none after it.
    session.set_routing(router(only(1), 2));
    let mut rule = Rule { candidates: vec![1, 2], ..Rule::default() };
    let first = session.step(&observation(0)).unwrap();
    assert_eq!(said(&first), (1, Reason::Routed, true, 1));
    let second = session.step(&observation(1)).unwrap();
    assert_eq!(said(&second), (1, Reason::Routed, false, 1));
    // The episode's own rule cannot change without forgetting, so unsureness must come from the scores: a threshold
    // between the best probabilities of two observations.
    let best = |seed: usize| {
        let decision = policy.session_with(router(rule.clone(), 0)).route(&observation(seed)).unwrap();
        let best = decision.candidates.iter().map(|c| c.probability).fold(0.0, f32::max);
        (best, decision.task().unwrap(), seed)
    };
    let mut all: Vec<_> = (0..8).map(best).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ((unsure, _, weak), (sure, task, strong)) = (all[0], all[7]);
    assert!(unsure < sure, "{all:?}");
    rule.min_probability = f32::midpoint(unsure, sure);
    let mut session = policy.session_with(router(rule.clone(), 1));
    assert_eq!(said(&session.step(&observation(strong)).unwrap()), (task, Reason::Routed, true, 2));
    let kept = session.step(&observation(weak)).unwrap();
    // The running task's forward was among the two: no third.
    assert_eq!(said(&kept), (task, Reason::Kept, true, 2));
    assert_eq!(kept.decision.as_ref().unwrap().outcome, Outcome::Abstained);
    assert_eq!(session.decision(), kept.decision.as_ref());
    assert_eq!(said(&session.step(&observation(strong)).unwrap()), (task, Reason::Routed, true, 2));
    let mut named = policy.session_with(Routing::Fixed(task));
    let alone = named.step(&observation(weak)).unwrap();
    assert_eq!(kept.actions, alone.actions);

    // With a fallback there is always somebody.
    rule.fallback = Some(0);
    let mut session = policy.session_with(router(rule, 1));
    assert_eq!(said(&session.step(&observation(strong)).unwrap()), (task, Reason::Routed, true, 2));
    // No candidate: one forward more.
    assert_eq!(said(&session.step(&observation(weak)).unwrap()), (0, Reason::FellBack, true, 3));
}

#[test]
fn every_choice_acts_as_its_task_alone_without_another_forward() {
    let (_dir, policy) = merged();
    let alone = |task: usize| policy.session_with(Routing::Fixed(task)).step(&observation(4)).unwrap();
    for fallback in 0..TASKS {
        let rule = Rule { fallback: Some(fallback), ..never_sure() };
        let step = policy.session_with(router(rule, 0)).step(&observation(4)).unwrap();
        assert_eq!(said(&step), (fallback, Reason::FellBack, true, TASKS));
        assert_eq!(step.actions, alone(fallback).actions);
    }
    let routed = policy.session_with(router(Rule::default(), 0)).step(&observation(4)).unwrap();
    assert_eq!(said(&routed), (routed.task, Reason::Routed, true, TASKS));
    let alone = alone(routed.task);
    assert_eq!((routed.actions, routed.normalized_actions), (alone.actions, alone.normalized_actions));
}

#[test]
fn stages_add_up_to_the_whole() {
    let (_dir, policy) = merged();
    let fallback = |candidates| Rule { candidates, fallback: Some(0), ..never_sure() };
    for routing in [
        Routing::Fixed(2),
        router(Rule::default(), 0),
        router(fallback(vec![]), 0),
        router(fallback(vec![1, 2]), 0),
    ] {
        let step = policy.session_with(routing.clone()).step(&observation(2)).unwrap();
        let l = step.latency;
        let stages = [l.preprocess_ms, l.wait_ms, l.switch_ms, l.routing_ms, l.model.total_ms()];
        let sum: f64 = stages.iter().sum();
        assert!(stages.iter().all(|&ms| ms >= 0.0), "{l:?}");
        assert!((sum - l.total_ms).abs() <= 1e-6 * l.total_ms, "{routing:?}: {sum} of {l:?}");
        assert_eq!(l.routing_ms > 0.0, step.decision.is_some(), "{l:?}");
    }
}
