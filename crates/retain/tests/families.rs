//! Every family of policies, every modality: against the formula in f64, and at the ends to the bit.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use skillweld_retain::{Alphas, Interpolation, Method};
use skillweld_synth::{PolicyFamily, PolicySpec};
use skillweld_tensor::Dtype;
use support::{control, fails, files, linear, registry, retain, rewrite, tensors, values};

const FAMILIES: [PolicyFamily; 4] =
    [PolicyFamily::Pi0, PolicyFamily::Pi05, PolicyFamily::SmolVla, PolicyFamily::Groot];
const DATA_SET: &str = "kitchen";

/// A policy and a fine-tune of it, normalised alike.
fn policies(spec: &PolicySpec) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let [base, finetuned] = ["base", "stove"].map(|name| dir.path().join(name));
    spec.write_base(&base, DATA_SET).unwrap();
    spec.write_expert(&finetuned, 0, DATA_SET).unwrap();
    (dir, base, finetuned)
}

/// By hand, from what the parts of these models are called.
fn modality(key: &str) -> &'static str {
    let has = |parts: &[&str]| parts.iter().any(|part| key.contains(part));
    if has(&["vision_tower.", "multi_modal_projector.", "vision_model.", "connector.", "mlp1."]) {
        "vision"
    } else if has(&["language_model.", "text_model.", "paligemma.lm_head.", "vlm.lm_head."]) {
        "language"
    } else if has(&["eagle_linear."]) {
        "other"
    } else {
        "action"
    }
}

fn alpha_of(alpha: Alphas, key: &str) -> f64 {
    alpha.named().into_iter().find(|(name, _)| *name == modality(key)).unwrap().1
}

