//! What the program takes: time to start, memory, room on the disk.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Bench, Ran, contents, names, run};

#[test]
fn it_starts_at_once() {
    // Release builds take a few milliseconds (the benches hold them to 20); this sees a start-up gone wrong.
    let mut times: Vec<Duration> = (0..10)
        .map(|_| {
            let started = Instant::now();
            run(["--version"]).succeeded();
            started.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[5] < Duration::from_millis(200), "{times:?}");
}

/// Runs the program below limits that `ulimit` sets, such as `-f 100`.
fn run_limited(limit: &str, args: &[&str]) -> Ran {
    let program = env!("CARGO_BIN_EXE_skillweld");
    let tests = std::env::current_exe().unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit {limit} && exec \"$0\" \"$@\"")).arg(program).args(args);
    shell.env("SKILLWELD_PLUGINS", tests.parent().unwrap()).output().unwrap().into()
}

/// Writes a bf16 model of zeros but for the first element of each tensor; the file is sparse.
fn write_sparse(dir: &Path, shapes: &[[usize; 2]], first: u16) {
    fs::create_dir(dir).unwrap();
    let (mut entries, mut begin) = (Vec::new(), 0);
    let mut begins = Vec::new();
    for (i, [m, n]) in shapes.iter().enumerate() {
        let end = begin + m * n * 2;
        entries.push(format!(
            r#""model.layers.{i}.mlp.up_proj.weight":{{"dtype":"BF16","shape":[{m},{n}],"data_offsets":[{begin},{end}]}}"#
        ));
        begins.push(begin as u64);
        begin = end;
    }
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = File::create_new(dir.join("model.safetensors")).unwrap();
    let data = 8 + header.len() as u64;
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0).unwrap();
    file.write_all_at(&header, 8).unwrap();
    file.set_len(data + begin as u64).unwrap();
    for begin in begins {
        file.write_all_at(&first.to_le_bytes(), data + begin).unwrap();
    }
}

/// A MergeVLA merge of four experts takes the same memory whatever their size: no limit on memory but this one counts
/// anonymous memory without the mapped inputs, and counts it when it is asked for, so no sampling can miss a peak.
#[test]
fn memory_is_bounded_whatever_the_models_size() {
    const LIMIT_KIB: usize = 400_000_000 / 1024;
    let bench = Bench::new();
    // 600 MB of inputs; the first tensor is worked on by all threads, the others by one each.
    let mut shapes = vec![[5 << 10, 4 << 10]];
    shapes.resize(12, [875, 4 << 10]);
    let inputs: usize = 5 * shapes.iter().map(|[m, n]| m * n * 2).sum::<usize>();
    assert!(inputs > 600_000_000, "{inputs} bytes of inputs");
    for (name, first) in [("base", 0x3f80), ("a", 0x3f81), ("b", 0x3f82), ("c", 0x3f83), ("d", 0x3f84)] {
        write_sparse(&bench.join(name), &shapes, first);
    }
    let recipe = bench.recipe(
        "merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}, {model: c}, {model: d}]\nmask: {method: tall}\n",
    );
    let (recipe, out) = (recipe.display().to_string(), bench.join("merged").display().to_string());
    let args = ["merge", &recipe, &out, "--threads", "2", "--quiet"];
    run_limited(&format!("-d {LIMIT_KIB}"), &args).succeeded();
    assert!(bench.join("merged/masks.safetensors").is_file());

    // The limit does bite: the buffers of two threads are more than this.
    fs::remove_dir_all(bench.join("merged")).unwrap();
    let starved = run_limited("-d 12000", &args);
    assert_ne!(starved.code, Some(0), "{}", starved.error);
    assert!(!bench.join("merged").exists());
}

#[test]
fn a_file_too_large_is_an_error_that_leaves_everything_as_it_was() {
    let bench = Bench::language_models();
    let out = bench.join("merged");
    let first = bench.language_recipe("linear", "");
    run(["merge".as_ref(), first.as_os_str(), out.as_os_str(), "--quiet".as_ref()]).succeeded();
    let before = contents(bench.path());
    let (recipe, merged) = (first.display().to_string(), out.display().to_string());
    // In blocks of 512 bytes: less than the weights take.
    let ran = run_limited("-f 64", &["merge", &recipe, &merged, "--force"]);
    ran.failed_with(&["model.safetensors", "ulimit -f", "nothing was replaced"]);
    assert!(contents(bench.path()) == before, "{:?}", names(bench.path()));
}
