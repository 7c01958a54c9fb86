use ndarray::{Array3, ArrayRef3};
use skillweld_simd::vectorize;

use super::dct::{self, CHROMINANCE, LUMINANCE, Quantization, SIDE};
use super::{RGB, checked};
use crate::PolicyError;

/// The quality that `tf.image.encode_jpeg` writes with unless told otherwise.
const QUALITY: i32 = 95;

/// What an image reads as after TensorFlow has written it as a JPEG (quality 95, chroma halved both ways) and read it
/// back. u8 H × W × 3 → u8 H × W × 3.
///
/// Training data was stored that way, so policies are shown the same. Only what changes pixels is done, with
/// libjpeg's integer arithmetic: colour conversion, halving of chroma, transform, quantisation, inverse transform,
/// smooth enlarging of chroma, colour conversion back. The entropy coding between is lossless and left out.
///
/// # Errors
/// [`PolicyError::Observation`] when the image is empty or has not three channels.
pub fn jpeg_round_trip(image: &ArrayRef3<u8>) -> Result<Array3<u8>, PolicyError> {
    let (height, width, pixels) = checked(image)?;
    let [mut y, cb, cr] = Plane::of_colours(&pixels, height, width);
    let (mut cb, mut cr) = (cb.halved(), cr.halved());
    y.code(&Quantization::new(&LUMINANCE, QUALITY));
    let chrominance = Quantization::new(&CHROMINANCE, QUALITY);
    cb.code(&chrominance);
    cr.code(&chrominance);

    let mut out = vec![0; pixels.len()];
    let (mut blue, mut red) = (vec![0; 2 * cb.width], vec![0; 2 * cr.width]);
    for (row, line) in out.chunks_exact_mut(width * RGB).enumerate() {
        cb.enlarged_row(row, &mut blue);
        cr.enlarged_row(row, &mut red);
        to_rgb(line, &y.samples[row * y.stride..], &blue, &red);
    }
    Array3::from_shape_vec((height, width, RGB), out)
        .map_err(|error| PolicyError::Observation(error.to_string()))
}

/// One colour component.
struct Plane {
    height: usize,
    width: usize,
    /// Samples from one row to the next. Rows and columns beyond `height` and `width` fill the last blocks.
    stride: usize,
    samples: Vec<u8>,
}

impl Plane {
    /// Luminance and both chrominances of an image. The last column is repeated up to a multiple of 16, the last row
    /// up to one of 8: libjpeg's filling of blocks.
    fn of_colours(pixels: &[u8], height: usize, width: usize) -> [Self; 3] {
        let (rows, stride) = (height.next_multiple_of(SIDE), width.next_multiple_of(2 * SIDE));
        let [mut y, mut cb, mut cr] = [(); 3].map(|()| vec![0; rows * stride]);
        let lines =
            y.chunks_exact_mut(stride).zip(cb.chunks_exact_mut(stride)).zip(cr.chunks_exact_mut(stride));
        for (((y, cb), cr), pixels) in lines.zip(pixels.chunks_exact(width * RGB)) {
            from_rgb(pixels, y, cb, cr);
            for line in [y, cb, cr] {
                let last = line[width - 1];
                line[width..].fill(last);
            }
        }
        [y, cb, cr].map(|samples| {
            let mut plane = Self { height, width, stride, samples };
            plane.repeat_last_row();
            plane
        })
    }

    fn repeat_last_row(&mut self) {
        let last = (self.height - 1) * self.stride..self.height * self.stride;
        for row in self.height..self.samples.len() / self.stride {
            self.samples.copy_within(last.clone(), row * self.stride);
        }
    }

    /// Means of 2 × 2 samples. Halves go up in odd columns and down in even ones, so that the image does not drift.
    fn halved(&self) -> Self {
        let (height, width) = (self.height.div_ceil(2), self.width.div_ceil(2));
        let (rows, stride) = (height.next_multiple_of(SIDE), self.stride / 2);
        let mut samples = vec![0; rows * stride];
        let pairs = self.samples.chunks_exact(2 * self.stride);
        for (out, pair) in samples.chunks_exact_mut(stride).zip(pairs).take(height) {
            let (upper, lower) = pair.split_at(self.stride);
            mean_of_four(out, upper, lower);
        }
        let mut plane = Self { height, width, stride, samples };
        plane.repeat_last_row();
        plane
    }

    /// Sends every block through the transform and the quantisation and back.
    fn code(&mut self, quantization: &Quantization) {
        for strip in self.samples.chunks_exact_mut(SIDE * self.stride) {
            code_strip(strip, self.stride, quantization);
        }
    }

