use std::f32::consts::PI;

use ndarray::{Array3, ArrayRef3};
use skillweld_simd::vectorize;

use super::{RGB, checked};
use crate::PolicyError;

/// Half the width of the kernel, in source pixels when enlarging.
const RADIUS: f32 = 3.0;

/// Resamples an image with the Lanczos-3 kernel, widened when reducing, then rounds (half to even) and clips:
/// `tf.image.resize(image, size, method="lanczos3", antialias=True)` and back to bytes. u8 H × W × 3 → `height` ×
/// `width` × 3, each axis by its own scale.
///
/// Output pixel x lies over source position s = (x + ½) / scale and is Σ w(|i + ½ − s| / k) vᵢ over the source pixels i
/// within 3 k, where k = max(1 / scale, 1), w(t) = 3 sin(πt) sin(πt/3) / (πt)², and the weights of the pixels inside the
/// image are divided by their sum.
///
/// # Errors
/// [`PolicyError::Observation`] when the image is empty or has not three channels, or the size is zero.
pub fn resize_lanczos3(
    image: &ArrayRef3<u8>,
    height: usize,
    width: usize,
) -> Result<Array3<u8>, PolicyError> {
    let (from_height, from_width, pixels) = checked(image)?;
    if height == 0 || width == 0 {
        return Err(PolicyError::Observation(format!("cannot be resized to {height} × {width}")));
    }
    let mut bytes = Vec::with_capacity(height * width * RGB);
    resample(&pixels, (from_height, from_width), (height, width), |line| {
        let begin = bytes.len();
        bytes.resize(begin + line.len(), 0);
        round_to_bytes(&mut bytes[begin..], line);
    });
    Array3::from_shape_vec((height, width, RGB), bytes)
        .map_err(|error| PolicyError::Observation(error.to_string()))
}

/// Output rows that are worked on at once: enough for vectors in the second pass, few enough for the cache.
const BAND: usize = 16;
/// Source columns that are worked on at once, so that a wide image takes no more memory than a narrow one.
const STRIP: usize = 256;

/// Hands out the resampled bands of rows, before rounding. Strip by strip of the source: rows first, then columns as the
/// rows of the transposed strip, so that both passes add whole lines. Every output value is the sum of its terms from left
/// to right, however the source is cut.
fn resample(pixels: &[u8], from: (usize, usize), to: (usize, usize), mut emit: impl FnMut(&[f32])) {
    let (rows, columns) = (spans(from.0, to.0), spans(from.1, to.1));
    let mut wide = vec![0.0; BAND * STRIP.min(from.1) * RGB];
    let mut wide_transposed = wide.clone();
    let mut narrow = vec![0.0; BAND * to.1 * RGB];
    let mut narrow_transposed = narrow.clone();
    for rows in rows.chunks(BAND) {
        let (height, column_len) = (rows.len(), rows.len() * RGB);
        let narrow = &mut narrow[..to.1 * column_len];
        narrow.fill(0.0);
        for begin in (0..from.1).step_by(STRIP) {
            let width = STRIP.min(from.1 - begin);
            let wide = &mut wide[..height * width * RGB];
            let strip = &mut wide_transposed[..height * width * RGB];
            add_rows(wide, &pixels[begin * RGB..], width * RGB, from.1 * RGB, rows);
            transpose(wide, strip, height, width);
            add_columns(narrow, strip, begin, column_len, &columns);
        }
        let band = &mut narrow_transposed[..height * to.1 * RGB];
        transpose(narrow, band, to.1, height);
        emit(band);
    }
}

/// The source pixels that one output pixel is made of.
#[derive(Debug)]
struct Span {
    start: usize,
    /// Of `start` and the pixels after it; their sum is 1.
    weights: Vec<f32>,
}

