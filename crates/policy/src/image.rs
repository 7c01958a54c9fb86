//! From camera images to the vision towers' input, as the published code prepares them with TensorFlow:
//! JPEG round trip and Lanczos-3 to the model's size, centre crop, one normalised copy for each tower.
//!
//! Images are `u8`, height × width × 3 (RGB). The steps are functions of their own, so that each can be looked at:
//! [`jpeg_round_trip`], [`resize_lanczos3`], [`center_crop`]; [`Preprocessor`] joins them.

mod crop;
mod dct;
mod jpeg;
mod normalize;
mod resample;

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use ::image::{ImageError, ImageReader, Limits};
use ndarray::{Array3, ArrayRef3, ArrayView3};
use skillweld_store::StoreError;

use crate::PolicyError;
pub use crop::center_crop;
pub use jpeg::jpeg_round_trip;
pub use normalize::Normalization;
pub use resample::resize_lanczos3;

/// Channels of an image: red, green, blue.
const RGB: usize = 3;

/// Longest side of an image that is taken, in pixels: an 8K camera's is 7680. The vision towers see 224, so a larger
/// image is a mistake, and time and memory grow with it.
pub const MAX_SIDE: usize = 8192;

/// Most pixels of an image that is taken: just above 8K's 7680 × 4320.
pub const MAX_PIXELS: usize = 1 << 25;

/// Prepares camera images for the vision towers of one model.
///
/// ```
/// use ndarray::Array3;
/// use skillweld_policy::image::{Normalization, Preprocessor};
///
/// let preprocessor = Preprocessor::new(224, vec![Normalization::IMAGENET, Normalization::HALF]);
/// let camera = Array3::from_elem((480, 640, 3), 127u8);
/// let pixel_values = preprocessor.pixel_values(&[camera.view()])?;
/// assert_eq!(pixel_values.shape(), [6, 224, 224]);
/// # Ok::<(), skillweld_policy::PolicyError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocessor {
    size: usize,
    crop_area: f32,
    normalizations: Vec<Normalization>,
}

impl Preprocessor {
    /// The published share of an image's area that the centre crop keeps.
    pub const CROP_AREA: f32 = 0.9;

    /// For towers that take `size` × `size` pixels, each with its normalisation, in the order in which they are stacked.
    pub fn new(size: usize, normalizations: Vec<Normalization>) -> Self {
        Self { size, crop_area: Self::CROP_AREA, normalizations }
    }

    /// Keeps another share of the area, above 0 and at most 1; 1 crops nothing.
    #[must_use]
    pub fn with_crop_area(self, crop_area: f32) -> Self {
        Self { crop_area, ..self }
    }

    /// Pixels along each side of what the towers see.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The images of one observation, each u8 H × W × 3 of any size, as f32 of shape
    /// (3 · towers · images) × `size` × `size`: image after image, in each tower after tower, in each R, G, B.
    ///
    /// # Errors
    /// [`PolicyError::Observation`] for an image that is empty, not H × W × 3, or larger than [`MAX_SIDE`] and
    /// [`MAX_PIXELS`] allow; it is named by its place, from 0.
    pub fn pixel_values(&self, images: &[ArrayView3<'_, u8>]) -> Result<Array3<f32>, PolicyError> {
        let plane = self.size * self.size;
        let channels = RGB * self.normalizations.len();
        let mut values = vec![0.0; images.len() * channels * plane];
        for (index, image) in images.iter().enumerate() {
            let prepared = self.prepare(image).map_err(|error| match error {
                PolicyError::Observation(problem) => {
                    PolicyError::Observation(format!("image_{index}: {problem}"))
                }
                other => other,
            })?;
            let prepared = prepared.as_standard_layout();
            let pixels = prepared.as_slice().unwrap_or_default();
            for (tower, normalization) in self.normalizations.iter().enumerate() {
                let begin = (index * channels + RGB * tower) * plane;
                normalization.apply(pixels, &mut values[begin..begin + RGB * plane]);
            }
        }
        Array3::from_shape_vec((images.len() * channels, self.size, self.size), values)
            .map_err(|error| PolicyError::Observation(format!("images: {error}")))
    }

    /// Everything before the normalisation: one image, brought to `size` × `size` and cropped.
    ///
    /// An image that has the size already is only cropped, with neither JPEG nor resampling, as in the published code.
    ///
    /// # Errors
    /// As [`Preprocessor::pixel_values`].
    pub fn prepare(&self, image: &ArrayRef3<u8>) -> Result<Array3<u8>, PolicyError> {
        let (height, width, _) = image.dim();
        if (height, width) == (self.size, self.size) {
            return center_crop(image, self.crop_area);
        }
        let resized = resize_lanczos3(&jpeg_round_trip(image)?, self.size, self.size)?;
        center_crop(&resized, self.crop_area)
    }
}

/// Reads a PNG or JPEG file as u8, height × width × 3; transparency is dropped, grey is repeated.
///
/// # Errors
/// [`PolicyError::Store`] when the file cannot be opened, [`PolicyError::Observation`] when it is no such image.
pub fn read_image(path: &Path) -> Result<Array3<u8>, PolicyError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    decode(BufReader::new(file))
        .map_err(|error| PolicyError::Observation(format!("{}: {error}", path.display())))
}

/// As [`read_image`], from the bytes of a file.
///
/// # Errors
/// [`PolicyError::Observation`] when they are no PNG or JPEG image.
pub fn decode_image(bytes: &[u8]) -> Result<Array3<u8>, PolicyError> {
    decode(Cursor::new(bytes)).map_err(|error| PolicyError::Observation(format!("image: {error}")))
}

fn decode(reader: impl BufRead + Seek) -> Result<Array3<u8>, String> {
    let describe = |error: ImageError| match error {
        ImageError::Unsupported(_) => {
            "neither PNG nor JPEG, or of a kind that is not read; save it as an 8-bit RGB PNG".to_owned()
        }
        ImageError::Limits(_) => {
            format!("larger than {MAX_SIDE} × {MAX_SIDE} pixels or than fits in memory; reduce it")
        }
        other => other.to_string(),
    };
    let mut reader = ImageReader::new(reader).with_guessed_format().map_err(|error| error.to_string())?;
    // A few bytes of a file can claim any size: no room is made for more than would be taken.
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE as u32), Some(MAX_SIDE as u32));
    reader.limits(limits);
    let image = reader.decode().map_err(describe)?.into_rgb8();
    let shape = (image.height() as usize, image.width() as usize, RGB);
    Array3::from_shape_vec(shape, image.into_raw()).map_err(|error| error.to_string())
}

/// Height, width and contiguous pixels of an image, or why it is none.
fn checked(image: &ArrayRef3<u8>) -> Result<(usize, usize, Cow<'_, [u8]>), PolicyError> {
    let (height, width, channels) = image.dim();
    if height == 0 || width == 0 || channels != RGB {
        return Err(PolicyError::Observation(format!(
            "shape {height} × {width} × {channels} is no image; give height × width × 3, RGB"
        )));
    }
    if height.max(width) > MAX_SIDE || height.saturating_mul(width) > MAX_PIXELS {
        return Err(PolicyError::Observation(format!(
            "{height} × {width} pixels are too many: a side may have {MAX_SIDE}, the whole {MAX_PIXELS}; reduce it before \
             it is sent"
        )));
    }
    let pixels = image.as_slice().map_or_else(|| image.iter().copied().collect(), Cow::Borrowed);
    Ok((height, width, pixels))
}