    /// Row `row` of the plane at twice its size: three parts of the nearest sample and one of the next along each axis.
    /// `out` takes twice as many samples as the plane is wide.
    fn enlarged_row(&self, row: usize, out: &mut [u8]) {
        let line = |y: usize| &self.samples[y * self.stride..][..self.width];
        let near = line(row / 2);
        if self.width <= 2 {
            // libjpeg smooths no plane as narrow as this.
            out.iter_mut().enumerate().for_each(|(x, out)| *out = near[x / 2]);
            return;
        }
        let far = if row.is_multiple_of(2) { (row / 2).saturating_sub(1) } else { row / 2 + 1 };
        enlarge(out, near, line(far.min(self.height - 1)));
    }
}

/// A number with 16 fractional bits.
const fn fixed(x: f64) -> i32 {
    (x * 65536.0 + 0.5) as i32
}

const HALF: i32 = 1 << 15;

vectorize! {
    fn from_rgb(pixels: &[u8], y: &mut [u8], cb: &mut [u8], cr: &mut [u8]) {
        for (((pixel, y), cb), cr) in pixels.chunks_exact(RGB).zip(y).zip(cb).zip(cr) {
            let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(i32::from);
            *y = ((const { fixed(0.299) } * r + const { fixed(0.587) } * g + const { fixed(0.114) } * b + HALF) >> 16) as u8;
            // Half of the range is 128; one less than a half rounds, so that 255.5 does not become 256.
            let middle = (128 << 16) + HALF - 1;
            *cb = ((HALF * b - const { fixed(0.168_735_892) } * r - const { fixed(0.331_264_108) } * g + middle) >> 16) as u8;
            *cr = ((HALF * r - const { fixed(0.418_687_589) } * g - const { fixed(0.081_312_411) } * b + middle) >> 16) as u8;
        }
    }

    fn to_rgb(pixels: &mut [u8], y: &[u8], cb: &[u8], cr: &[u8]) {
        for (((pixel, y), cb), cr) in pixels.chunks_exact_mut(RGB).zip(y).zip(cb).zip(cr) {
            let (y, cb, cr) = (i32::from(*y), i32::from(*cb) - 128, i32::from(*cr) - 128);
            let r = y + ((const { fixed(1.402) } * cr + HALF) >> 16);
            let g = y + ((HALF - const { fixed(0.344_14) } * cb - const { fixed(0.714_14) } * cr) >> 16);
            let b = y + ((const { fixed(1.772) } * cb + HALF) >> 16);
            pixel[0] = r.clamp(0, 255) as u8;
            pixel[1] = g.clamp(0, 255) as u8;
            pixel[2] = b.clamp(0, 255) as u8;
        }
    }

    fn mean_of_four(out: &mut [u8], upper: &[u8], lower: &[u8]) {
        let quads = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        for (x, (out, (upper, lower))) in out.iter_mut().zip(quads).enumerate() {
            let sum = [upper[0], upper[1], lower[0], lower[1]].map(u16::from).iter().sum::<u16>();
            *out = ((sum + 1 + (x as u16 & 1)) >> 2) as u8;
        }
    }

    fn enlarge(out: &mut [u8], near: &[u8], far: &[u8]) {
        // Along the columns first, with a sample repeated at either end.
        let mut sums = vec![0u16; near.len() + 2];
        for (sum, (near, far)) in sums[1..].iter_mut().zip(near.iter().zip(far)) {
            *sum = 3 * u16::from(*near) + u16::from(*far);
        }
        sums[0] = sums[1];
        sums[near.len() + 1] = sums[near.len()];
        for (out, sums) in out.chunks_exact_mut(2).zip(sums.windows(3)) {
            out[0] = ((3 * sums[1] + sums[0] + 8) >> 4) as u8;
            out[1] = ((3 * sums[1] + sums[2] + 7) >> 4) as u8;
        }
    }

    fn code_strip(strip: &mut [u8], stride: usize, quantization: &Quantization) {
        for left in (0..stride).step_by(SIDE) {
            let mut block = [[0; SIDE]; SIDE];
            for (row, line) in block.iter_mut().zip(strip.chunks_exact(stride)) {
                for (value, sample) in row.iter_mut().zip(&line[left..left + SIDE]) {
                    *value = i32::from(*sample);
                }
            }
            let block = dct::round_trip(&block, quantization);
            for (row, line) in block.iter().zip(strip.chunks_exact_mut(stride)) {
                for (value, sample) in row.iter().zip(&mut line[left..left + SIDE]) {
                    *sample = *value as u8;
                }
            }
        }
    }
}
