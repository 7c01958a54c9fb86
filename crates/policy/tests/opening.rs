//! What a policy takes, says and refuses when it is opened and asked.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod merge;
mod support;

use std::fs;
use std::num::NonZeroUsize;

use merge::{Merge, observation, spec};
use ndarray::{Array3, Ix2};
use skillweld_policy::{ModelOptions, Observation, Policy, PolicyOptions, Routing, Rule, Shape};
use skillweld_synth::ExpertForm;

#[test]
fn a_forgotten_or_additional_camera_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(2, 1).write(dir.path());
    let raw = |cameras: usize| {
        let image = Array3::from_elem((60, 80, 3), 7u8);
        Observation::new(&vec![image.view(); cameras], &[0.0; 8], "open the drawer")
    };
    let prepared = |channels| Observation::Prepared {
        pixel_values: Array3::zeros((channels, 224, 224)),
        input_ids: vec![1, 2, 3],
        proprio: vec![0.0; 8],
    };
    let policy = Policy::open(dir.path()).unwrap();
    let shape = Shape { proprio_dim: 8, chunk_len: 8, action_dim: 7, images: 2, image_side: 224 };
    assert_eq!(policy.shape(), shape);
    for (observation, words) in [
        (raw(0), "`image_0` is missing: there are 0 images, the policy takes 2"),
        (raw(1), "`image_1` is missing: there are 1 images, the policy takes 2"),
        (raw(3), "`image_2` is one too many: there are 3 images, the policy takes 2"),
        (prepared(6), "shape [6, 224, 224], expected 12 channels: the policy takes 2 images"),
        (prepared(18), "expected 12 channels"),
    ] {
        let mut session = policy.session().unwrap();
        for error in [session.step(&observation).err().unwrap(), session.route(&observation).err().unwrap()] {
            let error = error.to_string();
            assert!(error.contains(words) && error.contains("`--images N`"), "{error}");
        }
    }
    let options = PolicyOptions { images: NonZeroUsize::MIN, ..PolicyOptions::default() };
    let policy = Policy::open_with(dir.path(), &options).unwrap();
    assert_eq!(policy.shape().images, 1);
    for observation in [raw(1), prepared(6)] {
        policy.session().unwrap().step(&observation).unwrap();
    }
}

#[test]
fn several_tasks_without_a_router_must_be_told_apart_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut merge = Merge::new(2, 1);
    merge.router.clear();
    merge.write(dir.path());
    let policy = Policy::open(dir.path()).unwrap();
    assert!(!policy.routes());
    let error = policy.session().err().unwrap().to_string();
    assert!(error.contains("no router") && error.contains("spatial, object"), "{error}");
    policy.session_with(Routing::Fixed(1)).step(&observation(0)).unwrap();
    let one = tempfile::tempdir().unwrap();
    Merge::new(1, 1).write(one.path());
    assert_eq!(Policy::open(one.path()).unwrap().session().unwrap().task(), Some(0));
}

#[test]
fn an_adapter_takes_what_it_lacks_from_its_base() {
    let dir = tempfile::tempdir().unwrap();
    let [base, adapter, full] = ["base", "adapter", "full"].map(|name| dir.path().join(name));
    spec().write_base(&base).unwrap();
    spec().write_expert(&adapter, 0, ExpertForm::Adapter).unwrap();
    spec().write_expert(&full, 0, ExpertForm::Full).unwrap();
    assert!(!adapter.join("tokenizer.json").exists() && !adapter.join("config.json").exists());
    let model = ModelOptions { base: Some(base.clone()), ..ModelOptions::default() };
    let options = PolicyOptions { model, ..PolicyOptions::default() };
    let act = |policy: &Policy| policy.session().unwrap().step(&observation(3)).unwrap();
    let on_base = Policy::open_with(&adapter, &options).unwrap();
    let whole = Policy::open(&full).unwrap();
    assert_eq!(on_base.tasks(), whole.tasks());
    let (on_base, whole) = (act(&on_base), act(&whole));
    support::assert_close(
        "actions",
        &on_base.actions.view().into_dyn(),
        &whole.actions.view().into_dyn(),
        1e-4,
    );
    // Its own statistics count; without them those in the base's config.
    fs::remove_file(adapter.join("dataset_statistics.json")).unwrap();
    let policy = Policy::open_with(&adapter, &options).unwrap();
    assert_eq!(policy.tasks(), ["pretraining_mix"]);
    assert_ne!(act(&policy).actions, whole.actions);
}

/// Scores by values, by keys and by both, one number at a time.
#[test]
fn router_scores_are_the_means_over_their_subspaces() {
    let mut merge = Merge::new(3, 21);
    let values = ["adapter", "task"];
    let keys = ["adapter_k", "task_k"];
    for (value, key) in values.into_iter().zip(keys) {
        let mut other = Merge::new(3, 22);
        merge.router.insert(key, other.router.remove(value).unwrap());
    }
    let all = merge.router.clone();
    for names in [values.to_vec(), keys.to_vec(), [values, keys].concat()] {
        merge.router = names.iter().map(|&name| (name, all[name].clone())).collect();
        let dir = tempfile::tempdir().unwrap();
        merge.write(dir.path());
        let policy = Policy::open(dir.path()).unwrap();
        let routing = Routing::Router { rule: Rule::default(), every_chunks: None };
        let decision = policy.session_with(routing).route(&observation(1)).unwrap();
        for (task, candidate) in decision.candidates.iter().enumerate() {
            let step = policy.session_with(Routing::Fixed(task)).step(&observation(1)).unwrap();
            // One shared block: the head reads depth 2.
            let hidden = step.perception.hidden_to_host().unwrap();
            let hidden = hidden.index_axis(ndarray::Axis(0), 2);
            let (task_tokens, action_tokens) = hidden.split_at(ndarray::Axis(0), hidden.nrows() - 64);
            let norm = |name: &str| {
                let subspace = all[name][task].view().into_dimensionality::<Ix2>().unwrap();
                let tokens = if name.starts_with("adapter") { &action_tokens } else { &task_tokens };
                let sum: f64 = tokens
                    .rows()
                    .into_iter()
                    .map(|h| {
                        let product = |p: ndarray::ArrayView1<'_, f32>| -> f64 {
                            p.iter().zip(h).map(|(p, h)| f64::from(*p) * f64::from(*h)).sum()
                        };
                        subspace.rows().into_iter().map(|p| product(p).powi(2)).sum::<f64>().sqrt()
                    })
                    .sum();
                sum / tokens.nrows() as f64
            };
            let expected = names.iter().map(|name| norm(name)).sum::<f64>() / names.len() as f64;
            let found = f64::from(candidate.score);
            assert!((found - expected).abs() <= 1e-5 * expected, "{names:?}: {found} {expected}");
        }
    }
}

#[test]
fn prompts_have_a_limit_even_where_the_config_has_none() {
    let dir = tempfile::tempdir().unwrap();
    Merge::new(1, 1).write(dir.path());
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let text = config["text_config"].as_object_mut().unwrap();
    text.shift_remove("max_position_embeddings");
    fs::write(path, config.to_string()).unwrap();
    let policy = Policy::open(dir.path()).unwrap();
    let long = Observation::Prepared {
        pixel_values: Array3::zeros((12, 224, 224)),
        input_ids: vec![1; 513],
        proprio: vec![0.0; 8],
    };
    let error = policy.session().unwrap().step(&long).unwrap_err().to_string();
    assert!(error.contains("513 tokens, but 512"), "{error}");
}
