//! PNG and JPEG to pixels. What comes over a network or from a folder may be anything.

use std::io::Cursor;

use image::{ImageError, ImageReader, Limits};
use skillweld_robot::MAX_SIDE;

/// Most bytes of one encoded image that are taken.
pub(crate) const MAX_IMAGE_BYTES: usize = 16 << 20;

/// Pixels of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rgb {
    /// height × width × 3 bytes.
    pub(crate) pixels: Vec<u8>,
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
}

fn reader(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    if bytes.len() > MAX_IMAGE_BYTES {
        return Err(format!("an image of {} bytes; {MAX_IMAGE_BYTES} are taken at most", bytes.len()));
    }
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    // A few bytes can claim any size: no room is made for more than is taken.
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE as u32), Some(MAX_SIDE as u32));
    reader.limits(limits);
    Ok(reader)
}

fn describe(error: ImageError) -> String {
    match error {
        ImageError::Unsupported(_) => "neither PNG nor JPEG".into(),
        ImageError::Limits(_) => format!("larger than {MAX_SIDE} × {MAX_SIDE} pixels"),
        other => format!("no readable image: {other}"),
    }
}

/// All pixels of a PNG or JPEG file.
pub(crate) fn decode(bytes: &[u8]) -> Result<Rgb, String> {
    let image = reader(bytes)?.decode().map_err(describe)?.into_rgb8();
    let (height, width) = (image.height() as usize, image.width() as usize);
    Ok(Rgb { pixels: image.into_raw(), height, width })
}

/// Height and width of a PNG or JPEG file, from its head.
pub(crate) fn size(bytes: &[u8]) -> Result<(usize, usize), String> {
    let (width, height) = reader(bytes)?.into_dimensions().map_err(describe)?;
    Ok((height as usize, width as usize))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn png(height: u32, width: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
        image.write_to(&mut Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bytes
    }

    #[test]
    fn pixels_come_in_rows() {
        let rgb = decode(&png(2, 3)).unwrap();
        assert_eq!((rgb.height, rgb.width), (2, 3));
        assert_eq!(rgb.pixels, [0, 0, 7, 1, 0, 7, 2, 0, 7, 0, 1, 7, 1, 1, 7, 2, 1, 7]);
        assert_eq!(size(&png(2, 3)), Ok((2, 3)));
    }

    #[test]
    fn claims_of_huge_sizes_are_refused() {
        let mut bytes = png(1, 1);
        bytes[16..20].copy_from_slice(&100_000u32.to_be_bytes());
        assert!(decode(&bytes).is_err());
        assert!(size(&bytes).is_err());
        assert!(decode(b"hello").unwrap_err().contains("neither PNG nor JPEG"));
        // What really has the size, and one pixel more.
        assert_eq!(size(&png(1, 8192)), Ok((1, 8192)));
        assert_eq!(decode(&png(8192, 1)).unwrap().height, 8192);
        for too_large in [png(1, 8193), png(8193, 1)] {
            assert!(decode(&too_large).unwrap_err().contains("larger than 8192"));
            assert!(size(&too_large).unwrap_err().contains("larger than 8192"));
        }
    }

    proptest! {
        #[test]
        fn damaged_images_end_in_errors_or_pixels(at in any::<usize>(), value in any::<u8>(), keep in any::<usize>()) {
            let mut jpeg = Vec::new();
            let image = image::RgbImage::from_fn(16, 8, |x, y| image::Rgb([x as u8 * 9, y as u8 * 20, 7]));
            image.write_to(&mut Cursor::new(&mut jpeg), image::ImageFormat::Jpeg).unwrap();
            let at = at % jpeg.len();
            jpeg[at] = value;
            jpeg.truncate(1 + keep % jpeg.len());
            if let Ok(rgb) = decode(&jpeg) {
                prop_assert_eq!(rgb.pixels.len(), rgb.height * rgb.width * 3);
            }
        }
    }
}
