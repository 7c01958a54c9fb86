//! From a merge to actions: `predict` and `route` on merged checkpoints and single experts made on the spot.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use skillweld_store::{Checkpoint, SafetensorsWriter, TensorSpec};
use skillweld_synth::{ExpertForm, PrismaticSpec};
use skillweld_tensor::Dtype;
use support::{Bench, Ran, run, skillweld};

/// Experts in f32: what `materialize` writes is then not rounded, and both ways must give the same actions.
fn merged() -> Bench {
    let bench = Bench::new();
    let spec = PrismaticSpec { dtype: Dtype::F32, ..PrismaticSpec::tiny() };
    spec.write_all(bench.path(), &[ExpertForm::Adapter, ExpertForm::Full]).unwrap();
    let recipe = bench.action_recipe();
    run([Path::new("merge"), &recipe, &bench.join("merged")]).succeeded();
    bench
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes tensors (name, dtype, shape, bytes) as one safetensors file.
fn write(
    dir: &Path,
    stem: &str,
    tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)],
    prompt: Option<&str>,
) -> PathBuf {
    let metadata = prompt.map(|prompt| ("prompt".to_owned(), prompt.to_owned()));
    let specs = tensors.iter().map(|(name, dtype, shape, _)| TensorSpec {
        name: (*name).to_owned(),
        dtype: *dtype,
        shape: shape.clone(),
    });
    let metadata: BTreeMap<String, String> = metadata.into_iter().collect();
    let writer = SafetensorsWriter::create(dir, stem, specs.collect(), &metadata, None).unwrap();
    for (index, (.., bytes)) in tensors.iter().enumerate() {
        writer.write_at(index, 0, bytes).unwrap();
    }
    writer.finish().unwrap();
    dir.join(format!("{stem}.safetensors"))
}

/// Two camera images of smooth colours, a state, an instruction.
fn raw_observation(dir: &Path, stem: &str, state: &[f32], prompt: Option<&str>) -> PathBuf {
    let image = |phase: usize| -> Vec<u8> {
        (0..96 * 128 * 3).map(|i| ((i / 3 % 128 * 2 + i % 3 * 40 + phase) % 256) as u8).collect()
    };
    write(
        dir,
        stem,
        &[
            ("image_0", Dtype::U8, vec![96, 128, 3], image(0)),
            ("image_1", Dtype::U8, vec![96, 128, 3], image(90)),
            ("state", Dtype::F32, vec![state.len()], f32_bytes(state)),
        ],
        prompt,
    )
}

const STATE: [f32; 8] = [0.05, -0.1, 0.2, 0.3, 0.0, -0.2, 0.04, -0.04];

fn predict(policy: &Path, inputs: &Path, output: &Path, more: &[&str]) -> Value {
    let arguments =
        [Path::new("predict"), policy, Path::new("--inputs"), inputs, Path::new("--output"), output];
    let arguments = arguments.iter().map(|path| path.as_os_str());
    run(arguments.chain(more.iter().map(AsRef::as_ref)).chain(["--json".as_ref()])).succeeded().json()
}

fn values(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let checkpoint = Checkpoint::open(file).unwrap();
    let array = checkpoint.get(name).unwrap().to_f32().unwrap();
    (array.shape().to_vec(), array.into_iter().collect())
}

#[test]
fn a_task_of_a_merged_checkpoint_acts_as_its_materialized_model_does() {
    let bench = merged();
    let inputs = raw_observation(bench.path(), "in", &STATE, Some("Open the drawer"));
    for task in ["spatial", "object"] {
        let plain = bench.join(&format!("plain-{task}"));
        let arguments =
            [Path::new("materialize"), &bench.join("merged"), Path::new("--task"), Path::new(task), &plain];
        run(arguments).succeeded();
        let (one, two) =
            (bench.join(&format!("{task}.safetensors")), bench.join(&format!("{task}-2.safetensors")));
        let ran = predict(&bench.join("merged"), &inputs, &one, &["--task", task]);
        assert_eq!((&ran["task"], &ran["routing"]), (&Value::from(task), &Value::Null));
        predict(&plain, &inputs, &two, &[]);
        for name in ["actions", "normalized_actions"] {
            let ((shape, merged), (_, plain)) = (values(&one, name), values(&two, name));
            assert_eq!(shape, [8, 7]);
            assert_eq!(merged, plain, "{name} of {task}");
        }
    }
    let of = |task: &str| values(&bench.join(&format!("{task}.safetensors")), "normalized_actions").1;
    assert_ne!(of("spatial"), of("object"), "tasks differ");
}

