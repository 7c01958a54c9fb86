//! Good checkpoints are read byte for byte; each way in which one can be damaged is refused by its own error.
#![allow(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod common;

use std::fs;
use std::path::Path;

use common::{data, safetensors, write_model};
use proptest::prelude::*;
use skillweld_store::{Checkpoint, HeaderProblem, IndexProblem, StoreError};
use skillweld_tensor::Dtype;

fn problem(file: &[u8]) -> HeaderProblem {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, file).unwrap();
    match Checkpoint::open(&path).unwrap_err() {
        StoreError::Header { path: named, problem } => {
            assert_eq!(named, path);
            // What to do is part of every one of them.
            let (text, remedies) =
                (problem.to_string(), ["fetch", "save it", "save the file again", "write the file"]);
            assert!(remedies.iter().any(|remedy| text.contains(remedy)), "{text}");
            problem
        }
        other => panic!("{other}"),
    }
}

fn index_problem(dir: &Path) -> IndexProblem {
    match Checkpoint::open(dir).unwrap_err() {
        StoreError::Index { problem, .. } => {
            let (text, remedies) =
                (problem.to_string(), ["fetch", "remove", "may only name files beside itself"]);
            assert!(remedies.iter().any(|remedy| text.contains(remedy)), "{text}");
            problem
        }
        other => panic!("{other}"),
    }
}

#[test]
fn every_dtype_is_readable() {
    for &dtype in Dtype::ALL {
        let bytes: Vec<u8> = (0..dtype.byte_len(8).unwrap() as u8).collect();
        let header =
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":[2,4],"data_offsets":[0,{}]}}}}"#, bytes.len());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.safetensors"), safetensors(&header, &bytes)).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let view = checkpoint.get("w").unwrap();
        assert_eq!((view.dtype(), view.shape(), view.bytes()), (dtype, &[2, 4][..], &bytes[..]));
        assert_eq!(checkpoint.total_bytes(), bytes.len() as u64);
    }
}

#[test]
fn keys_are_sorted_and_metadata_kept() {
    let dir = tempfile::tempdir().unwrap();
    let header = r#"{"__metadata__":{"format":"pt"},"module.b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "empty":{"dtype":"F32","shape":[0,3],"data_offsets":[1,1]},
        "a._orig_mod.w":{"dtype":"U8","shape":[],"data_offsets":[1,2]}}"#;
    fs::write(dir.path().join("any name.safetensors"), safetensors(header, b"xy")).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["a.w", "b", "empty"]);
    assert_eq!(checkpoint.get("a.w").unwrap().bytes(), b"y");
    assert_eq!(checkpoint.get("empty").unwrap().shape(), [0, 3]);
    assert_eq!(checkpoint.metadata()["format"], "pt");
    assert!(checkpoint.get("c").is_none());
}

#[test]
fn names_that_collide_once_stripped_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), "model.safetensors", &[("module.w", 1), ("w", 1)]);
    let error = Checkpoint::open(dir.path()).unwrap_err();
    let StoreError::KeyCollision { key, first, second, .. } = &error else { panic!("{error}") };
    assert_eq!((key.as_str(), first.as_str(), second.as_str()), ("w", "module.w", "w"));
}