/// The spans of every output pixel along one axis, in f32 throughout as TensorFlow computes them.
fn spans(from: usize, to: usize) -> Vec<Span> {
    let inverse_scale = 1.0 / (to as f32 / from as f32);
    let widening = inverse_scale.max(1.0);
    let narrowing = 1.0 / widening;
    let span = |x: usize| {
        let centre = (x as f32 + 0.5) * inverse_scale;
        // Negative positions saturate to 0 in the conversion.
        let start = ((centre - RADIUS * widening - 0.5).ceil() as usize).min(from - 1);
        let last = ((centre + RADIUS * widening - 0.5).floor() as usize).min(from - 1);
        let kernel_at = |i: usize| lanczos3(((i as f32 + 0.5 - centre) * narrowing).abs());
        let mut weights: Vec<f32> = (start..=last).map(kernel_at).collect();
        // Some pixel lies within half a source pixel of the centre, so the sum is never near zero.
        let normalize = 1.0 / weights.iter().sum::<f32>();
        weights.iter_mut().for_each(|weight| *weight *= normalize);
        Span { start, weights }
    };
    (0..to).map(span).collect()
}

fn lanczos3(t: f32) -> f32 {
    if t > RADIUS {
        0.0
    } else if t <= 1e-3 {
        1.0
    } else {
        RADIUS * (PI * t).sin() * (PI * t / RADIUS).sin() / (PI * PI * t * t)
    }
}

/// Swaps the axes of an image of `height` × `width` pixels.
fn transpose(image: &[f32], out: &mut [f32], height: usize, width: usize) {
    let (from, _) = image.as_chunks::<RGB>();
    let (to, _) = out.as_chunks_mut::<RGB>();
    for (x, column) in to.chunks_exact_mut(height).take(width).enumerate() {
        for (y, pixel) in column.iter_mut().enumerate() {
            *pixel = from[y * width + x];
        }
    }
}

