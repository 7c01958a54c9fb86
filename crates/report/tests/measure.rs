//! Every number of a report against a slow, obvious form of it.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use ndarray::Array2;
use proptest::prelude::*;
use skillweld_linalg::{Threads, thin_svd};
use skillweld_report::{Control, InputState, Options, Report, ReportError};
use support::{Made, RESCALERS, SHAPES, TASKS};

fn report(made: &Made) -> Report {
    let options = Options { inputs_folder: Some(made.dir.path().to_owned()), ..Options::default() };
    Report::measure(&made.path("merged"), &options, &Control::SILENT).unwrap()
}

fn near(a: f64, b: f64) -> bool {
    // Sums of at most a thousand f64 terms near one, in another order. A mask may keep nothing of the shortest
    // tensor: what is then no cosine must be none in both.
    (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * b.abs().max(1.0)
}

/// M_k ⊙ τ, flattened over the tensors taken.
fn masked(made: &Made, task: usize, tensors: &[usize]) -> Vec<f64> {
    let of = |&tensor: &usize| {
        let bits = made.masks[task][tensor].iter();
        made.vector[tensor].iter().zip(bits).map(|(v, keep)| if *keep { f64::from(*v) } else { 0.0 })
    };
    tensors.iter().flat_map(of).collect()
}

/// τ_k of an expert, as f32 subtracts.
fn own(made: &Made, task: usize, tensors: &[usize]) -> Vec<f64> {
    let of = |&tensor: &usize| {
        let base = made.base[tensor].iter();
        made.experts[task][tensor].iter().zip(base).map(|(x, base)| f64::from(x - base))
    };
    tensors.iter().flat_map(of).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

const ALL: [usize; 5] = [0, 1, 2, 3, 4];
/// The tensors of each layer, layers in the order of a report: a norm outside layers counts by its key.
const LAYERS: [(&str, &[usize]); 3] = [
    ("language_model.model.layers.0", &[0, 1]),
    ("language_model.model.layers.1", &[2, 3]),
    ("language_model.model.norm.weight", &[4]),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    // Of the other seed one mask keeps nothing of the norm.
    #[test]
    fn masks_and_vectors_are_what_they_are_by_definition(seed in prop_oneof![11 => any::<u64>(), 1 => Just(11_068_269_865_168_125_312)]) {
        let made = Made::new(seed, true);
        let report = report(&made);
        let (masks, vectors, experts) =
            (report.masks.unwrap(), report.vectors.unwrap(), report.experts.unwrap());
        let elements: Vec<(usize, usize)> =
            ALL.iter().flat_map(|&t| (0..made.base[t].len()).map(move |i| (t, i))).collect();
        let keepers = |&(t, i): &(usize, usize)| (0..3).filter(|&k| made.masks[k][t][i]).count();
        let share = |count: usize| count as f64 / elements.len() as f64;
        prop_assert_eq!(masks.elements, elements.len() as u64);
        prop_assert_eq!(masks.selfish_ratio, share(elements.iter().filter(|e| keepers(e) == 1).count()));
        prop_assert_eq!(masks.kept_by_none, share(elements.iter().filter(|e| keepers(e) == 0).count()));
        for (i, rescaler) in RESCALERS.into_iter().enumerate() {
            prop_assert_eq!(masks.kept[i], share(elements.iter().filter(|e| made.masks[i][e.0][e.1]).count()));
            prop_assert!(near(vectors.norms[i], f64::from(rescaler) * dot(&masked(&made, i, &ALL), &masked(&made, i, &ALL)).sqrt()));
            prop_assert!(near(experts.norms[i], dot(&own(&made, i, &ALL), &own(&made, i, &ALL)).sqrt()));
            prop_assert!(near(experts.kept_cosines[i], cosine(&masked(&made, i, &ALL), &own(&made, i, &ALL))));
            for j in 0..3 {
                let both = elements.iter().filter(|e| made.masks[i][e.0][e.1] && made.masks[j][e.0][e.1]).count();
                let either = elements.iter().filter(|e| made.masks[i][e.0][e.1] || made.masks[j][e.0][e.1]).count();
                prop_assert_eq!(masks.agreement[i][j], both as f64 / either as f64);
                prop_assert!(near(vectors.cosines[i][j], cosine(&masked(&made, i, &ALL), &masked(&made, j, &ALL))));
                prop_assert!(near(experts.cosines[i][j], cosine(&own(&made, i, &ALL), &own(&made, j, &ALL))));
            }
        }
        let flat = |values: &[Vec<f32>]| values.iter().flatten().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let (base, vector) = (flat(&made.base), flat(&made.vector));
        prop_assert!(near(vectors.norm, dot(&vector, &vector).sqrt()));
        prop_assert!(near(vectors.relative_norm, (dot(&vector, &vector) / dot(&base, &base)).sqrt()));
        for (layer, (name, tensors)) in LAYERS.iter().enumerate() {
            prop_assert_eq!(&vectors.layers[layer].layer, name);
            let kept = |task: usize| tensors.iter().map(|&t| made.masks[task][t].iter().filter(|&&b| b).count()).sum::<usize>();
            let len: usize = tensors.iter().map(|&t| made.base[t].len()).sum();
            prop_assert_eq!(masks.layers[layer].kept[2], kept(2) as f64 / len as f64);
            let pairs = [(0, 1), (0, 2), (1, 2)];
            let cosines = pairs.map(|(i, j)| cosine(&masked(&made, i, tensors), &masked(&made, j, tensors)));
            let finite: Vec<f64> = cosines.into_iter().filter(|cosine| cosine.is_finite()).collect();
            let mean = finite.iter().sum::<f64>() / finite.len() as f64;
            prop_assert!(near(vectors.layers[layer].mean_cosine.unwrap_or(f64::NAN), mean));
            prop_assert!(near(experts.layers[layer].kept_cosines[1], cosine(&masked(&made, 1, tensors), &own(&made, 1, tensors))));
        }
    }

    #[test]
    fn spectra_are_those_of_a_whole_decomposition(seed in any::<u64>()) {
        let made = Made::new(seed, true);
        let report = report(&made);
        // Two matrices in each of two layers; the norm is no matrix.
        prop_assert_eq!(report.spectra.len(), 4);
        for spectrum in &report.spectra {
            let tensor = SHAPES.iter().position(|(key, _)| *key == spectrum.key).unwrap();
            let [rows, columns] = spectrum.shape;
            let values = made.vector[tensor].iter().map(|x| f64::from(*x)).collect();
            let s = thin_svd(&Array2::from_shape_vec((rows, columns), values).unwrap().view()).unwrap().s;
            // A Gram matrix squares the condition: errors are those of the root of ε.
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
            prop_assert!(near(spectrum.largest, s[0]));
            let (sum, squares) = (s.sum(), s.iter().map(|x| x * x).sum::<f64>());
            let entropy: f64 = s.iter().map(|x| -x / sum * (x / sum).ln()).sum();
            prop_assert!(near(spectrum.effective_rank, entropy.exp()), "{} {}", spectrum.effective_rank, entropy.exp());
            prop_assert!(near(spectrum.stable_rank, squares / (s[0] * s[0])));
            let held = |count: usize| s.iter().take(count).map(|x| x * x).sum::<f64>();
            prop_assert!(held(spectrum.rank_of_90_percent) >= 0.9 * squares - 1e-9);
            prop_assert!(held(spectrum.rank_of_90_percent - 1) < 0.9 * squares + 1e-9);
            for (place, relative) in spectrum.places.iter().zip(&spectrum.relative) {
                prop_assert!(near(*relative, s[place - 1] / s[0]));
            }
        }
    }

    #[test]
    fn without_masks_the_vector_is_what_the_weights_have_over_the_base(seed in any::<u64>()) {
        let made = Made::new(seed, false);
        let report = report(&made);
        prop_assert!(report.masks.is_none() && report.why_not("masks").is_some());
        let (vectors, experts) = (report.vectors.unwrap(), report.experts.unwrap());
        prop_assert!(vectors.norms.is_empty() && vectors.cosines.is_empty());
        let vector: Vec<f64> = ALL
            .iter()
            .flat_map(|&t| made.base[t].iter().zip(&made.vector[t]).map(|(base, v)| f64::from((base + v) - base)))
            .collect();
        prop_assert!(near(vectors.norm, dot(&vector, &vector).sqrt()));
        prop_assert!(near(experts.kept_cosines[0], cosine(&vector, &own(&made, 0, &ALL))));
    }
}

#[test]
fn a_report_and_its_page_do_not_depend_on_threads() {
    let made = Made::new(7, true);
    let options = Options { inputs_folder: Some(made.dir.path().to_owned()), ..Options::default() };
    let with = |threads: usize| {
        let threads = Threads::new(NonZeroUsize::new(threads).unwrap());
        let report =
            Report::measure(&made.path("merged"), &options, &Control { threads, ..Control::SILENT }).unwrap();
        (serde_json::to_string(&report).unwrap(), report.to_html().unwrap())
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}

#[test]
fn inputs_that_have_changed_or_gone_are_not_compared() {
    let made = Made::new(3, true);
    std::fs::remove_dir_all(made.path("expert1")).unwrap();
    let states = |report: &Report| report.inputs.iter().map(|input| input.state).collect::<Vec<_>>();
    let missing = report(&made);
    assert_eq!(
        states(&missing),
        [InputState::Found, InputState::Found, InputState::Missing, InputState::Found]
    );
    assert!(missing.experts.is_none() && missing.vectors.is_some());
    assert!(missing.why_not("experts").unwrap().contains("push"), "{:?}", missing.left_out);
    // Another expert lies there now.
    let copy = std::fs::read(made.path("expert0/model.safetensors")).unwrap();
    std::fs::create_dir(made.path("expert1")).unwrap();
    std::fs::write(made.path("expert1/model.safetensors"), copy).unwrap();
    assert_eq!(states(&report(&made))[2], InputState::Changed);
    // Nobody looks.
    let options = Options { inputs: false, ..Options::default() };
    let unsought = Report::measure(&made.path("merged"), &options, &Control::SILENT).unwrap();
    assert_eq!(states(&unsought), [InputState::NotSought; 4]);
    // Without masks the base is needed for τ itself.
    let naive = Made::new(3, false);
    let unsought = Report::measure(&naive.path("merged"), &options, &Control::SILENT).unwrap();
    assert!(unsought.vectors.is_none() && unsought.spectra.is_empty());
    let left_out: Vec<&str> = unsought.left_out.iter().map(|left_out| left_out.section).collect();
    assert_eq!(left_out, ["masks", "vectors", "experts", "spectra", "router"]);
}

#[test]
fn blocks_are_taken_as_the_merge_wrote_them_down() {
    let report = report(&Made::new(1, true));
    let blocks: Vec<_> =
        report.blocks.iter().map(|b| (b.block.as_str(), b.per_task, b.mean, b.range)).collect();
    let expected = [
        ("0", false, Some(0.5), Some([0.25, 0.75])),
        ("1", true, Some(1.125), Some([1.0, 1.25])),
        ("fc2", true, None, None),
    ];
    assert_eq!(blocks, expected);
}

#[test]
fn what_is_no_merged_checkpoint_is_refused_by_name() {
    let made = Made::new(1, true);
    let refused = |path: PathBuf| {
        Report::measure(&path, &Options::default(), &Control::SILENT).unwrap_err().to_string()
    };
    assert!(refused(made.path("base")).contains("not a merged checkpoint"));
    assert!(refused(made.path("nowhere")).contains("nowhere"));
    std::fs::remove_file(made.path("merged/masks.safetensors")).unwrap();
    assert!(refused(made.path("merged")).contains("masks.safetensors is missing"));
    let cancelled = Control { cancelled: &|| true, ..Control::SILENT };
    let made = Made::new(1, true);
    let stopped = Report::measure(&made.path("merged"), &Options::default(), &cancelled).unwrap_err();
    assert!(matches!(stopped, ReportError::Cancelled));
}

#[test]
fn the_page_has_every_section_and_loads_nothing() {
    let made = Made::new(5, true);
    let html = report(&made).to_html().unwrap();
    let mut place = 0;
    for id in ["plan", "masks", "vectors", "experts", "spectra", "blocks", "router", "provenance"] {
        assert!(html.contains(&format!("<a href=\"#{id}\">")), "{id} is not in the contents");
        let section =
            html.find(&format!("<section id=\"{id}\">")).unwrap_or_else(|| panic!("no section {id}"));
        assert!(section > place, "{id} is out of place");
        place = section;
    }
    // Plots: one of bars, one map of agreement, two of masks, size and two cosines of τ, the experts' map and course, two
    // spectra, one of blocks.
    assert_eq!(html.matches("<figure>").count(), 12);
    assert_eq!(html.matches("<svg").count(), 12);
    assert!(html.contains("<p class=\"absent\">This merge has no router.</p>"));
    for loads in ["<script", "<link rel=\"stylesheet", "@import", "url(", "src=", "https://"] {
        assert!(!html.contains(loads), "{loads}");
    }
    assert_eq!(html.matches("http://").count(), html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    // A task's name is text, whatever is in it.
    assert!(!html.contains("<i>turn") && html.contains("&lt;i&gt;turn"));
    assert!(html.len() < 2_000_000, "{}", html.len());
    // Names of tasks stand in the plots.
    assert!(TASKS[..2].iter().all(|task| html.matches(task).count() > 5));
}