#[test]
fn damaged_files_are_refused_by_name() {
    use HeaderProblem as P;
    let entry = |name: &str, dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let table = |entries: &[String]| format!("{{{}}}", entries.join(","));
    let one = |dtype, shape, begin, end, data: &[u8]| {
        problem(&safetensors(&table(&[entry("w", dtype, shape, begin, end)]), data))
    };

    assert_eq!(problem(b"1234567"), P::TooShort { file_bytes: 7 });
    assert_eq!(problem(b""), P::TooShort { file_bytes: 0 });
    assert_eq!(
        problem(&[9, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']),
        P::LongerThanFile { header_bytes: 9, file_bytes: 10 }
    );
    assert_eq!(problem(&[0xff; 16]), P::LongerThanFile { header_bytes: u64::MAX, file_bytes: 16 });
    assert_eq!(problem(&[3, 0, 0, 0, 0, 0, 0, 0, b'{', 0xff, b'}']), P::NotUtf8 { at_byte: 9 });
    assert!(matches!(problem(&safetensors("{\"w\":", b"")), P::NotJson { .. }));
    assert!(matches!(problem(&safetensors("[]", b"")), P::NotJson { .. }));
    assert!(matches!(problem(&safetensors(&"[".repeat(100_000), b"")), P::NotJson { .. }));
    assert!(matches!(one("F32", "[-1]", 0, 4, &[0; 4]), P::NotJson { .. }));
    let twice = table(&[entry("w", "U8", "[1]", 0, 1), entry("w", "U8", "[1]", 1, 2)]);
    assert_eq!(problem(&safetensors(&twice, b"xy")), P::DuplicateTensor { tensor: "w".into() });
    assert_eq!(one("F31", "[1]", 0, 4, &[0; 4]), P::UnknownDtype { tensor: "w".into(), dtype: "F31".into() });
    let huge = "[4294967296,4294967296,4]";
    assert!(matches!(one("F32", huge, 0, 4, &[0; 4]), P::ShapeOverflow { tensor, .. } if tensor == "w"));
    assert_eq!(
        one("F32", "[2]", 0, 4, &[0; 4]),
        P::SizeMismatch { tensor: "w".into(), begin: 0, end: 4, expected_bytes: 8 }
    );
    assert!(matches!(one("F32", "[1]", 4, 0, &[0; 4]), P::SizeMismatch { .. }));
    // Truncated: the header promises more than there is.
    assert_eq!(
        one("F32", "[2]", 0, 8, &[0; 7]),
        P::OutOfRange { tensor: "w".into(), begin: 0, end: 8, data_bytes: 7 }
    );
    let overlap = table(&[entry("b", "U8", "[2]", 1, 3), entry("a", "U8", "[2]", 0, 2)]);
    assert_eq!(
        problem(&safetensors(&overlap, b"xyz")),
        P::Overlap { first: "a".into(), first_end: 2, second: "b".into(), second_begin: 1 }
    );
    let hole = table(&[entry("a", "U8", "[1]", 0, 1), entry("b", "U8", "[1]", 2, 3)]);
    assert_eq!(problem(&safetensors(&hole, b"xyz")), P::Hole { begin: 1, end: 2 });
    assert_eq!(one("U8", "[1]", 0, 1, b"xyz"), P::Hole { begin: 1, end: 3 });
}

#[test]
fn a_header_over_the_limit_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    fs::write(&path, 100_000_001u64.to_le_bytes()).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000_100).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(
        matches!(error, StoreError::Header { problem: HeaderProblem::HeaderTooLarge { .. }, .. }),
        "{error}"
    );
}

