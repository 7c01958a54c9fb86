use std::mem::swap;

use ndarray::{Array3, ArrayRef3};
use skillweld_simd::vectorize;

use super::{RGB, checked};
use crate::PolicyError;

/// Cuts `area` of an image from its middle (each side times √area) and enlarges it to the old size bilinearly: the
/// published code's `tf.image.crop_and_resize`. u8 H × W × 3 → u8 H × W × 3.
///
/// The grid is aligned to the corners: of n pixels, the outer ones lie at (1 ∓ √area) / 2 · (n − 1), the others evenly
/// between. Values are mapped to 0 … 1 before and by v → ⌊255.5 v⌋ after, as TensorFlow converts images.
///
/// # Errors
/// [`PolicyError::Observation`] when the image is empty or has not three channels, or unless 0 < `area` ≤ 1.
pub fn center_crop(image: &ArrayRef3<u8>, area: f32) -> Result<Array3<u8>, PolicyError> {
    let (height, width, pixels) = checked(image)?;
    if !(area > 0.0 && area <= 1.0) {
        return Err(PolicyError::Observation(format!(
            "the area of a crop is above 0 and at most 1, not {area}"
        )));
    }
    let (rows, columns) = (grid(height, area), grid(width, area));
    let unit: [f32; 256] = std::array::from_fn(|value| value as f32 * (1.0 / 255.0));
    let fill = |(held, line): &mut (usize, Vec<f32>), y: usize| {
        *held = y;
        let (row, _) = pixels[y * width * RGB..].as_chunks::<RGB>();
        let (line, _) = line.as_chunks_mut::<RGB>();
        for (out, point) in line.iter_mut().zip(&columns) {
            for (c, out) in out.iter_mut().enumerate() {
                let (left, right) = (row[point.before][c], row[point.after][c]);
                let (left, right) = (unit[usize::from(left)], unit[usize::from(right)]);
                *out = left + (right - left) * point.toward_after;
            }
        }
    };
    let mut out = vec![0; pixels.len()];
    // Rows come in order, so two lines of the source are all that is needed at a time.
    let mut top = (usize::MAX, vec![0.0; width * RGB]);
    let mut bottom = top.clone();
    for (out, point) in out.chunks_exact_mut(width * RGB).zip(&rows) {
        if top.0 != point.before {
            swap(&mut top, &mut bottom);
        }
        if top.0 != point.before {
            fill(&mut top, point.before);
        }
        if bottom.0 != point.after {
            fill(&mut bottom, point.after);
        }
        blend_lines(out, &top.1, &bottom.1, point.toward_after);
    }
    Array3::from_shape_vec((height, width, RGB), out)
        .map_err(|error| PolicyError::Observation(error.to_string()))
}

/// Where an output pixel lies between two source pixels of an axis.
struct GridPoint {
    before: usize,
    after: usize,
    /// 0 at `before`, 1 at `after`.
    toward_after: f32,
}

/// The grid along an axis of `len` pixels, in f32 throughout as TensorFlow computes it.
fn grid(len: usize, area: f32) -> Vec<GridPoint> {
    let side = area.sqrt();
    let begin = (1.0 - side) / 2.0;
    let end = begin + side;
    let last = (len - 1) as f32;
    let step = if len > 1 { (end - begin) * last / last } else { 0.0 };
    let at = |index: usize| {
        let position = if len > 1 { begin * last + index as f32 * step } else { 0.5 * (begin + end) * last };
        // Rounding may carry the last point of an uncropped axis past its end.
        let position = position.min(last);
        GridPoint {
            before: position.floor() as usize,
            after: position.ceil() as usize,
            toward_after: position - position.floor(),
        }
    };
    (0..len).map(at).collect()
}

vectorize! {
    fn blend_lines(out: &mut [u8], top: &[f32], bottom: &[f32], toward_bottom: f32) {
        for ((out, top), bottom) in out.iter_mut().zip(top).zip(bottom) {
            let value = top + (bottom - top) * toward_bottom;
            // By way of i32, to which vectors convert.
            *out = (value.clamp(0.0, 1.0) * 255.5) as i32 as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, pixel by pixel in f64, before the conversion to bytes (0 … 255.5).
    fn reference(image: &Array3<u8>, area: f64) -> Array3<f64> {
        let (height, width, _) = image.dim();
        let position = |index: usize, len: usize| {
            let last = len.saturating_sub(1) as f64;
            let along = if len > 1 { index as f64 / last } else { 0.5 };
            ((1.0 - area.sqrt()) / 2.0 + along * area.sqrt()) * last
        };
        Array3::from_shape_fn(image.dim(), |(y, x, c)| {
            let (y, x) = (position(y, height), position(x, width));
            let at = |y: f64, x: f64| {
                f64::from(image[[(y as usize).min(height - 1), (x as usize).min(width - 1), c]])
            };
            let (fy, fx) = (y - y.floor(), x - x.floor());
            let row = |y: f64| at(y, x.floor()) * (1.0 - fx) + at(y, x.floor() + 1.0) * fx;
            (row(y.floor()) * (1.0 - fy) + row(y.floor() + 1.0) * fy) / 255.0 * 255.5
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lines_and_columns_are_the_definition(
            (height, width, pixels) in (1usize..24, 1usize..24).prop_flat_map(|(h, w)| {
                (Just(h), Just(w), prop::collection::vec(any::<u8>(), h * w * RGB))
            }),
            area in 0.05f32..=1.0,
        ) {
            let image = Array3::from_shape_vec((height, width, RGB), pixels).unwrap();
            let cropped = center_crop(&image, area).unwrap();
            for (byte, exact) in cropped.iter().zip(&reference(&image, f64::from(area))) {
                // ⌊exact⌋, up to the rounding of f32 just beside an integer.
                let byte = f64::from(*byte);
                prop_assert!(byte <= exact + 2e-3 && exact - 2e-3 <= byte + 1.0, "{byte} {exact}");
            }
        }
    }

    #[test]
    fn the_whole_area_is_the_image() {
        let image = Array3::from_shape_fn((16, 16, RGB), |(y, x, c)| (y * 16 + x + c).min(255) as u8);
        assert_eq!(center_crop(&image, 1.0).unwrap(), image);
    }

    #[test]
    fn areas_that_are_none_are_refused() {
        for area in [0.0, -0.5, 1.01, f32::NAN] {
            let error = center_crop(&Array3::zeros((2, 2, RGB)), area).unwrap_err();
            assert!(error.to_string().contains("area"), "{error}");
        }
    }
}