#[test]
fn the_router_chooses_and_its_choice_runs() {
    let bench = merged();
    let inputs = raw_observation(bench.path(), "in", &STATE, Some("open the drawer"));
    let merged = bench.join("merged");
    let route = |more: &[&str]| {
        let arguments = [Path::new("route"), &merged, Path::new("--inputs"), &inputs];
        run(arguments
            .iter()
            .map(|path| path.as_os_str())
            .chain(more.iter().map(AsRef::as_ref))
            .chain(["--json".as_ref()]))
    };
    let decision = route(&[]).succeeded().json();
    let candidates = decision["candidates"].as_array().unwrap();
    let score = |index: usize| candidates[index]["score"].as_f64().unwrap();
    let best = usize::from(score(1) > score(0));
    assert_eq!((&decision["task"], &decision["outcome"]), (&candidates[best]["task"], &"routed".into()));
    let probability: f64 = candidates.iter().map(|c| c["probability"].as_f64().unwrap()).sum();
    assert!((probability - 1.0).abs() < 1e-6, "{decision}");

    let (routed, named) = (bench.join("routed.safetensors"), bench.join("named.safetensors"));
    let ran = predict(&merged, &inputs, &routed, &[]);
    assert_eq!(ran["routing"], decision);
    let task = decision["task"].as_str().unwrap();
    predict(&merged, &inputs, &named, &["--task", task]);
    // Switching back and forth leaves nothing of another task behind: the same bits.
    assert_eq!(values(&routed, "actions"), values(&named, "actions"));

    let other = candidates[1 - best]["task"].as_str().unwrap();
    assert_eq!(route(&["--candidates", other]).succeeded().json()["task"], other);
    let fallback = route(&["--min-probability", "1", "--fallback", other]).succeeded().json();
    assert_eq!((&fallback["task"], &fallback["outcome"]), (&other.into(), &"fallback".into()));
    let abstained = route(&["--min-probability", "1"]);
    assert_eq!((abstained.code, &abstained.json()["task"]), (Some(1), &Value::Null));
    let output = bench.join("none.safetensors");
    let arguments =
        [Path::new("predict"), &merged, Path::new("--inputs"), &inputs, Path::new("--output"), &output];
    run(arguments.iter().map(|path| path.as_os_str()).chain(["--min-probability".as_ref(), "1".as_ref()]))
        .failed_with(&["not sure", "spatial", "fallback"]);
    assert!(!output.exists());
}

#[test]
fn what_cannot_be_predicted_is_said() {
    let bench = merged();
    let merged = bench.join("merged");
    let output = bench.join("out.safetensors");
    let fails = |inputs: &Path, more: &[&str], words: &[&str]| {
        let arguments =
            [Path::new("predict"), &merged, Path::new("--inputs"), inputs, Path::new("--output"), &output];
        run(arguments.iter().map(|path| path.as_os_str()).chain(more.iter().map(AsRef::as_ref)))
            .failed_with(words);
        assert!(!output.exists(), "{words:?}");
    };
    let raw = |stem, state: &[f32], prompt| raw_observation(bench.path(), stem, state, prompt);
    let good = raw("good", &STATE, Some("open"));
    fails(&good, &["--task", "gaol"], &["no task `gaol`", "spatial, object"]);
    fails(&good, &["--candidates", "goal"], &["no task `goal`"]);
    fails(&raw("short", &STATE[..5], Some("open")), &[], &["5 dimensions", "are of 8"]);
    fails(&raw("nan", &[f32::NAN; 8], Some("open")), &[], &["state", "NaN"]);
    fails(&raw("silent", &STATE, None), &[], &["prompt"]);
    fails(&raw("empty", &STATE, Some(" ")), &[], &["prompt", "empty"]);
    let nothing = write(bench.path(), "nothing", &[("x", Dtype::U8, vec![1], vec![0])], None);
    fails(&nothing, &[], &["image_0", "pixel_values"]);
    let wide =
        write(bench.path(), "wide", &[("image_0", Dtype::U8, vec![2, 2, 4], vec![0; 16])], Some("open"));
    fails(&wide, &[], &["image_0", "[2, 2, 4]"]);
    // A forgotten camera, one too many, and a gap in their numbers.
    let cameras = |stem, names: &[&'static str]| {
        let image = |name| (name, Dtype::U8, vec![4, 4, 3], vec![9; 48]);
        let mut tensors: Vec<_> = names.iter().copied().map(image).collect();
        tensors.push(("state", Dtype::F32, vec![8], f32_bytes(&STATE)));
        write(bench.path(), stem, &tensors, Some("open"))
    };
    fails(&cameras("one", &["image_0"]), &[], &["`image_1` is missing", "takes 2"]);
    let three = ["image_0", "image_1", "image_2"];
    fails(&cameras("three", &three), &[], &["`image_2` is one too many", "takes 2"]);
    fails(&cameras("three-of-four", &three), &["--images", "4"], &["`image_3` is missing", "takes 4"]);
    fails(&cameras("gap", &["image_0", "image_2"]), &[], &["lacks `image_1`", "image_0, image_2"]);
    fails(&cameras("second", &["image_1"]), &[], &["lacks `image_0`"]);
    let pixels = vec![("pixel_values", Dtype::F32, vec![12, 8, 8], f32_bytes(&[0.0; 768]))];
    let small = |ids: &[i64], name| {
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let mut tensors = pixels.clone();
        tensors.push(("input_ids", Dtype::I64, vec![ids.len()], bytes));
        tensors.push(("proprio", Dtype::F32, vec![8], f32_bytes(&[0.0; 8])));
        write(bench.path(), name, &tensors, None)
    };
    fails(&small(&[1, 2], "small"), &["--task", "object"], &["pixel_values", "[12, 8, 8]", "224"]);
    fails(&small(&[1, -2], "negative"), &[], &["input_ids", "-2"]);
    fs::write(&output, "precious").unwrap();
    let arguments =
        [Path::new("predict"), &merged, Path::new("--inputs"), &good, Path::new("--output"), &output];
    run(arguments).failed_with(&["already exists", "--force"]);
    assert_eq!(fs::read(&output).unwrap(), b"precious");
}

