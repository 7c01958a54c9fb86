//! What is written is what is read back, whatever the order of writes, threads and shards.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use skillweld_store::{Checkpoint, OutputDir, SafetensorsWriter, TensorSpec};
use skillweld_tensor::{Dtype, numel};

const DTYPES: [Dtype; 5] = [Dtype::U8, Dtype::BF16, Dtype::F32, Dtype::F64, Dtype::F4];

fn contents(tensor: usize, spec: &TensorSpec) -> Vec<u8> {
    let len = spec.dtype.byte_len(numel(&spec.shape).unwrap()).unwrap();
    (0..len).map(|i| (i * 7 + tensor * 31) as u8).collect()
}

fn layouts() -> impl Strategy<Value = Vec<TensorSpec>> {
    let shape = proptest::collection::vec(0usize..6, 0..3);
    proptest::collection::btree_map("[a-z\"é.]{1,6}", (0..DTYPES.len(), shape), 0..8).prop_map(|tensors| {
        let spec = |(name, (dtype, shape))| TensorSpec { name, dtype: DTYPES[dtype], shape };
        tensors.into_iter().map(spec).rev().collect()
    })
}

proptest! {
    // Each case syncs its files to the disk.
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn written_in_any_order_and_read_back(layout in layouts(), shard in proptest::option::of(1u64..200), step in 1usize..9) {
        let root = tempfile::tempdir().unwrap();
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let out = OutputDir::create(&root.path().join("out"), false).unwrap();
        let writer = SafetensorsWriter::create(out.path(), "model", layout.clone(), &metadata, shard).unwrap();
        std::thread::scope(|scope| {
            for (tensor, spec) in layout.iter().enumerate() {
                let writer = &writer;
                scope.spawn(move || {
                    let bytes = contents(tensor, spec);
                    for (i, block) in bytes.chunks(step).enumerate().rev() {
                        writer.write_at(tensor, (i * step) as u64, block).unwrap();
                    }
                });
            }
        });
        let written = writer.finish().unwrap();
        let shards = written.paths.iter().filter(|p| p.extension().unwrap() == "safetensors").count();
        let path = out.commit().unwrap();

        let checkpoint = Checkpoint::open(&path).unwrap();
        prop_assert_eq!(checkpoint.len(), layout.len());
        prop_assert_eq!(checkpoint.total_bytes(), written.tensor_bytes);
        prop_assert_eq!(checkpoint.metadata(), &metadata);
        for (tensor, spec) in layout.iter().enumerate() {
            let view = checkpoint.get(&spec.name).unwrap();
            prop_assert_eq!((view.dtype(), view.shape()), (spec.dtype, &spec.shape[..]));
            prop_assert_eq!(view.bytes(), &contents(tensor, spec)[..]);
        }
        let index = path.join("model.safetensors.index.json");
        prop_assert_eq!(index.exists(), shards > 1);
        prop_assert_eq!(path.join("model.safetensors").exists(), shards == 1);
        if let Some(max) = shard {
            for file in checkpoint.files() {
                let one = Checkpoint::open(file).unwrap();
                prop_assert!(one.total_bytes() <= max || one.keys().filter(|k| one.get(k).unwrap().numel() > 0).count() == 1);
            }
        }
    }
}

#[test]
fn data_starts_aligned_and_wide_types_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |name: &str, dtype| TensorSpec { name: name.into(), dtype, shape: vec![3] };
    let layout =
        vec![spec("b", Dtype::U8), spec("a", Dtype::BF16), spec("d", Dtype::F64), spec("c", Dtype::F64)];
    let writer =
        SafetensorsWriter::create(dir.path(), "model", layout.clone(), &BTreeMap::new(), None).unwrap();
    for (tensor, spec) in layout.iter().enumerate() {
        writer.write_at(tensor, 0, &contents(tensor, spec)).unwrap();
    }
    let path = &writer.finish().unwrap().paths[0];
    let file = fs::read(path).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    assert_eq!(header % 8, 0);
    let text = String::from_utf8(file[8..8 + header].to_vec()).unwrap();
    let order: Vec<usize> =
        ["\"c\"", "\"d\"", "\"a\"", "\"b\""].iter().map(|name| text.find(name).unwrap()).collect();
    assert!(order.is_sorted(), "{text}");
    assert_eq!(file.len(), 8 + header + 24 + 24 + 6 + 3);
}

/// Role of the child in the test below: it starts to replace an output, and never gets further.
#[test]
fn child_that_is_killed() {
    let Some(path) = std::env::var_os("SKILLWELD_TEST_OUTPUT") else { return };
    let out = OutputDir::create(path.as_ref(), true).unwrap();
    fs::write(out.path().join("file"), b"half").unwrap();
    fs::write(out.path().with_file_name("ready"), b"").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn killed_in_the_middle_the_old_output_stands_and_the_half_is_removed_later() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("out");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), b"old").unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["child_that_is_killed", "--exact"])
        .env("SKILLWELD_TEST_OUTPUT", &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !root.path().join("ready").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the child ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let partials = || {
        let names = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".out.partial-")).count()
    };
    drop(OutputDir::create(&path, true).unwrap());
    assert_eq!(partials(), 1, "the living child keeps its directory");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap(), b"old");
    assert_eq!(partials(), 1);
    let next = OutputDir::create(&path, true).unwrap();
    assert_eq!(partials(), 1, "only the new one");
    fs::write(next.path().join("file"), b"new").unwrap();
    next.commit().unwrap();
    assert_eq!(fs::read(path.join("file")).unwrap(), b"new");
    assert_eq!(partials(), 0);
}
