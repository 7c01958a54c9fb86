use bytes::Bytes;

use super::error::ObservationError;
use crate::array::{Array, Dtype};
use crate::options::Limits;
use crate::policy::Image;
use crate::value::Value;

/// Interpolation on the client's side may leave 0 … 1 by a rounding.
const ROUNDING: f32 = 1e-3;

/// An image of height × width × 3 or 3 × height × width, uint8 or floats from 0 to 1; leading dimensions of 1 are dropped.
pub(super) fn read(key: &str, value: &Value, limits: &Limits) -> Result<Image, ObservationError> {
    let wrong = || {
        ObservationError::kind(
            key,
            "an image: an array of height × width × 3 or 3 × height × width, not encoded",
            value,
        )
    };
    let Value::Array(array) = value else { return Err(wrong()) };
    let mut shape = array.shape();
    while let [1, rest @ ..] = shape
        && rest.len() >= 3
    {
        shape = rest;
    }
    let (height, width, planar) = match *shape {
        [height, width, 3] => (height, width, false),
        [3, height, width] => (height, width, true),
        _ => return Err(wrong()),
    };
    if height == 0 || width == 0 {
        return Err(wrong());
    }
    // Before anything is converted. The array is there, so its sides multiply without overflow.
    let Limits { image_side: side, image_pixels: pixels, .. } = *limits;
    if height > side || width > side || height * width > pixels {
        return Err(ObservationError::ImageSize { key: key.into(), height, width, side, pixels });
    }
    let pixels = match array.dtype() {
        Dtype::U8 => array.bytes().clone(),
        dtype if dtype.is_float() => quantised(key, array)?,
        _ => return Err(ObservationError::kind(key, "an image of uint8 or floats", value)),
    };
    let rgb = if planar { interleaved(&pixels) } else { pixels };
    Ok(Image { name: key.into(), height, width, rgb })
}

/// 0 … 1 to 0 … 255, cut off as `(255 * image).astype(uint8)` does.
fn quantised(key: &str, array: &Array) -> Result<Bytes, ObservationError> {
    let mut pixels = Vec::with_capacity(array.len());
    array.try_blocks(|start, values| {
        let outside = values.iter().position(|value| !(-ROUNDING..=1.0 + ROUNDING).contains(value));
        if let Some(index) = outside {
            let (key, value, index) = (key.to_owned(), values[index], start + index);
            return Err(match value.is_finite() {
                true => ObservationError::ImageRange { key, index, value: value.to_string() },
                false => ObservationError::NotFinite { key, index },
            });
        }
        // Casting cuts off and clips.
        pixels.extend(values.iter().map(|value| (255.0 * value) as u8));
        Ok(())
    })?;
    Ok(pixels.into())
}

/// Three planes to three bytes a pixel.
fn interleaved(planes: &Bytes) -> Bytes {
    let pixels = planes.len() / 3;
    let (red, others) = planes.split_at(pixels);
    let (green, blue) = others.split_at(pixels);
    let mut rgb = vec![0; planes.len()];
    for (pixel, ((r, g), b)) in rgb.chunks_exact_mut(3).zip(red.iter().zip(green).zip(blue)) {
        pixel.copy_from_slice(&[*r, *g, *b]);
    }
    rgb.into()
}