/// Every option of `predict` that changes what is computed, against the same without it.
#[test]
fn options_change_what_they_say() {
    let bench = merged();
    let merged = bench.join("merged");
    let inputs = raw_observation(bench.path(), "in", &STATE, Some("open the drawer"));
    let actions = |policy: &Path, name: &str, more: &[&str]| {
        let output = bench.join(&format!("{name}.safetensors"));
        let ran = predict(policy, &inputs, &output, more);
        let (shape, values) = values(&output, "normalized_actions");
        assert_eq!(shape, [8, 7]);
        (ran, values)
    };
    let (ran, plain) = actions(&merged, "plain", &["--task", "object"]);
    assert_eq!((&ran["task"], &ran["reason"]), (&"object".into(), &"fixed".into()));
    let latency = ran["latency"].as_object().unwrap();
    assert!(latency.contains_key("wait_ms"), "{ran}");
    let stages: f64 =
        latency.iter().filter(|(name, _)| *name != "total_ms").map(|(_, ms)| ms.as_f64().unwrap()).sum();
    let total = latency["total_ms"].as_f64().unwrap();
    assert!((stages - total).abs() <= 1e-6 * total, "{ran}");
    assert_eq!(actions(&merged, "routed", &[]).0["reason"], "routed");

    let off = |a: &[f32], b: &[f32]| {
        assert!(a.iter().chain(b).all(|x| x.is_finite()));
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    for (name, more, most) in [
        ("narrow", ["--precision", "bf16"], 0.2),
        ("exact", ["--rope", "exact"], 1e-3),
        ("coarse", ["--rope", "bf16"], 2.0),
    ] {
        let (_, other) = actions(&merged, name, &[&["--task", "object"], &more[..]].concat());
        let off = off(&plain, &other);
        assert!(off > 0.0 && off < most, "{more:?}: {off}");
    }
    // The heads are in f32, and tables follow them.
    assert_eq!(actions(&merged, "f32", &["--task", "object", "--rope", "f32"]).1, plain);

    // A folder that is not there is made, as `merge` makes one.
    actions(&merged, "new/folder/out", &["--task", "object"]);

    // The first expert is an adapter, alone in its folder.
    let adapter = bench.join("spatial");
    let output = bench.join("none.safetensors");
    let arguments =
        [Path::new("predict"), &adapter, Path::new("--inputs"), &inputs, Path::new("--output"), &output];
    run(arguments).failed_with(&["holds an adapter", "base"]);
    let base = bench.join("base");
    let (ran, _) = actions(&adapter, "adapter", &["--base", base.to_str().unwrap()]);
    assert_eq!(ran["task"], "libero_spatial_no_noops");
}

#[test]
fn without_a_gpu_one_sentence_says_so() {
    let bench = merged();
    let output = bench.join("out.safetensors");
    let inputs = raw_observation(bench.path(), "in", &[0.0; 8], Some("open"));
    let mut command = skillweld();
    // Where there is a GPU, none is to be seen.
    command
        .env("CUDA_VISIBLE_DEVICES", "")
        .arg("predict")
        .arg(bench.join("merged"))
        .arg("--inputs")
        .arg(&inputs);
    command.arg("--output").arg(&output).args(["--device", "cuda"]);
    let ran: Ran = command.output().unwrap().into();
    ran.failed_with(&["no GPU to use", "leave out `--device cuda`"]);
    assert!(!output.exists());
}

#[test]
fn rescaled_tasks_act_as_their_materialized_models_do() {
    let bench = merged();
    let recipe = bench.recipe(
        "merge_method: emr\nbase_model: base\nmodels:\n  - {name: spatial, model: spatial}\n  - {name: object, model: \
         object}\naction_expert: {head_blocks: 1}\nrouter: {rank: 4, projections: kv}\n",
    );
    let merged = bench.join("emr");
    run([Path::new("merge"), &recipe, &merged]).succeeded();
    let masks = Checkpoint::open(merged.join("masks.safetensors")).unwrap();
    let rescaler = |task: &str| {
        let view = masks.get(&format!("{task}/__rescaler__")).unwrap();
        view.to_f32().unwrap().into_iter().next().unwrap()
    };
    assert!(rescaler("spatial") != 1.0 && rescaler("spatial") != rescaler("object"));
    let inputs = raw_observation(bench.path(), "in", &STATE, Some("open the drawer"));
    for task in ["spatial", "object"] {
        let plain = bench.join(&format!("emr-{task}"));
        run([Path::new("materialize"), &merged, Path::new("--task"), Path::new(task), &plain]).succeeded();
        let (one, two) = (bench.join("one.safetensors"), bench.join("two.safetensors"));
        predict(&merged, &inputs, &one, &["--task", task, "--force"]);
        predict(&plain, &inputs, &two, &["--force"]);
        assert_eq!(values(&one, "actions"), values(&two, "actions"), "{task}");
    }
    // The router by keys and values chooses too.
    let arguments = [Path::new("route"), &merged, Path::new("--inputs"), &inputs, Path::new("--json")];
    assert_eq!(run(arguments).succeeded().json()["outcome"], "routed");
}

/// Leaves no server behind when a test fails.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// The server is ready once the policy is warm, says what it serves, and ends when it is told to.
#[test]
fn a_policy_is_served_until_sigterm() {
    let bench = merged();
    let mut command = support::skillweld();
    command.args(["serve", "--port", "0"]).arg(bench.join("merged")).stderr(Stdio::piped());
    let mut server = Stopped(command.spawn().unwrap());
    let mut lines = BufReader::new(server.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("ws://")?.1.to_owned())).unwrap();
    assert!(lines.any(|line| line.contains("ready")));
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: robot\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let health = get("/healthz");
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with("OK\n"), "{health}");
    assert!(get("/metrics").contains("skillweld_requests_total"), "{}", get("/metrics"));
    let killed = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert!(killed.success() && server.0.wait().unwrap().success());
    let arguments = ["serve".into(), bench.join("merged"), "--task".into(), "gaol".into()];
    run(arguments).failed_with(&["no task `gaol`"]);
}

