//! `skillweld merge`: what it writes, prints, refuses and exits with.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::fs;

use skillweld_synth::{ExpertForm, PrismaticSpec};
use support::{Bench, Ran, contents, run, skillweld};

#[test]
fn experts_become_one_checkpoint() {
    let bench = Bench::action_models();
    let (recipe, out) = (bench.action_recipe(), bench.join("merged"));
    let ran = run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str()]).succeeded();
    for words in ["Plan", "ties with tall masks", "Masks", "selfish", "Action expert", "per task", "Merged"] {
        assert!(ran.out.contains(words), "`{words}` is not in\n{}", ran.out);
    }
    assert!(ran.out.contains(&out.display().to_string()), "{}", ran.out);
    assert!(!ran.out.contains('\x1b'), "colour in a file: {}", ran.out);
    assert_eq!(ran.said(), [""; 0], "neither a bar nor anything else where no terminal is");
    let names_the_base = |line: &str| line.split_whitespace().eq(["base", "base"]);
    assert!(ran.out.lines().any(names_the_base), "{}", ran.out);
    for file in [
        "skillweld.json",
        "masks.safetensors",
        "action_expert.safetensors",
        "router.safetensors",
        "config.json",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    assert!(!bench.names().iter().any(|name| name.contains("partial")), "{:?}", bench.names());
}

#[test]
fn json_is_one_document_and_the_threads_change_no_byte() {
    let bench = Bench::action_models();
    let recipe = bench.action_recipe();
    let outs = ["1", "3"].map(|threads| {
        let out = bench.join(&format!("merged{threads}"));
        let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--json".as_ref()];
        let ran = run(args.into_iter().chain(["--threads".as_ref(), threads.as_ref()])).succeeded();
        let document = ran.json();
        assert_eq!(document["output"], out.canonicalize().unwrap().to_str().unwrap());
        assert_eq!(document["threads"], threads.parse::<u64>().unwrap());
        assert!(document["elapsed_s"].as_f64().unwrap() > 0.0);
        let ratio = document["report"]["masks"]["selfish_ratio"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&ratio), "{ratio}");
        assert_eq!(document["report"]["action_expert"].as_array().unwrap().len(), 28); // 24 blocks, 4 layers
        contents(&out)
            .into_iter()
            .map(|(path, bytes)| (path.file_name().unwrap().to_owned(), bytes))
            .collect::<Vec<_>>()
    });
    assert_eq!(outs[0], outs[1]);
}

/// Where there is a GPU the output is the processor's; where there is none, one sentence says so and nothing is written.
#[test]
fn a_gpu_is_asked_for_by_name() {
    let bench = Bench::action_models();
    let (recipe, out) = (bench.action_recipe(), bench.join("merged"));
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--device".as_ref(), "cuda".as_ref()];
    let ran = run(args);
    if skillweld_gpu::Device::open(0).is_ok() {
        let ran = ran.succeeded();
        assert!(ran.out.contains("on the GPU"), "{}", ran.out);
        let on_cpu = bench.join("on_cpu");
        run(["merge".as_ref(), recipe.as_os_str(), on_cpu.as_os_str()]).succeeded();
        let bytes = |out| contents(out).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
        assert_eq!(bytes(&out), bytes(&on_cpu));
    } else {
        ran.failed_with(&["no GPU to use: ", "leave out `--device cuda` to compute on the CPU"]);
        assert!(!out.exists());
        assert!(!bench.names().iter().any(|name| name.contains("partial")), "{:?}", bench.names());
    }
}

#[test]
fn quiet_says_nothing() {
    let bench = Bench::language_models();
    let (recipe, out) = (bench.language_recipe("linear", ""), bench.join("merged"));
    let ran = run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--quiet".as_ref()]).succeeded();
    assert_eq!((ran.out.as_str(), ran.error.as_str()), ("", ""));
    assert!(out.join("model.safetensors").is_file());
}

#[test]
fn a_dry_run_shows_every_key_and_writes_nothing() {
    let bench = Bench::language_models();
    let (recipe, out) = (bench.language_recipe("task_arithmetic", ""), bench.join("merged"));
    let before = bench.names();
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--dry-run".as_ref()];
    let ran = run(args).succeeded();
    for words in ["model.layers.{0..1}.mlp.up_proj.weight", "96 × 32", "bf16", "merged", "26 of them"] {
        assert!(ran.out.to_lowercase().contains(words), "`{words}` is not in\n{}", ran.out);
    }
    let summary = run(args.into_iter().chain(["--json".as_ref()])).succeeded().json();
    assert_eq!(summary["method"], "task_arithmetic");
    assert_eq!(summary["tensors"].as_array().unwrap().len(), 26);
    assert_eq!(bench.names(), before);
}