vectorize! {
    /// Lines of `len` values, weighted and added; `stride` values lie between the beginnings of two lines of `image`.
    fn add_rows(out: &mut [f32], image: &[u8], len: usize, stride: usize, spans: &[Span]) {
        for (out, span) in out.chunks_exact_mut(len).zip(spans) {
            out.fill(0.0);
            for (line, weight) in image[span.start * stride..].chunks(stride).zip(&span.weights) {
                for (out, value) in out.iter_mut().zip(line) {
                    *out += weight * f32::from(*value);
                }
            }
        }
    }

    /// Adds to `out` what spans take of `strip`: the source pixels from `begin` on, one a line of `len` values.
    fn add_columns(out: &mut [f32], strip: &[f32], begin: usize, len: usize, spans: &[Span]) {
        let end = begin + strip.len() / len;
        for (out, span) in out.chunks_exact_mut(len).zip(spans) {
            let (first, last) = (span.start.max(begin), (span.start + span.weights.len()).min(end));
            if first >= last {
                continue;
            }
            let weights = &span.weights[first - span.start..last - span.start];
            for (line, weight) in strip[(first - begin) * len..].chunks_exact(len).zip(weights) {
                for (out, value) in out.iter_mut().zip(line) {
                    *out += weight * value;
                }
            }
        }
    }

    fn round_to_bytes(bytes: &mut [u8], values: &[f32]) {
        for (byte, value) in bytes.iter_mut().zip(values) {
            // By way of i32, to which vectors convert.
            *byte = value.round_ties_even().clamp(0.0, 255.0) as i32 as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, pixel by pixel in f64, with no separation into passes.
    fn reference(image: &Array3<u8>, height: usize, width: usize) -> Array3<f64> {
        let weights = |from: usize, to: usize, x: usize| -> Vec<f64> {
            let inverse_scale = from as f64 / to as f64;
            let widening = inverse_scale.max(1.0);
            let centre = (x as f64 + 0.5) * inverse_scale;
            let kernel = |i| {
                let t = std::f64::consts::PI * (f64::from(i) + 0.5 - centre).abs() / widening;
                if t == 0.0 {
                    1.0
                } else if t >= 3.0 * std::f64::consts::PI {
                    0.0
                } else {
                    3.0 * t.sin() * (t / 3.0).sin() / (t * t)
                }
            };
            let raw: Vec<f64> = (0..from as u32).map(kernel).collect();
            let sum: f64 = raw.iter().sum();
            raw.into_iter().map(|weight| weight / sum).collect()
        };
        let (from_height, from_width, _) = image.dim();
        let rows: Vec<_> = (0..height).map(|y| weights(from_height, height, y)).collect();
        let columns: Vec<_> = (0..width).map(|x| weights(from_width, width, x)).collect();
        Array3::from_shape_fn((height, width, RGB), |(y, x, c)| {
            let terms = image
                .indexed_iter()
                .filter(|((_, _, channel), _)| *channel == c)
                .map(|((i, j, _), v)| rows[y][i] * columns[x][j] * f64::from(*v));
            terms.sum()
        })
    }

    fn image(max: usize) -> impl Strategy<Value = Array3<u8>> {
        (1..=max, 1..=max).prop_flat_map(|(height, width)| {
            prop::collection::vec(any::<u8>(), height * width * RGB)
                .prop_map(move |pixels| Array3::from_shape_vec((height, width, RGB), pixels).unwrap())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn both_passes_are_the_definition(image in image(24), height in 1usize..40, width in 1usize..24) {
            let from = (image.dim().0, image.dim().1);
            let mut fast = Vec::new();
            resample(image.as_slice().unwrap(), from, (height, width), |band| fast.extend_from_slice(band));
            prop_assert_eq!(fast.len(), height * width * RGB);
            for (fast, slow) in fast.iter().zip(&reference(&image, height, width)) {
                prop_assert!((f64::from(*fast) - slow).abs() < 2e-3, "{fast} {slow}");
            }
        }

        #[test]
        fn wide_images_are_the_definition_too(width in STRIP - 2..3 * STRIP, to in 1usize..40, seed: u8) {
            let image = Array3::from_shape_fn((2, width, RGB), |(y, x, c)| (x * 37 + y * 11 + c * 5) as u8 ^ seed);
            let mut fast = Vec::new();
            resample(image.as_slice().unwrap(), (2, width), (3, to), |band| fast.extend_from_slice(band));
            for (fast, slow) in fast.iter().zip(&reference(&image, 3, to)) {
                prop_assert!((f64::from(*fast) - slow).abs() < 2e-3, "{fast} {slow}");
            }
        }

        #[test]
        fn a_grey_image_stays_grey(value: u8, from in 1usize..40, to in 1usize..40) {
            let grey = Array3::from_elem((from, 1, RGB), value);
            let resized = resize_lanczos3(&grey, to, to).unwrap();
            prop_assert!(resized.iter().all(|pixel| *pixel == value));
        }

        #[test]
        fn the_same_size_is_the_same_image(image in image(16)) {
            let (height, width, _) = image.dim();
            prop_assert_eq!(resize_lanczos3(&image, height, width).unwrap(), image);
        }
    }

    #[test]
    fn halves_round_to_even_and_overshoot_is_clipped() {
        let mut bytes = [0; 6];
        round_to_bytes(&mut bytes, &[0.5, 1.5, 2.5, -7.0, 254.6, 300.0]);
        assert_eq!(bytes, [0, 2, 2, 0, 255, 255]);
    }

    #[test]
    fn no_image_and_no_size_are_refused() {
        let error =
            |shape, height| resize_lanczos3(&Array3::zeros(shape), height, 4).unwrap_err().to_string();
        assert!(error((0, 3, 3), 4).contains("0 × 3 × 3"));
        assert!(error((2, 3, 4), 4).contains("2 × 3 × 4"));
        assert!(error((2, 3, 3), 0).contains("0 × 4"));
    }
}