/// Every intermediate of the official code's forward, within the f32 tolerance that was asked for.
#[test]
fn the_official_forward_is_reproduced() {
    // Reduced: every fourth row, and three of 25 depths, of what leads to the actions.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/data/policy-tiny");
    let bench = Bench::new();
    let (inputs, output) = (folder.join("io.safetensors"), bench.join("out.safetensors"));
    predict(&folder, &inputs, &output, &["--dump"]);
    let check = |name: &str, found: &[f32], expected: &str| {
        let (_, expected) = values(&inputs, expected);
        assert_eq!(found.len(), expected.len(), "{name}");
        let largest = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let close = |a: f32, b: f32| (a - b).abs() <= 1e-5 * largest;
        let off = found.iter().zip(&expected).find(|(a, b)| !close(**a, **b));
        assert_eq!(off, None, "{name}");
    };
    for name in ["pixel_values", "normalized_actions", "actions"] {
        check(name, &values(&output, name).1, name);
    }
    let every_fourth = |values: &[f32], width| -> Vec<f32> {
        values.chunks_exact(width).step_by(4).flatten().copied().collect()
    };
    for (name, width) in [("vision_features", 80), ("projected", 32)] {
        let (shape, found) = values(&output, name);
        assert_eq!(shape, [1, 512, width]);
        check(name, &every_fourth(&found, width), name);
    }
    let (shape, hidden) = values(&output, "hidden");
    assert_eq!(shape, [1, 25, 576, 32]);
    for depth in [0, 12, 24] {
        let state = &hidden[depth * 576 * 32..(depth + 1) * 576 * 32];
        check(&format!("hidden {depth}"), &every_fourth(state, 32), &format!("hidden.{depth}"));
    }
}
