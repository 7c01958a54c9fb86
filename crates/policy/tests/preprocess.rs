//! Images against what TensorFlow makes of them, step by step.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod support;

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};
use ndarray::{Array3, array, s};
use skillweld_policy::image::{
    Normalization, Preprocessor, center_crop, decode_image, jpeg_round_trip, read_image, resize_lanczos3,
};
use skillweld_store::Checkpoint;

use support::{assert_same_pixels, data, fixture, stored_image, tensor};

/// Every step from the step before as TensorFlow has it, and all of them from the image.
fn check_steps(expected: &Checkpoint, name: &str, image_in: &Array3<u8>) {
    let key = |step: &str| format!("{name}.{step}");
    let stored = |step: &str| stored_image(expected, &key(step));
    let resized = stored("resized");
    let (height, width, _) = resized.dim();
    let resize = |image: &Array3<u8>| resize_lanczos3(image, height, width).unwrap();
    let crop = |image: &Array3<u8>| center_crop(image, Preprocessor::CROP_AREA).unwrap();

    assert_same_pixels(&key("resized_nojpeg"), &resize(image_in), &stored("resized_nojpeg"));
    assert_same_pixels(&key("cropped_nojpeg"), &crop(&stored("resized_nojpeg")), &stored("cropped_nojpeg"));
    let through_jpeg = jpeg_round_trip(image_in).unwrap();
    assert_same_pixels(&key("resized"), &resize(&through_jpeg), &resized);
    assert_same_pixels(&key("cropped"), &crop(&resized), &stored("cropped"));
    let prepared = Preprocessor::new(height, Vec::new()).prepare(image_in).unwrap();
    assert_same_pixels(&key("all steps"), &prepared, &stored("cropped"));
}

/// Made with TensorFlow 2.15: enlarged, reduced, upright, flat, with odd sides and down to one pixel; noise, black and
/// white, and cut from rendered scenes.
#[test]
fn every_step_is_tensorflows() {
    let expected = Checkpoint::open(data("tensorflow.safetensors")).unwrap();
    let names: Vec<&str> = expected.keys().filter_map(|key| key.strip_suffix(".image")).collect();
    assert_eq!(names.len(), 10);
    for name in names {
        let input = stored_image(&expected, &format!("{name}.image"));
        let through_jpeg = jpeg_round_trip(&input).unwrap();
        assert_same_pixels(
            &format!("{name}.jpeg"),
            &through_jpeg,
            &stored_image(&expected, &format!("{name}.jpeg")),
        );
        check_steps(&expected, name, &input);
    }
}

#[test]
fn the_official_fixture_is_reached_to_the_pixel() {
    let Some(dir) = fixture("preprocess") else { return };
    let expected = Checkpoint::open(dir.join("expected.safetensors")).unwrap();
    let names: Vec<&str> = expected.keys().filter_map(|key| key.strip_suffix(".cropped")).collect();
    assert!(!names.is_empty());
    for name in names {
        let input = read_image(&dir.join(format!("{name}.png"))).unwrap();
        check_steps(&expected, name, &input);
        let (size, ..) = stored_image(&expected, &format!("{name}.resized")).dim();
        let preprocessor = Preprocessor::new(size, vec![Normalization::IMAGENET, Normalization::HALF]);
        let actual = preprocessor.pixel_values(&[input.view()]).unwrap().into_dyn();
        let expected = tensor(&expected, &format!("{name}.pixel_values"));
        assert_eq!(actual.shape(), expected.shape());
        // Not by a fold over `f32::max`, which drops NaN.
        let close = |a: f32, e: f32| (a - e).abs() <= f32::EPSILON * 4.0;
        let off = actual.iter().zip(&expected).find(|(a, e)| !close(**a, **e));
        assert_eq!(off, None, "{name}");
    }
}

#[test]
fn jpeg_files_are_read_and_transparency_is_dropped() {
    let mut jpeg = Vec::new();
    let grey = [120; 16 * 8];
    JpegEncoder::new(&mut jpeg).encode(&grey, 16, 8, ExtendedColorType::L8).unwrap();
    assert_eq!(decode_image(&jpeg).unwrap(), Array3::from_elem((8, 16, 3), 120));

    let mut png = Vec::new();
    let pixels = [10, 20, 30, 0, 40, 50, 60, 255];
    PngEncoder::new(&mut png).write_image(&pixels, 2, 1, ExtendedColorType::Rgba8).unwrap();
    assert_eq!(decode_image(&png).unwrap(), array![[[10, 20, 30], [40, 50, 60]]]);
}

