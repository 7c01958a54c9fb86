//! Images as PNG.

use std::io::Cursor;

use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Limits, Transformations};
use skillweld_robot::MAX_SIDE;

/// An image of a recorded frame, as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedImage {
    /// The camera's name.
    pub camera: String,
    /// A PNG file.
    pub png: Vec<u8>,
}

/// Pixels of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// height × width × 3 bytes.
    pub rgb: Vec<u8>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl RecordedImage {
    /// Height and width, from the image's head.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub fn size(&self) -> Result<(usize, usize), String> {
        let reader = reader(&self.png)?;
        let info = reader.info();
        Ok((info.height as usize, info.width as usize))
    }

    /// All pixels.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub fn decode(&self) -> Result<Rgb, String> {
        decode(&self.png)
    }
}

/// `rgb` is height × width × 3.
pub(crate) fn encode(rgb: &[u8], height: usize, width: usize) -> Result<Vec<u8>, String> {
    let mut png = Vec::with_capacity(rgb.len() / 2);
    let mut encoder = Encoder::new(&mut png, width as u32, height as u32);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    // Keeps up with cameras: more than twice as fast as the next level, for files that are 5 % larger.
    encoder.set_compression(Compression::Fastest);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(rgb)?;
        writer.finish()
    });
    written.map_err(|error| error.to_string())?;
    Ok(png)
}

fn reader(png: &[u8]) -> Result<png::Reader<Cursor<&[u8]>>, String> {
    // A few bytes can claim any size: no room is made for more than is taken.
    let mut decoder = Decoder::new_with_limits(Cursor::new(png), Limits { bytes: MAX_SIDE * MAX_SIDE * 3 });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let reader = decoder.read_info().map_err(|error| format!("no readable PNG: {error}"))?;
    let info = reader.info();
    if info.height.max(info.width) as usize > MAX_SIDE {
        return Err(format!("{} × {} pixels are too many", info.height, info.width));
    }
    Ok(reader)
}

fn decode(png: &[u8]) -> Result<Rgb, String> {
    let mut reader = reader(png)?;
    let (height, width) = (reader.info().height as usize, reader.info().width as usize);
    let bytes = reader.output_buffer_size().ok_or("too large for this machine")?;
    let mut pixels = vec![0; bytes];
    let frame = reader.next_frame(&mut pixels).map_err(|error| format!("no readable PNG: {error}"))?;
    pixels.truncate(frame.buffer_size());
    let rgb: Vec<u8> = match frame.color_type {
        ColorType::Rgb => pixels,
        ColorType::Rgba => pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        ColorType::Grayscale => pixels.into_iter().flat_map(|p| [p; 3]).collect(),
        ColorType::GrayscaleAlpha => pixels.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        ColorType::Indexed => return Err("a palette that could not be resolved".into()),
    };
    if rgb.len() != height * width * 3 {
        return Err("fewer pixels than its head says".into());
    }
    Ok(Rgb { rgb, height, width })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(png: Vec<u8>) -> RecordedImage {
        RecordedImage { camera: "front".into(), png }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pixels_come_back(height in 1usize..12, width in 1usize..12, seed in any::<u64>()) {
            let rgb: Vec<u8> = (0..height * width * 3)
                .map(|i| (seed.wrapping_mul(i as u64 + 1) >> 32) as u8)
                .collect();
            let image = image(encode(&rgb, height, width).unwrap());
            prop_assert_eq!(image.size().unwrap(), (height, width));
            prop_assert_eq!(&image.decode().unwrap().rgb[..], &rgb[..]);
        }

        #[test]
        fn broken_images_are_errors(at in 0usize..200, value in any::<u8>(), cut in 0usize..200) {
            let mut png = encode(&[9; 5 * 7 * 3], 5, 7).unwrap();
            let at = at % png.len();
            png[at] = value;
            png.truncate(png.len().saturating_sub(cut));
            // Whatever it is, it ends, and it is no other size.
            if let Ok(rgb) = image(png).decode() {
                prop_assert_eq!(rgb.rgb.len(), rgb.height * rgb.width * 3);
            }
        }
    }

    #[test]
    fn a_claim_of_a_huge_size_is_refused() {
        let mut head = encode(&[0; 3], 1, 1).unwrap();
        head[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(image(head).size().is_err());
        let wide = |width: usize| image(encode(&vec![0; width * 3], 1, width).unwrap()).size();
        assert_eq!(wide(8192), Ok((1, 8192)));
        assert!(wide(8193).unwrap_err().contains("too many"));
        assert!(image(b"not a png".to_vec()).decode().is_err());
    }
}