#[test]
fn refused_tensors_are_listed_and_exit_with_one() {
    let bench = Bench::new();
    let mut spec = skillweld_synth::Qwen2Spec::tiny();
    spec.write_base(&bench.join("base")).unwrap();
    spec.write_expert(&bench.join("expert0"), 0, skillweld_synth::ExpertForm::Full).unwrap();
    spec.model.vocab += 8;
    spec.write_expert(&bench.join("expert1"), 1, skillweld_synth::ExpertForm::Full).unwrap();
    let (recipe, out) = (bench.language_recipe("task_arithmetic", ""), bench.join("merged"));
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str()];
    let dry = run(args.into_iter().chain(["--dry-run".as_ref()]));
    assert_eq!(dry.code, Some(1), "{}{}", dry.out, dry.error);
    for words in ["Refused", "model.embed_tokens.weight", "vocabulary"] {
        assert!(dry.out.contains(words), "`{words}` is not in\n{}", dry.out);
    }
    let summary = run(args.into_iter().chain(["--dry-run".as_ref(), "--json".as_ref()]));
    assert_eq!(summary.code, Some(1));
    assert!(summary.json()["tensors"].as_array().unwrap().iter().any(|line| line["action"] == "refused"));
    run(args).failed_with(&["cannot be merged", "model.embed_tokens.weight"]);
    assert!(!out.exists());
}

#[test]
fn pretrained_weights_are_kept_as_asked_and_it_is_said_how() {
    let bench = Bench::action_models();
    let (recipe, base) = (bench.action_recipe(), bench.join("base"));
    for (how, kept, said) in [
        ("link", "hard_link", "hard links to the base model's files"),
        ("reference", "referenced", "stay with the base model"),
    ] {
        let out = bench.join(how);
        let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--base".as_ref(), how.as_ref()];
        let ran = run(args).succeeded();
        assert!(ran.out.contains(said), "{}", ran.out);
        let again = run(args.into_iter().chain(["--force".as_ref(), "--json".as_ref()])).succeeded().json();
        assert!(again["base"].as_str().is_some_and(|base| base.starts_with(kept)), "{}", again["base"]);
        run(["inspect".as_ref(), out.as_os_str()]).succeeded();
    }
    let moved = bench.join("moved");
    fs::rename(base, &moved).unwrap();
    let reference = bench.join("reference");
    let args = ["inspect".as_ref(), reference.as_os_str()];
    run(args).failed_with(&["not at", "--base PATH"]);
    run(args.into_iter().chain(["--base".as_ref(), moved.as_os_str()])).succeeded();
    // The hard links are whole without the folder that they came from.
    fs::remove_dir_all(moved).unwrap();
    run(["inspect".as_ref(), bench.join("link").as_os_str()]).succeeded();
}

#[test]
fn a_dry_run_tells_that_the_base_cannot_be_kept_so() {
    let bench = Bench::language_models();
    let (recipe, out) = (bench.language_recipe("linear", ""), bench.join("merged"));
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--base".as_ref(), "link".as_ref()];
    run(args.into_iter().chain(["--dry-run".as_ref()])).failed_with(&["`--base link`", "leave `--base` out"]);
    run(args).failed_with(&["`--base link`"]);
    assert!(!out.exists());
}

#[test]
fn folders_above_the_output_are_made_and_named() {
    let bench = Bench::language_models();
    let (recipe, out) = (bench.language_recipe("linear", ""), bench.join("new/deep/merged"));
    let ran = run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str()]).succeeded();
    assert_eq!(
        ran.said(),
        [format!("note: {} is not there yet and will be made", bench.join("new").display())]
    );
    assert!(out.join("model.safetensors").is_file());
    // The second time nothing is made.
    let again = run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--force".as_ref()]).succeeded();
    assert_eq!(again.said(), [""; 0]);
}

#[test]
fn an_existing_output_is_replaced_only_by_force() {
    let bench = Bench::language_models();
    let (recipe, out) = (bench.language_recipe("linear", ""), bench.join("merged"));
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "precious").unwrap();
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str()];
    // Before anything is said of what would be merged.
    assert_eq!(run(args).failed_with(&["already exists", "--force"]).out, "");
    assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "precious");
    let force = || run(args.into_iter().chain(["--force".as_ref()]));
    force().failed_with(&["no output of Skillweld", "merged", "name another output"]);
    assert_eq!(fs::read_to_string(out.join("mine")).unwrap(), "precious");
    fs::write(out.join("skillweld.json"), "{}").unwrap();
    force().succeeded();
    assert!(!out.join("mine").exists());
    assert!(out.join("model.safetensors").is_file());
    run(args.into_iter().take(2).chain([bench.join("base").as_os_str(), "--force".as_ref()]))
        .failed_with(&["is or holds an input"]);
}