/// Compares every element with (1 − α) b + α f in f64: f32 rounds two factors, two products and a sum, and then the dtype
/// once, by half a unit in its last place.
fn assert_interpolated(base: &Path, finetuned: &Path, out: &Path, alpha: Alphas, dtype: Dtype) {
    let half_ulp = match dtype {
        Dtype::BF16 => 2f64.powi(-8),
        _ => 2f64.powi(-24),
    };
    let (base, finetuned, out) = (values(base), values(finetuned), values(out));
    assert_eq!(out.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    for (key, merged) in &out {
        let alpha = alpha_of(alpha, key);
        for (i, merged) in merged.iter().enumerate() {
            let (b, f) = (f64::from(base[key][i]), f64::from(finetuned[key][i]));
            let exact = (1.0 - alpha) * b + alpha * f;
            let bound = half_ulp * exact.abs() + 3.0 * 2f64.powi(-24) * (b.abs() + f.abs());
            assert!((f64::from(*merged) - exact).abs() <= bound, "{key}[{i}]: {merged}, not {exact}");
        }
    }
}

#[test]
fn modalities_have_an_alpha_each() {
    let alpha = Alphas { vision: 0.25, language: 0.5, action: 0.7, other: 0.9 };
    for family in FAMILIES {
        let spec = PolicySpec::tiny(family);
        let (dir, base, finetuned) = policies(&spec);
        let interpolation = Interpolation::linear(alpha);
        let pair = skillweld_retain::Pair::open(&base, &finetuned, &interpolation).unwrap();
        let (registry, control) = (registry(), control(1));
        let step = pair.plan(registry, &control).unwrap();
        let summary = step.summary();
        let mut planned: Vec<_> = summary.tensors.iter().map(|line| line.key.clone()).collect();
        let mut keys = spec.keys();
        planned.sort();
        keys.sort();
        assert_eq!(planned, keys, "{family:?}");
        for line in &summary.tensors {
            assert_eq!(line.modality, modality(&line.key), "{family:?}: {}", line.key);
        }
        // Whoever reads the plan learns of tensors that no α was given for.
        let note = summary.notes.iter().find(|note| note.contains("no known modality"));
        assert_eq!(note.is_some(), family == PolicyFamily::Groot, "{:?}", summary.notes);
        assert!(note.is_none_or(
            |note| note.contains("backbone.eagle_linear.bias and 1 more") && note.contains("0.9")
        ));
        let out = dir.path().join("out");
        step.run(&out, false, &control).unwrap();
        assert_interpolated(&base, &finetuned, &out, alpha, Dtype::BF16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_alphas_equal_the_formula(
        (vision, language, action, other) in (0f64..=1.0, 0f64..=1.0, 0f64..=1.0, 0f64..=1.0),
        family in proptest::sample::select(FAMILIES.to_vec()),
        dtype in proptest::sample::select(vec![Dtype::BF16, Dtype::F32]),
        seed in any::<u64>(),
    ) {
        let alpha = Alphas { vision, language, action, other };
        let (dir, base, finetuned) = policies(&PolicySpec { family, dtype, seed });
        let out = dir.path().join("out");
        retain(&base, &finetuned, &Interpolation::linear(alpha), &out).unwrap();
        assert_interpolated(&base, &finetuned, &out, alpha, dtype);
    }
}

#[test]
fn the_ends_are_the_two_policies_to_the_byte() {
    for family in FAMILIES {
        for dtype in [Dtype::BF16, Dtype::F32] {
            let (dir, base, finetuned) = policies(&PolicySpec { family, dtype, seed: 3 });
            for method in [Method::Linear, Method::Slerp] {
                for (alpha, end) in [(0.0, &base), (1.0, &finetuned)] {
                    let out = dir.path().join(format!("{}{alpha}", method.name()));
                    let done =
                        retain(&base, &finetuned, &Interpolation { method, ..linear(alpha) }, &out).unwrap();
                    assert!(tensors(&out) == tensors(end), "{family:?} {dtype} {method:?} {alpha}");
                    let expected = if alpha == 0.0 { &done.base } else { &done.finetuned };
                    assert_eq!(done.result["weights"], expected["weights"]);
                }
            }
            // Each modality for itself.
            let alpha = Alphas { vision: 0.0, language: 0.5, action: 1.0, other: 0.5 };
            let out = dir.path().join("mixed");
            retain(&base, &finetuned, &Interpolation::linear(alpha), &out).unwrap();
            let (merged, base, finetuned) = (tensors(&out), tensors(&base), tensors(&finetuned));
            for (key, tensor) in &merged {
                match modality(key) {
                    "vision" => assert!(*tensor == base[key], "{key}"),
                    "action" => assert!(*tensor == finetuned[key], "{key}"),
                    _ => assert!(*tensor != base[key] && *tensor != finetuned[key], "{key}"),
                }
            }
        }
    }
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let (dir, base, finetuned) = policies(&PolicySpec::tiny(PolicyFamily::Pi05));
    for method in Method::ALL {
        let density = method.is_random().then_some(0.5);
        let interpolation = Interpolation { method, density, seed: 5, ..linear(0.6) };
        let made = [1, 3].map(|threads| {
            let (registry, control) = (registry(), control(threads));
            let pair = skillweld_retain::Pair::open(&base, &finetuned, &interpolation).unwrap();
            let out = dir.path().join(format!("{}{threads}", method.name()));
            pair.plan(registry, &control).unwrap().run(&out, false, &control).unwrap();
            files(&out)
        });
        assert!(made[0].len() > 3 && made[0] == made[1], "{method:?}");
    }
}

/// A slow DARE: which entries are kept follows from the method; here only that each is kept or dropped, and how many.
#[test]
fn dare_keeps_a_share_of_the_changes_and_makes_up_for_the_rest() {
    let spec = PolicySpec { dtype: Dtype::F32, ..PolicySpec::tiny(PolicyFamily::Pi0) };
    let (dir, base, finetuned) = policies(&spec);
    let dare = |seed, name: &str| {
        let interpolation = Interpolation { method: Method::Dare, density: Some(0.25), seed, ..linear(0.5) };
        let out = dir.path().join(name);
        retain(&base, &finetuned, &interpolation, &out).unwrap();
        values(&out)
    };
    let (merged, base, finetuned) = (dare(1, "a"), values(&base), values(&finetuned));
    let (mut kept, mut all) = (0, 0);
    for (key, merged) in &merged {
        for (i, merged) in merged.iter().enumerate() {
            let (b, f) = (f64::from(base[key][i]), f64::from(finetuned[key][i]));
            let change = (f64::from(*merged) - b).abs();
            let expected = (0.5 / 0.25 * (f - b)).abs();
            let rounding = 8.0 * 2f64.powi(-24) * (b.abs() + f.abs());
            assert!(change <= rounding || (change - expected).abs() <= rounding, "{key}[{i}]");
            kept += usize::from(change > rounding);
            all += usize::from(expected > 4.0 * rounding);
        }
    }
    // Five standard deviations of a binomial.
    let spread = 5.0 * (all as f64 * 0.25 * 0.75).sqrt();
    assert!((kept as f64 - all as f64 * 0.25).abs() < spread + all as f64 * 0.01, "{kept} of {all}");
    assert!(dare(1, "again") == merged && dare(2, "other") != merged);
}

#[test]
fn slerp_follows_its_formula_tensor_by_tensor() {
    let spec = PolicySpec { dtype: Dtype::F32, ..PolicySpec::tiny(PolicyFamily::Pi0) };
    let (dir, base, finetuned) = policies(&spec);
    let out = dir.path().join("out");
    retain(&base, &finetuned, &Interpolation { method: Method::Slerp, ..linear(0.3) }, &out).unwrap();
    let (merged, base, finetuned) = (values(&out), values(&base), values(&finetuned));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let mut curved = 0;
    for (key, merged) in &merged {
        let (b, f) = (&base[key], &finetuned[key]);
        let cosine = dot(b, f) / (dot(b, b) * dot(f, f)).sqrt();
        let (by_b, by_f) = if cosine.abs() > 0.9995 {
            (0.7, 0.3)
        } else {
            curved += 1;
            let angle = cosine.acos();
            ((0.7 * angle).sin() / angle.sin(), (0.3 * angle).sin() / angle.sin())
        };
        for (i, merged) in merged.iter().enumerate() {
            let (x, y) = (by_b * f64::from(b[i]), by_f * f64::from(f[i]));
            assert!(
                (f64::from(*merged) - (x + y)).abs() <= 4.0 * 2f64.powi(-24) * (x.abs() + y.abs()),
                "{key}[{i}]"
            );
        }
    }
    // Matrices have turned by a twentieth; gains lie around one, and have hardly turned at all.
    assert!(curved > 0 && curved < merged.len(), "{curved}");
}

#[test]
fn policies_of_two_families_are_not_mixed() {
    let (dir, base, _) = policies(&PolicySpec::tiny(PolicyFamily::Pi0));
    let other = dir.path().join("other");
    PolicySpec::tiny(PolicyFamily::Pi05).write_expert(&other, 0, DATA_SET).unwrap();
    fails(retain(&base, &other, &linear(0.5), &dir.path().join("out")), &["π0.5", "family π0;"]);
    assert!(!dir.path().join("out").exists());
}

#[test]
fn wrappers_of_training_are_no_part_of_names() {
    let (dir, base, finetuned) = policies(&PolicySpec::tiny(PolicyFamily::Pi0));
    let [plain, compiled] = ["plain", "compiled"].map(|name| dir.path().join(name));
    retain(&base, &finetuned, &linear(0.5), &plain).unwrap();
    rewrite(&finetuned, |all| {
        *all = std::mem::take(all)
            .into_iter()
            .map(|(key, tensor)| (format!("_orig_mod.{key}"), tensor))
            .collect();
    });
    retain(&base, &finetuned, &linear(0.5), &compiled).unwrap();
    assert!(tensors(&plain) == tensors(&compiled));
}

#[test]
fn a_tied_embedding_under_either_name_is_the_same_weight() {
    let (dir, base, finetuned) = policies(&PolicySpec::tiny(PolicyFamily::Pi0));
    let [head, embedding] = ["lm_head.weight", "model.language_model.embed_tokens.weight"]
        .map(|name| format!("paligemma_with_expert.paligemma.{name}"));
    let [plain, renamed] = ["plain", "renamed"].map(|name| dir.path().join(name));
    retain(&base, &finetuned, &linear(0.5), &plain).unwrap();
    rewrite(&finetuned, |all| {
        let tied = all.remove(&head).unwrap();
        all.insert(embedding.clone(), tied);
    });
    retain(&base, &finetuned, &linear(0.5), &renamed).unwrap();
    let (plain, renamed) = (tensors(&plain), tensors(&renamed));
    for name in [&head, &embedding].into_iter().filter(|name| renamed.contains_key(*name)) {
        assert!(renamed[name] == plain[&head], "{name}");
    }
    assert!(renamed.contains_key(&head) || renamed.contains_key(&embedding));
}

#[test]
fn the_head_that_nobody_fills_may_be_missing_or_hold_anything() {
    const UNUSED: &str = "paligemma_with_expert.gemma_expert.lm_head.weight";
    let (dir, base, finetuned) = policies(&PolicySpec::tiny(PolicyFamily::Pi0));
    for method in [Method::Linear, Method::Dare] {
        let density = method.is_random().then_some(0.5);
        let interpolation = Interpolation { method, density, ..linear(0.5) };
        rewrite(&finetuned, |all| {
            let nan = half::bf16::NAN.to_le_bytes().repeat(40 * 16);
            all.insert(UNUSED.to_owned(), (Dtype::BF16, vec![40, 16], nan));
        });
        let out = dir.path().join(format!("nan-{}", method.name()));
        retain(&base, &finetuned, &interpolation, &out).unwrap();
        assert!(tensors(&out)[UNUSED] == tensors(&base)[UNUSED]);
        rewrite(&finetuned, |all| drop(all.remove(UNUSED)));
        let out = dir.path().join(format!("missing-{}", method.name()));
        retain(&base, &finetuned, &interpolation, &out).unwrap();
        assert!(tensors(&out)[UNUSED] == tensors(&base)[UNUSED]);
    }
}

#[test]
fn bad_inputs_are_named() {
    let (dir, base, finetuned) = policies(&PolicySpec::tiny(PolicyFamily::Pi0));
    let out = dir.path().join("out");
    let dare = Interpolation { method: Method::Dare, density: Some(0.5), ..linear(0.5) };
    let original = tensors(&finetuned);
    for interpolation in [linear(0.5), dare] {
        let bad = |edit: &dyn Fn(&mut support::Tensors), words: &[&str]| {
            rewrite(&finetuned, |all| edit(all));
            fails(retain(&base, &finetuned, &interpolation, &out), words);
            assert!(!out.exists());
            rewrite(&finetuned, |all| all.clone_from(&original));
        };
        bad(&|all| drop(all.remove("action_in_proj.weight")), &["action_in_proj.weight"]);
        bad(
            &|all| all.get_mut("action_in_proj.weight").unwrap().1.reverse(),
            &["action_in_proj.weight", "shapes differ"],
        );
        bad(
            &|all| {
                let nan = half::bf16::NAN.to_le_bytes();
                all.get_mut("action_out_proj.bias").unwrap().2[..2].copy_from_slice(&nan);
            },
            &["action_out_proj.bias", "NaN", "finetuned"],
        );
    }
    fails(retain(&base, &base, &linear(0.5), &out), &["both"]);
    fails(retain(&base, &dir.path().join("nowhere"), &linear(0.5), &out), &["nowhere", "is not there"]);
    fails(retain(&base, &finetuned, &linear(1.5), &out), &["1.5", "0 to 1"]);
    let dtype = Interpolation { dtype: Some("int8".to_owned()), ..linear(0.5) };
    fails(retain(&base, &finetuned, &dtype, &out), &["float"]);
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("mine"), "precious").unwrap();
    fails(retain(&base, &finetuned, &linear(0.5), &out), &["already exists"]);
    fails(retain(&base, &finetuned, &linear(0.5), &base.join("inside")), &["inside"]);
    assert_eq!(std::fs::read(out.join("mine")).unwrap(), b"precious");
}

#[test]
fn another_dtype_is_rounded_to_once() {
    let (dir, base, finetuned) = policies(&PolicySpec::tiny(PolicyFamily::Pi0));
    let out = dir.path().join("out");
    let wide = Interpolation { dtype: Some("float32".to_owned()), ..linear(0.3) };
    retain(&base, &finetuned, &wide, &out).unwrap();
    assert!(tensors(&out).values().all(|(dtype, ..)| *dtype == Dtype::F32));
    assert_interpolated(&base, &finetuned, &out, Alphas::all(0.3), Dtype::F32);
}