#[test]
fn an_image_of_the_right_size_is_only_cropped() {
    let image = Array3::from_shape_fn((24, 24, 3), |(y, x, c)| ((y * 31 + x * 17 + c * 101) % 256) as u8);
    let preprocessor = Preprocessor::new(24, vec![Normalization::HALF]);
    assert_eq!(preprocessor.prepare(&image).unwrap(), center_crop(&image, 0.9).unwrap());
    assert_eq!(preprocessor.with_crop_area(1.0).prepare(&image).unwrap(), image);
}

#[test]
fn towers_and_images_are_stacked_on_channels() {
    let images = [0u8, 255].map(|level| Array3::from_elem((9, 7, 3), level));
    let preprocessor = Preprocessor::new(4, vec![Normalization::IMAGENET, Normalization::HALF]);
    let values = preprocessor.pixel_values(&[images[0].view(), images[1].view()]).unwrap();
    assert_eq!(values.shape(), [12, 4, 4]);
    let expected = [
        -0.485 / 0.229,
        -0.456 / 0.224,
        -0.406 / 0.225,
        -1.0,
        -1.0,
        -1.0,
        0.515 / 0.229,
        0.544 / 0.224,
        0.594 / 0.225,
        1.0,
        1.0,
        1.0,
    ];
    for (plane, expected) in values.outer_iter().zip(expected) {
        assert!(plane.iter().all(|value| (value - expected).abs() < 1e-5), "{plane} {expected}");
    }
}

#[test]
fn views_of_larger_arrays_are_images_too() {
    let large = Array3::from_shape_fn((40, 30, 3), |(y, x, c)| (y * 6 + x + c * 3) as u8);
    // Rotated by 180 degrees, as clients of LIBERO do, without copying.
    let rotated = large.slice(s![..;-1, ..;-1, ..]);
    let preprocessor = Preprocessor::new(16, vec![Normalization::HALF]);
    let from_view = preprocessor.pixel_values(&[rotated]).unwrap();
    assert_eq!(from_view, preprocessor.pixel_values(&[rotated.to_owned().view()]).unwrap());
}

#[test]
fn what_is_no_image_is_refused_by_place_and_shape() {
    let preprocessor = Preprocessor::new(8, vec![Normalization::HALF]);
    let good = Array3::zeros((5, 5, 3));
    for shape in [(0, 5, 3), (5, 0, 3), (3, 5, 5), (8, 8, 4)] {
        let error = preprocessor.pixel_values(&[good.view(), Array3::zeros(shape).view()]).unwrap_err();
        let shape = format!("{} × {} × {}", shape.0, shape.1, shape.2);
        assert!(error.to_string().contains("image_1: ") && error.to_string().contains(&shape), "{error}");
    }
}

#[test]
fn images_of_absurd_sizes_are_refused_by_place_size_and_limit() {
    let preprocessor = Preprocessor::new(8, vec![Normalization::HALF]);
    let good = Array3::zeros((5, 5, 3));
    for (shape, size) in [((1, 2_000_000, 3), "1 × 2000000"), ((8192, 4097, 3), "8192 × 4097")] {
        let large = Array3::<u8>::zeros(shape);
        let error = preprocessor.pixel_values(&[good.view(), large.view()]).unwrap_err().to_string();
        for part in ["image_1: ", size, "8192", "33554432"] {
            assert!(error.contains(part), "{error}");
        }
    }
    // The largest side there may be, as flat as there may be.
    let flat = Array3::<u8>::from_elem((1, 8192, 3), 77);
    let prepared = Preprocessor::new(24, vec![]).prepare(&flat).unwrap();
    assert!(prepared.iter().all(|&value| value == 77), "{prepared}");
}

#[test]
fn files_that_claim_absurd_sizes_are_refused() {
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&[0; 9000 * 3], 9000, 1, ExtendedColorType::Rgb8).unwrap();
    let error = decode_image(&png).unwrap_err().to_string();
    assert!(error.contains("larger than 8192"), "{error}");
}

#[test]
fn files_that_are_no_image_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let missing = read_image(&dir.path().join("missing.png")).unwrap_err().to_string();
    assert!(missing.contains("missing.png"), "{missing}");
    let text = dir.path().join("text.png");
    std::fs::write(&text, "not an image").unwrap();
    let error = read_image(&text).unwrap_err().to_string();
    assert!(error.contains("text.png") && error.contains("neither PNG nor JPEG"), "{error}");
    let cut = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0";
    assert!(decode_image(cut).unwrap_err().to_string().starts_with("observation: image: "));
}