/// Merges under each instruction set are the same files to the byte. That is said of experts with whole weights: faer,
/// which multiplies out adapters and decomposes the router's matrices, chooses its own instructions.
#[test]
fn instruction_sets_change_no_byte() {
    let bench = Bench::new();
    PrismaticSpec::tiny().write_all(bench.path(), &[ExpertForm::Full, ExpertForm::Full]).unwrap();
    let recipe = bench.recipe(
        "merge_method: ties\nbase_model: base\nmodels: [{model: spatial}, {model: object}]\nparameters: {density: 0.5, scope: global}\nmask: \
         {method: tall, lambda: 0.6}\naction_expert: {head_blocks: 1}\n",
    );
    // A level that the processor lacks would be the one below it again.
    let levels = ["portable", "avx2", "avx512"];
    let own = &levels[..=skillweld_simd::level() as usize];
    if own.len() < levels.len() {
        support::say(&format!("instruction_sets_change_no_byte: compared only {}", own.join(", ")));
    }
    let outputs: Vec<_> = own
        .iter()
        .map(|level| {
            let out = bench.join(level);
            let mut command = skillweld();
            command.env("SKILLWELD_SIMD", level).arg("merge").args([&recipe, &out]).arg("--quiet");
            Ran::from(command.output().unwrap()).succeeded();
            let files = contents(&out).into_iter();
            files
                .map(|(path, bytes)| (path.strip_prefix(&out).unwrap().to_owned(), bytes))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(outputs[0].len() > 4, "{} files", outputs[0].len());
    for other in &outputs[1..] {
        assert_eq!(other.len(), outputs[0].len());
        for ((path, bytes), (first_path, first)) in other.iter().zip(&outputs[0]) {
            assert_eq!(path, first_path);
            assert!(bytes == first, "{} differs", path.display());
        }
    }
}

#[test]
fn wrong_recipes_are_refused_with_the_right_word() {
    let bench = Bench::language_models();
    let out = bench.join("merged");
    let merge = |recipe: &std::path::Path| run(["merge".as_ref(), recipe.as_os_str(), out.as_os_str()]);
    merge(&bench.language_recipe("ties", "parameters: {densty: 0.1}\n"))
        .failed_with(&["densty", "`density`"]);
    merge(&bench.language_recipe("ties", "paramters: {density: 0.1}\n"))
        .failed_with(&["paramters", "`parameters`"]);
    merge(&bench.language_recipe("ties", "parameters: {density: 7}\n")).failed_with(&["density", "7"]);
    merge(&bench.language_recipe("tise", "")).failed_with(&["`tise`", "ties"]);
    merge(&bench.recipe("merge_method: linear\nmodels:\n  - model: nowhere\n")).failed_with(&["nowhere"]);
    merge(&bench.join("no.yaml")).failed_with(&["cannot read the recipe", "no.yaml"]);
    assert!(!out.exists());
}

#[test]
fn a_plugin_named_on_the_command_line_counts_first_and_may_speak() {
    let bench = Bench::language_models();
    let (plugin, out) = (bench.odd_plugin(&["CHATTY"]), bench.join("merged"));
    let recipe = bench.language_recipe("odd", "");
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str()];
    run(args).failed_with(&["no merge method is called `odd`"]);
    let ran = run(args.into_iter().chain(["--plugin".as_ref(), plugin.as_os_str()])).succeeded();
    assert_eq!(ran.error.matches("a word of warning").count(), 1, "{}", ran.error);
    run(args.into_iter().chain(["--plugin".as_ref(), "nowhere.so".as_ref()])).failed_with(&["nowhere.so"]);
}

#[test]
fn colour_comes_when_asked_for() {
    let bench = Bench::language_models();
    let (recipe, out) = (bench.language_recipe("linear", ""), bench.join("merged"));
    let args = ["merge".as_ref(), recipe.as_os_str(), out.as_os_str(), "--dry-run".as_ref()];
    let coloured = |when: &str| {
        let output = skillweld().args(args).args(["--color", when]).env("NO_COLOR", "1").output().unwrap();
        output.stdout.contains(&b'\x1b')
    };
    assert_eq!(["always", "auto", "never"].map(coloured), [true, false, false]);
}

#[test]
fn wrong_usage_exits_with_two() {
    for args in [&["merge"][..], &["merge", "a", "b", "--threads", "0"], &["marge"], &[]] {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {}", ran.error);
        assert!(ran.error.contains("--help") || ran.error.contains("Usage"), "{}", ran.error);
    }
}