#[test]
fn shards_are_joined_by_their_index() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), "m-1.safetensors", &[("a", 3)]);
    write_model(dir.path(), "m-2.safetensors", &[("b", 5)]);
    let index = |map: &str| {
        fs::write(
            dir.path().join("m.safetensors.index.json"),
            format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#),
        )
        .unwrap();
    };
    index(r#"{"a":"m-1.safetensors","b":"m-2.safetensors"}"#);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(checkpoint.total_bytes(), 8);
    assert_eq!(checkpoint.file_of("b"), Some(dir.path().join("m-2.safetensors").as_path()));

    index(r#"{"a":"m-1.safetensors","b":"m-3.safetensors"}"#);
    assert_eq!(index_problem(dir.path()), IndexProblem::MissingShard { shard: "m-3.safetensors".into() });
    index(r#"{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-2.safetensors"}"#);
    assert_eq!(
        index_problem(dir.path()),
        IndexProblem::MissingKey { key: "c".into(), shard: "m-2.safetensors".into() }
    );
    // The key is there, but not where the index says.
    index(r#"{"a":"m-2.safetensors","b":"m-1.safetensors"}"#);
    assert!(matches!(index_problem(dir.path()), IndexProblem::MissingKey { .. }));
    index("{}");
    assert_eq!(index_problem(dir.path()), IndexProblem::Empty);
    for unsafe_name in
        ["../m-1.safetensors", "/etc/passwd", "sub/m-1.safetensors", "..", "", "./m-1.safetensors"]
    {
        index(&format!(r#"{{"a":"{unsafe_name}"}}"#));
        assert_eq!(index_problem(dir.path()), IndexProblem::UnsafeName { shard: unsafe_name.into() });
    }
    write_model(dir.path(), "m-2.safetensors", &[("a", 3), ("b", 5)]);
    index(r#"{"a":"m-1.safetensors","b":"m-2.safetensors"}"#);
    assert_eq!(
        index_problem(dir.path()),
        IndexProblem::KeyTwice {
            key: "a".into(),
            first: "m-1.safetensors".into(),
            second: "m-2.safetensors".into()
        }
    );
    fs::write(dir.path().join("m.safetensors.index.json"), "{").unwrap();
    assert!(matches!(Checkpoint::open(dir.path()), Err(StoreError::Json { .. })));
}

#[test]
fn a_directory_must_say_which_weights_are_meant() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Checkpoint::open(dir.path()), Err(StoreError::NoWeights { .. })));
    fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
    write_model(dir.path(), "adapter_model.safetensors", &[("a", 1)]);
    assert!(matches!(Checkpoint::open(dir.path()), Err(StoreError::OnlyAdapter { .. })));
    fs::write(dir.path().join("action_head--100_checkpoint.pt"), "not opened").unwrap();
    write_model(dir.path(), "x.safetensors", &[("a", 1)]);
    assert_eq!(Checkpoint::open(dir.path()).unwrap().len(), 1);
    write_model(dir.path(), "y.safetensors", &[("a", 1)]);
    let error = Checkpoint::open(dir.path()).unwrap_err();
    let StoreError::Ambiguous { candidates, .. } = &error else { panic!("{error}") };
    assert_eq!(candidates, &["x.safetensors", "y.safetensors"]);
    assert!(error.to_string().contains("Name the file itself"), "{error}");
    write_model(dir.path(), "model.safetensors", &[("a", 1), ("b", 1)]);
    assert_eq!(Checkpoint::open(dir.path()).unwrap().len(), 2);

    assert!(matches!(Checkpoint::open(dir.path().join("missing")), Err(StoreError::Io { .. })));
    fs::write(dir.path().join("notes.txt"), "").unwrap();
    assert!(matches!(Checkpoint::open(dir.path().join("notes.txt")), Err(StoreError::UnknownFormat { .. })));
}

#[test]
fn tied_weights_are_found_under_either_name() {
    let dir = tempfile::tempdir().unwrap();
    let open = |keys: &[(&str, usize)], config: &str| {
        write_model(dir.path(), "model.safetensors", keys);
        fs::write(dir.path().join("config.json"), config).unwrap();
        Checkpoint::open(dir.path()).unwrap()
    };
    let embedding = "model.embed_tokens.weight";
    let tied = open(&[(embedding, 4)], r#"{"tie_word_embeddings":true}"#);
    assert_eq!(tied.resolve("lm_head.weight"), Some(embedding));
    assert_eq!(tied.resolve(embedding), Some(embedding));
    assert_eq!(tied.resolve("model.norm.weight"), None);
    assert!(tied.get("lm_head.weight").is_none(), "`get` is exact");

    let nested =
        open(&[("language_model.lm_head.weight", 4)], r#"{"text_config":{"tie_word_embeddings":true}}"#);
    assert_eq!(
        nested.resolve("language_model.model.embed_tokens.weight"),
        Some("language_model.lm_head.weight")
    );

    let unsaid = open(&[("paligemma_with_expert.paligemma.lm_head.weight", 4)], "{}");
    let other = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight";
    assert_eq!(unsaid.resolve(other), Some("paligemma_with_expert.paligemma.lm_head.weight"));

    let untied = open(&[(embedding, 4)], r#"{"tie_word_embeddings":false}"#);
    assert_eq!(untied.resolve("lm_head.weight"), None);
    let both = open(&[(embedding, 4), ("lm_head.weight", 4)], r#"{"tie_word_embeddings":true}"#);
    assert_eq!(both.aliases().len(), 0, "two tensors, whatever the config says");
}

#[test]
fn the_hash_of_contents_does_not_depend_on_files() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_model(whole.path(), "model.safetensors", &[("a", 3), ("b", 5)]);
    write_model(parts.path(), "m-1.safetensors", &[("b", 5)]);
    write_model(parts.path(), "m-2.safetensors", &[("a", 3)]);
    let index = r#"{"weight_map":{"a":"m-2.safetensors","b":"m-1.safetensors"}}"#;
    fs::write(parts.path().join("model.safetensors.index.json"), index).unwrap();
    let hash = |dir: &Path| Checkpoint::open(dir).unwrap().content_hash();
    assert_eq!(hash(whole.path()), hash(parts.path()));
}

#[test]
fn files_of_the_reference_writer_open() {
    let checkpoint = Checkpoint::open(data("peft-tiny/base")).unwrap();
    assert_eq!(checkpoint.get("lm_head.weight").unwrap().shape(), [96, 32]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_files_never_panic(header in "[\\[\\]{}:,\"a-z0-9_-]{0,80}", data in proptest::collection::vec(any::<u8>(), 0..40)) {
        open_bytes(&safetensors(&header, &data));
        open_bytes(&data);
    }

    #[test]
    fn mutated_files_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let header = r#"{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"v":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]}}"#;
        let mut file = safetensors(header, &[1; 14]);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        open_bytes(&file);
        file.truncate(cut.index(file.len()));
        open_bytes(&file);
    }
}

/// Opens a file of these bytes and, if that works, reads every tensor and checks that views fit.
fn open_bytes(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        for key in checkpoint.keys() {
            let view = checkpoint.get(key).unwrap();
            assert_eq!(Some(view.bytes().len()), view.dtype().byte_len(view.numel()));
        }
    }
}
