//! `skillweld preprocess`, on images made on the spot and on the official fixture.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test, a skip must be seen")]

mod support;

use std::fs;
use std::path::Path;

use skillweld_store::Checkpoint;
use skillweld_tensor::Dtype;
use support::{names, run};

/// A grey image of 2 × 2 pixels of level 128: PNG as small as it gets.
const GREY: &[u8] = include_bytes!("data/grey.png");

fn pixel_values(file: &Path) -> (Vec<usize>, Vec<f32>) {
    let checkpoint = Checkpoint::open(file).unwrap();
    assert_eq!(checkpoint.keys().collect::<Vec<_>>(), ["pixel_values"]);
    let view = checkpoint.get("pixel_values").unwrap();
    assert_eq!(view.dtype(), Dtype::F32);
    (view.shape().to_vec(), view.to_f32().unwrap().into_iter().collect())
}

#[test]
fn an_image_becomes_pixel_values() {
    let dir = tempfile::tempdir().unwrap();
    let (image, output) = (dir.path().join("grey.png"), dir.path().join("out.safetensors"));
    fs::write(&image, GREY).unwrap();
    let arguments = ["preprocess".as_ref(), image.as_os_str(), "--output".as_ref(), output.as_os_str()];
    let ran = run(arguments).succeeded();
    assert!(ran.out.contains("F32 6 × 224 × 224"), "{}", ran.out);
    let (shape, values) = pixel_values(&output);
    assert_eq!(shape, [6, 224, 224]);
    let level = 128.0f32 / 255.0;
    let expected = [
        (level - 0.485) / 0.229,
        (level - 0.456) / 0.224,
        (level - 0.406) / 0.225,
        (level - 0.5) / 0.5,
        (level - 0.5) / 0.5,
        (level - 0.5) / 0.5,
    ];
    for (plane, expected) in values.chunks(224 * 224).zip(expected) {
        assert!(plane.iter().all(|value| (value - expected).abs() < 1e-6), "{expected}");
    }

    let before = fs::read(&output).unwrap();
    fs::write(&output, "precious").unwrap();
    run(arguments).failed_with(&["out.safetensors already exists", "--force"]);
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    run(arguments.into_iter().chain(["--force".as_ref()])).succeeded();
    assert_eq!(fs::read(&output).unwrap(), before);
    assert_eq!(names(dir.path()), ["grey.png", "out.safetensors"], "nothing is left beside");
}

#[test]
fn what_cannot_be_done_is_said_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
    let try_out = |image: &str, output: &str| run(["preprocess", &at(image), "--output", &at(output)]);
    try_out("missing.png", "out.safetensors").failed_with(&["missing.png"]);
    fs::write(at("text.png"), "text").unwrap();
    try_out("text.png", "out.safetensors").failed_with(&["text.png", "neither PNG nor JPEG"]);
    fs::write(at("grey.png"), GREY).unwrap();
    try_out("grey.png", "out.npy").failed_with(&["out.npy", "OUT.safetensors"]);
    try_out("grey.png", "text.png/out.safetensors").failed_with(&["cannot create", "text.png"]);
    fs::create_dir(at("dir.safetensors")).unwrap();
    try_out("grey.png", "dir.safetensors").failed_with(&["is a directory"]);
    assert_eq!(names(dir.path()), ["dir.safetensors", "grey.png", "text.png"]);
}

#[test]
fn the_official_images_come_out_as_expected() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/preprocess");
    if !fixture.is_dir() {
        println!("skipped: no fixture preprocess beside the project");
        return;
    }
    let expected = Checkpoint::open(fixture.join("expected.safetensors")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in expected.keys().filter_map(|key| key.strip_suffix(".pixel_values")) {
        let (image, output) =
            (fixture.join(format!("{name}.png")), dir.path().join(format!("{name}.safetensors")));
        run(["preprocess".as_ref(), image.as_os_str(), "--output".as_ref(), output.as_os_str()]).succeeded();
        let (shape, values) = pixel_values(&output);
        let expected = expected.get(&format!("{name}.pixel_values")).unwrap();
        assert_eq!(shape, expected.shape());
        let expected = expected.to_f32().unwrap();
        let largest = values.iter().zip(&expected).map(|(a, e)| (a - e).abs()).fold(0.0, f32::max);
        assert!(largest <= 4.0 * f32::EPSILON, "{name}: {largest}");
    }
}
