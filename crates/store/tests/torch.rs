//! PyTorch files: read as PyTorch reads them, and refused where PyTorch would run code.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod common;

use std::fs;
use std::path::Path;

use common::data;
use proptest::prelude::*;
use skillweld_store::{ArchiveProblem, Checkpoint, PickleProblem, PickleValue, StoreError, TorchFile};
use skillweld_tensor::TensorView;

/// A zip archive of stored members, written the plainest way.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let header = file.len() as u32;
        let sizes = [0u32, bytes.len() as u32, bytes.len() as u32].map(u32::to_le_bytes).concat();
        let name_len = (name.len() as u16).to_le_bytes();
        file.extend_from_slice(b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0");
        file.extend_from_slice(&sizes);
        file.extend_from_slice(&name_len);
        file.extend_from_slice(&[0; 2]);
        file.extend_from_slice(name.as_bytes());
        file.extend_from_slice(bytes);
        directory.extend_from_slice(b"PK\x01\x02\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend_from_slice(&sizes);
        directory.extend_from_slice(&name_len);
        directory.extend_from_slice(&[0; 12]);
        directory.extend_from_slice(&header.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let count = (members.len() as u16).to_le_bytes();
    let start = file.len() as u32;
    file.extend_from_slice(&directory);
    file.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    file.extend_from_slice(&count);
    file.extend_from_slice(&count);
    file.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    file.extend_from_slice(&start.to_le_bytes());
    file.extend_from_slice(&[0; 2]);
    file
}

fn with_file<T>(bytes: &[u8], test: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");
    fs::write(&path, bytes).unwrap();
    test(&path)
}

/// Opens an archive of this pickle and a storage `0` of 16 bytes.
fn run(pickle: &[u8]) -> Result<PickleValue, PickleProblem> {
    let file = archive(&[("x/data.pkl", pickle), ("x/data/0", &[0; 16])]);
    with_file(&file, |path| match TorchFile::open(path) {
        Ok(file) => Ok(file.root().clone()),
        Err(StoreError::Pickle { problem, .. }) => Err(problem),
        Err(other) => panic!("{other}"),
    })
}

/// A pickle of one tensor over storage `0`, `numel` floats long; numbers must fit into one byte.
fn tensor(numel: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |values: &[u8]| {
        [&b"("[..], &values.iter().flat_map(|v| [b'K', *v]).collect::<Vec<_>>(), b"t"].concat()
    };
    let mut pickle = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK".to_vec();
    pickle.extend_from_slice(&[numel, b't', b'Q', b'K', offset]);
    pickle.extend(tuple(shape));
    pickle.extend(tuple(strides));
    pickle.extend_from_slice(b"\x89NtR.");
    pickle
}

fn assert_equal(name: &str, actual: TensorView<'_>, expected: TensorView<'_>) {
    assert_eq!((actual.dtype(), actual.shape()), (expected.dtype(), expected.shape()), "{name}");
    assert_eq!(actual.bytes(), expected.bytes(), "{name}");
}

#[test]
fn every_dtype_stride_and_offset_reads_as_pytorch_reads_it() {
    let actual = Checkpoint::open(data("torch/plain.pt")).unwrap();
    let expected = Checkpoint::open(data("torch/plain.expected.safetensors")).unwrap();
    assert_eq!(actual.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for key in expected.keys() {
        assert_equal(key, actual.get(key).unwrap(), expected.get(key).unwrap());
    }
    assert_eq!(actual.total_bytes(), expected.total_bytes());
    // One storage under two names is a tied weight; the same storage in another shape is not.
    assert_eq!(actual.aliases().collect::<Vec<_>>(), [("lm_head.weight", "model.embed_tokens.weight")]);
    assert_eq!(expected.aliases().len(), 0);
}

#[test]
fn what_we_write_we_read() {
    let expected = Checkpoint::open(data("peft-tiny/base")).unwrap();
    let tensors: Vec<_> = expected.keys().map(|key| (key, expected.get(key).unwrap())).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pytorch_model.bin");
    skillweld_store::write_torch_zip(&path, &tensors).unwrap();
    let actual = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(actual.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, tensor) in tensors {
        assert_equal(key, actual.get(key).unwrap(), tensor);
    }
    assert_eq!(actual.content_hash(), expected.content_hash());
}

#[test]
fn contiguous_tensors_are_borrowed_from_the_file() {
    let checkpoint = Checkpoint::open(data("torch/plain.pt")).unwrap();
    let address = |key: &str| checkpoint.get(key).unwrap().bytes().as_ptr();
    assert_eq!(address("lm_head.weight"), address("model.embed_tokens.weight"));
}

#[test]
fn nested_tables_are_a_tree_and_flat_names() {
    let masks = TorchFile::open(&data("torch/tall_masks.pt")).unwrap();
    let names: Vec<String> = masks.tensors().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["spatial/a.weight", "spatial/b", "goal/a.weight", "goal/b"]);
    let (_, mask) = masks.tensors()[2];
    assert_eq!(masks.view(mask).unwrap().bytes(), [0, 0, 1, 1]);
    let rescaler = masks.root().get("goal").and_then(|task| task.get("rescaler"));
    assert!(matches!(rescaler, Some(PickleValue::Float(value)) if *value == 1.25));

    let tasks = TorchFile::open(&data("torch/task2idx.pt")).unwrap();
    assert!(matches!(tasks.root().get("goal"), Some(PickleValue::Int(1))));
    assert!(tasks.tensors().is_empty());
    assert!(matches!(
        Checkpoint::open(data("torch/task2idx.pt")),
        Err(StoreError::NoTensors { found: "a dict", .. })
    ));
}

#[test]
fn members_of_the_task_enumeration_are_their_values() {
    // As `torch.save({TaskSuite.LIBERO_GOAL: 1}, ...)` writes it.
    let pickle = b"\x80\x02}(c__main__\nTaskSuite\nX\x0b\0\0\0libero_goal\x85RK\x01u.";
    let root = run(pickle).unwrap();
    assert!(matches!(root.get("libero_goal"), Some(PickleValue::Int(1))));
    for (arguments, why) in [(&b"K\x01\x85"[..], "no string"), (b"X\x01\0\0\0aX\x01\0\0\0b\x86", "two")] {
        let pickle = [b"c__main__\nTaskSuite\n", arguments, b"R."].concat();
        assert!(matches!(run(&pickle), Err(PickleProblem::Malformed { .. })), "{why}");
    }
}

#[test]
fn a_trainers_file_gives_its_state_dict_alone() {
    let checkpoint = Checkpoint::open(data("torch/trainer.pt")).unwrap();
    assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["w"]);
    // The same with 64-bit fields, as files of more than 4 GiB have them.
    let zip64 = Checkpoint::open(data("torch/zip64.pt")).unwrap();
    assert_equal("w", zip64.get("w").unwrap(), checkpoint.get("w").unwrap());
}

#[test]
fn shards_are_joined_by_their_index() {
    let dir = tempfile::tempdir().unwrap();
    for (name, tensor) in [("a", tensor(4, 0, &[2, 2], &[1, 2])), ("b", tensor(4, 1, &[3], &[1]))] {
        // A dict of one tensor: the pickle of the tensor between key and SETITEM.
        let tensor = tensor.strip_suffix(b".").unwrap();
        let pickle = [b"}X\x01\0\0\0", name.as_bytes(), tensor, b"s."].concat();
        let floats: Vec<u8> = [0f32, 1.0, 2.0, 3.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let file = archive(&[("x/data.pkl", &pickle), ("x/data/0", &floats)]);
        fs::write(dir.path().join(format!("pytorch_model-{name}.bin")), file).unwrap();
    }
    let index = r#"{"weight_map":{"a":"pytorch_model-a.bin","b":"pytorch_model-b.bin"}}"#;
    fs::write(dir.path().join("pytorch_model.bin.index.json"), index).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let values = |key: &str| checkpoint.get(key).unwrap().to_f32().unwrap().into_raw_vec_and_offset().0;
    assert_eq!(values("a"), [0.0, 2.0, 1.0, 3.0]);
    assert_eq!(values("b"), [1.0, 2.0, 3.0]);
}

#[test]
fn what_could_run_code_is_refused_by_name() {
    let error = Checkpoint::open(data("torch/hostile.pt")).unwrap_err().to_string();
    assert!(error.contains("refused: the pickle asks for `posix.system`"), "{error}");

    let global = |pickle: &[u8]| match run(pickle) {
        Err(PickleProblem::RefusedGlobal { name }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(global(b"cbuiltins\neval\n."), "builtins.eval");
    assert_eq!(global(b"ctorch\nload\n."), "torch.load");
    assert_eq!(global(b"\x8c\x02os\x8c\x06system\x93."), "os.system");
    assert_eq!(global(b"ccollections\ncounter\n."), "collections.counter");
    let opcode = |pickle: &[u8]| match run(pickle) {
        Err(PickleProblem::RefusedOpcode { name }) => name,
        other => panic!("{other:?}"),
    };
    for (code, name) in [
        (b'i', "INST"),
        (b'o', "OBJ"),
        (0x81, "NEWOBJ"),
        (0x92, "NEWOBJ_EX"),
        (0x82, "EXT1"),
        (b'P', "PERSID"),
        (b'B', "BINBYTES"),
        (0x97, "NEXT_BUFFER"),
        (b'I', "INT"),
        (b'V', "UNICODE"),
        (0x8f, "EMPTY_SET"),
    ] {
        assert_eq!(opcode(&[code, b'.']), name);
    }
    assert_eq!(opcode(b"]Nb."), "BUILD");
    assert_eq!(run(b"\xff").unwrap_err(), PickleProblem::UnknownOpcode { code: 0xff });
}

#[test]
fn numbers_and_containers_mean_what_python_means() {
    let text = |pickle: &[u8]| format!("{:?}", run(pickle).unwrap());
    assert_eq!(
        text(b"\x80\x02(K\x01M\x00\x01J\xff\xff\xff\xffG\x3f\xf8\0\0\0\0\0\0\x88\x89Nt."),
        "Tuple([Int(1), Int(256), Int(-1), Float(1.5), Bool(true), Bool(false), None])"
    );
    assert_eq!(text(b"\x8a\x00."), "Int(0)");
    assert_eq!(text(b"\x8a\x01\xff."), "Int(-1)");
    assert_eq!(text(b"\x8a\x02\xff\x00."), "Int(255)");
    assert_eq!(text(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00."), "Int(9223372036854775807)");
    assert!(matches!(run(b"\x8a\x09\0\0\0\0\0\0\0\x80\0."), Err(PickleProblem::Limit { .. })), "2^63");
    assert_eq!(text(b"]q\x00(K\x01K\x02eh\x00a0\x8c\x01a."), r#"Str("a")"#);
    assert_eq!(
        text(b"}(\x8c\x01aK\x01\x8c\x01bK\x02u."),
        r#"Dict([(Str("a"), Int(1)), (Str("b"), Int(2))])"#
    );
    assert_eq!(
        text(b"K\x01K\x02\x86\x94h\x00\x86."),
        "Tuple([Tuple([Int(1), Int(2)]), Tuple([Int(1), Int(2)])])"
    );
}

#[test]
fn stack_and_memo_are_guarded() {
    for pickle in [
        &b"."[..],
        b"0",
        b"t.",
        b"R.",
        b"Q.",
        b"a",
        b"s",
        b"h\x00.",
        b"j\0\0\0\0.",
        b"K",
        b"X\xff\xff\xff\xffa",
        b"(0",
        b"\x85.",
        b"K\x01(\x85.",
        b"q\x00",
        b"\x94",
        b"ctorch",
        b"K\x01\x93",
        b"}(K\x01u.",
        b"NNa.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"X\x01\0\0\0\xff.",
        b"ccollections\nOrderedDict\n.",
    ] {
        let problem = run(pickle).unwrap_err();
        assert!(
            matches!(problem, PickleProblem::Malformed { .. } | PickleProblem::Truncated),
            "{pickle:?}: {problem}"
        );
    }
}

#[test]
fn bombs_are_refused() {
    // A list that holds itself, and one that doubles thirty times.
    assert!(matches!(run(b"]q\x00h\x00a."), Err(PickleProblem::Limit { .. })));
    let mut doubling = b"K\x01".to_vec();
    for level in 0..30u8 {
        doubling.extend_from_slice(&[b'q', level, b'h', level, 0x86]);
    }
    doubling.push(b'.');
    assert!(matches!(run(&doubling), Err(PickleProblem::Limit { .. })));
    assert!(matches!(
        run(&[&b"]".repeat(100)[..], &b"a".repeat(99), b"."].concat()),
        Err(PickleProblem::Limit { .. })
    ));
    // 200 × 200 elements broadcast from one.
    assert!(matches!(run(&tensor(1, 0, &[200, 200], &[0, 0])), Err(PickleProblem::Limit { .. })));
    assert!(matches!(run(&tensor(1, 0, &[1; 65], &[0; 65])), Err(PickleProblem::Limit { .. })));
}

#[test]
fn tensors_stay_within_their_storage() {
    let out_of_storage = |pickle: &[u8]| matches!(run(pickle), Err(PickleProblem::OutOfStorage { .. }));
    assert!(matches!(run(&tensor(4, 0, &[2, 2], &[2, 1])), Ok(PickleValue::Tensor(_))));
    assert!(matches!(run(&tensor(4, 0, &[2, 2], &[1, 2])), Ok(PickleValue::Tensor(_))));
    assert!(
        matches!(run(&tensor(4, 200, &[0, 2], &[1, 2])), Ok(PickleValue::Tensor(_))),
        "no element, no place"
    );
    assert!(out_of_storage(&tensor(5, 0, &[1], &[1])), "storage longer than its member");
    assert!(out_of_storage(&tensor(4, 1, &[4], &[1])));
    assert!(out_of_storage(&tensor(4, 0, &[2, 2], &[1, 3])));
    assert!(out_of_storage(&tensor(4, 0, &[255; 40], &[1; 40])), "overflow");
    assert!(matches!(run(&tensor(4, 0, &[2, 2], &[1])), Err(PickleProblem::Malformed { .. })));
}

#[test]
fn foreign_and_damaged_archives_are_refused_by_name() {
    let problem = |bytes: &[u8]| {
        with_file(bytes, |path| match TorchFile::open(path) {
            Err(StoreError::Archive { problem, .. }) => problem,
            other => panic!("{other:?}"),
        })
    };
    let read = |name: &str| fs::read(data(name)).unwrap();
    assert_eq!(problem(b""), ArchiveProblem::NotZip);
    assert_eq!(problem(&read("torch/plain.expected.safetensors")), ArchiveProblem::NotZip);
    assert_eq!(problem(&read("torch/legacy.pt")), ArchiveProblem::Legacy);
    assert_eq!(
        problem(&read("torch/compressed.pt")),
        ArchiveProblem::Compressed { member: "x/data.pkl".into() }
    );
    let whole = read("torch/plain.pt");
    assert_eq!(problem(&whole[..whole.len() - 100]), ArchiveProblem::Truncated);
    assert_eq!(problem(&archive(&[("x/a", b"")])), ArchiveProblem::NoPickle { found: 0 });
    assert_eq!(
        problem(&archive(&[("x/data.pkl", b"N."), ("y/data.pkl", b"N.")])),
        ArchiveProblem::NoPickle { found: 2 }
    );
    assert_eq!(
        problem(&archive(&[("x/data.pkl", b"N."), ("x/byteorder", b"big")])),
        ArchiveProblem::BigEndian
    );
    let twice = archive(&[("x/data.pkl", b"N."), ("x/data/0", b""), ("x/data/0", b"")]);
    assert_eq!(problem(&twice), ArchiveProblem::DuplicateMember { member: "x/data/0".into() });
}

#[test]
fn published_action_heads_open() {
    let published = data("../../../merged/tests/data/head-tiny");
    let head = Checkpoint::open(published.join("expert0--action_head--checkpoint.pt")).unwrap();
    assert_eq!(head.get("model.fc2.weight").unwrap().shape(), [7, 32]);
    assert_eq!(head.len(), 464);
    let merged = Checkpoint::open(published.join("merged--action_head--checkpoint.pt")).unwrap();
    assert_eq!(merged.get("model.gate.gate.0.routers.1").unwrap().shape(), [4, 32]);
}

/// Opens and, if that works, reads everything.
fn exhaust(bytes: &[u8]) {
    with_file(bytes, |path| {
        if let Ok(file) = TorchFile::open(path) {
            for (_, tensor) in file.tensors() {
                let view = file.view(tensor).unwrap();
                assert_eq!(Some(view.bytes().len()), view.dtype().byte_len(view.numel()));
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn random_pickles_never_panic(
        pickle in proptest::collection::vec(prop_oneof![
            proptest::sample::select(b"(.01NJKMXG]})tldaesuqrhjcQRb\x85\x86\x87\x88\x89\x8a\x8c\x94\x93\n".to_vec()),
            any::<u8>(),
        ], 0..60),
    ) {
        exhaust(&archive(&[("x/data.pkl", &pickle), ("x/data/0", &[0; 16])]));
        exhaust(&pickle);
    }

    #[test]
    fn mutated_files_never_panic(
        which in 0..4usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = match which {
            0 => fs::read(data("torch/plain.pt")).unwrap(),
            1 => fs::read(data("torch/tall_masks.pt")).unwrap(),
            2 => archive(&[("x/data.pkl", &tensor(4, 0, &[2, 2], &[1, 2])), ("x/data/0", &[0; 16])]),
            _ => fs::read(data("torch/trainer.pt")).unwrap(),
        };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        exhaust(&file);
    }
}
