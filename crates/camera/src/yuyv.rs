//! YUYV, which cameras send uncompressed: two pixels in four bytes, Y₀ U Y₁ V, by BT.601 in its limited range.

use crate::decode::Rgb;

/// `stride` bytes from row to row.
///
/// # Errors
/// When there are fewer bytes than that, or columns cannot be paired.
pub(crate) fn to_rgb(bytes: &[u8], height: usize, width: usize, stride: usize) -> Result<Rgb, String> {
    let row_bytes = width * 2;
    if height == 0 || width == 0 || width % 2 == 1 || stride < row_bytes {
        return Err(format!("{height} × {width} pixels in rows of {stride} bytes are no YUYV"));
    }
    let needed = stride * (height - 1) + row_bytes;
    if bytes.len() < needed {
        return Err(format!("{} bytes of an image that has {needed}", bytes.len()));
    }
    let mut pixels = Vec::with_capacity(height * width * 3);
    for row in bytes.chunks(stride).take(height) {
        for pair in row[..row_bytes].chunks_exact(4) {
            let [u, v] = [i32::from(pair[1]) - 128, i32::from(pair[3]) - 128];
            for y in [pair[0], pair[2]] {
                pixels.extend_from_slice(&pixel(i32::from(y) - 16, u, v));
            }
        }
    }
    Ok(Rgb { pixels, height, width })
}

/// In 2⁻¹⁶: 255/219 for Y, and for U and V 255/224 times what the luma weights 0.299, 0.587, 0.114 give.
fn pixel(y: i32, u: i32, v: i32) -> [u8; 3] {
    let y = 76_309 * y + (1 << 15);
    [y + 104_597 * v, y - 25_675 * u - 53_279 * v, y + 132_201 * u]
        .map(|value| (value >> 16).clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in f64.
    fn reference(y: u8, u: u8, v: u8) -> [f64; 3] {
        let y = (f64::from(y) - 16.0) / 219.0;
        let (pb, pr) = ((f64::from(u) - 128.0) / 224.0, (f64::from(v) - 128.0) / 224.0);
        let red = y + 2.0 * (1.0 - 0.299) * pr;
        let blue = y + 2.0 * (1.0 - 0.114) * pb;
        let green = (y - 0.299 * red - 0.114 * blue) / 0.587;
        [red, green, blue].map(|value| (255.0 * value).clamp(0.0, 255.0))
    }

    #[test]
    fn every_third_value_of_each_as_defined() {
        for y in (0..=255).step_by(3) {
            for u in (0..=255).step_by(3) {
                for v in (0..=255).step_by(3) {
                    let got = to_rgb(&[y, u, 16, v], 1, 2, 4).unwrap().pixels;
                    for (got, want) in got[..3].iter().zip(reference(y, u, v)) {
                        // Half a level for rounding, and 2⁻¹⁷ of 255 for each of three factors.
                        assert!(
                            (f64::from(*got) - want).abs() <= 0.5 + 0.01,
                            "Y {y} U {u} V {v}: {got}, {want}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rows_may_be_padded_and_must_be_there() {
        let bytes = [235, 128, 16, 128, 9, 9, 81, 90, 81, 240];
        let rgb = to_rgb(&bytes, 2, 2, 6).unwrap();
        assert_eq!(rgb.pixels, [255, 255, 255, 0, 0, 0, 254, 0, 0, 254, 0, 0]);
        assert!(to_rgb(&bytes[..9], 2, 2, 6).unwrap_err().contains("9 bytes of an image that has 10"));
        assert!(to_rgb(&bytes, 2, 3, 6).is_err());
        assert!(to_rgb(&bytes, 2, 4, 6).is_err());
    }
}
