//! What the recipe says about the router, and what it gets when it says nothing.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::Path;

use skillweld_merge::ActionKind;
use skillweld_store::Checkpoint;
use support::heads::{HeadTensor, dry_run, experts, head};
use support::{merge, tensor};

/// Heads as VLA-Adapter's plain block names them: projections shared with self-attention.
fn vla_adapter(seed: usize) -> Vec<HeadTensor> {
    let mut head = head(seed, 8);
    for tensor in &mut head {
        tensor.key = tensor.key.replace("v_adapter", "v_proj").replace("v_task", "q_proj");
    }
    head
}

fn heads(d: usize) -> Vec<Vec<HeadTensor>> {
    vec![head(0, d), head(1, d)]
}

/// The router of the merge, if it has one.
fn router(root: &Path, recipe: &str) -> Option<Checkpoint> {
    let out = root.join("merged");
    merge(root, recipe, &out, 2).unwrap();
    let file = out.join("router.safetensors");
    file.exists().then(|| Checkpoint::open(file).unwrap())
}

#[test]
fn whoever_asks_for_a_router_gets_action_experts_and_it() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &heads(8)) + "router: {rank: 4}\n";
    let summary = dry_run(dir.path(), &recipe).unwrap();
    assert!(summary.tensors.iter().any(|line| line.action == ActionKind::PerTask));
    let router = router(dir.path(), &recipe).unwrap();
    assert_eq!(tensor(&router, "e1/task").shape(), [4, 8]);
    assert!(dir.path().join("merged/action_expert.safetensors").exists());
}

#[test]
fn a_router_without_action_experts_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &[vec![], vec![]]) + "router: {rank: 4}\n";
    let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
    assert!(text.contains("no model has one; remove `router`"), "{text}");
}

#[test]
fn a_router_can_be_switched_off() {
    for off in ["none", "false", "null", ""] {
        let dir = tempfile::tempdir().unwrap();
        let recipe = experts(dir.path(), &heads(8));
        assert!(router(dir.path(), &format!("{recipe}mask: tall\nrouter: {off}\n")).is_none(), "{off}");
        // Where the router is off, nobody asks for action experts either.
        let summary = dry_run(dir.path(), &format!("{recipe}router: {off}\n")).unwrap();
        assert!(summary.tensors.iter().all(|line| line.action != ActionKind::PerTask), "{off}");
    }
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &heads(8)) + "mask: tall\nrouter: true\n";
    let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
    assert!(text.contains("router (line 5) must be `none`, or a mapping"), "{text}");
}

#[test]
fn an_implied_router_is_as_large_as_the_heads_allow() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &heads(6)) + "mask: tall\n";
    let notes = dry_run(dir.path(), &recipe).unwrap().notes.join("\n");
    assert!(notes.contains("the router's rank is 6"), "{notes}");
    assert_eq!(tensor(&router(dir.path(), &recipe).unwrap(), "e0/adapter").shape(), [6, 6]);
    let provenance = std::fs::read_to_string(dir.path().join("merged/skillweld.json")).unwrap();
    let provenance: serde_json::Value = serde_json::from_str(&provenance).unwrap();
    assert_eq!(provenance["router"]["rank"], 6);
}

#[test]
fn heads_without_its_projections_have_no_implied_router() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &[vla_adapter(0), vla_adapter(1)]) + "mask: tall\n";
    let notes = dry_run(dir.path(), &recipe).unwrap().notes.join("\n");
    assert!(
        notes.contains("no router") && notes.contains("v_adapter.weight") && notes.contains("VLA-Adapter"),
        "{notes}"
    );
    assert!(router(dir.path(), &recipe).is_none());
    let dir = tempfile::tempdir().unwrap();
    let recipe = experts(dir.path(), &heads(8)) + "mask: tall\naction_expert: {head_blocks: 2}\n";
    let notes = dry_run(dir.path(), &recipe).unwrap().notes.join("\n");
    assert!(notes.contains("all 2 blocks stay per task"), "{notes}");
    assert!(router(dir.path(), &recipe).is_none());
}

#[test]
fn a_router_asked_for_is_had_as_asked_or_refused_by_the_plan() {
    let refused = |heads: &[Vec<HeadTensor>], rest: &str, words: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let recipe = experts(dir.path(), heads) + rest;
        let text = dry_run(dir.path(), &recipe).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let asked = "mask: tall\nrouter: {rank: 8}\n";
    refused(&heads(6), asked, &["router.rank is 8", "of e0 has only 6", "`router: {rank: 6}`"]);
    refused(&[vla_adapter(0), vla_adapter(1)], asked, &["v_adapter.weight", "of e0 lacks", "`router: none`"]);
    refused(
        &heads(8),
        "mask: tall\naction_expert: {head_blocks: 2}\nrouter: {rank: 2}\n",
        &["lower action_expert.head_blocks", "`router: none`"],
    );
    let mut vector = heads(8);
    vector[1].iter_mut().filter(|t| t.key.ends_with("0.v_task.weight")).for_each(|t| t.shape = vec![64]);
    refused(&vector, asked, &["needs a matrix", "v_task.weight", "[64] in e1"]);
}
