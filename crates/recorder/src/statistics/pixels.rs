//! Which pixels of which frames an episode's image statistics look at, and how often each value is there.

/// Images of this side or smaller are looked at whole.
const LARGE: usize = 300;

/// Larger ones are thinned out to about this many pixels along the longer side.
const THINNED: usize = 150;

/// How often each channel has each value, summed over images.
pub(crate) type ChannelCounts = [[u64; 256]; 3];

/// Bytes of one image's counts in a file: 3 channels × 256 × u32.
pub(crate) const COUNTS_BYTES: usize = 3 * 256 * 4;

/// Every how many rows and columns a pixel is looked at.
fn stride(height: usize, width: usize) -> usize {
    let longer = height.max(width);
    if longer < LARGE { 1 } else { longer / THINNED }
}

/// How often each channel of one image has each value; `rgb` is height × width × 3.
pub(crate) fn count(rgb: &[u8], height: usize, width: usize) -> [[u32; 256]; 3] {
    let stride = stride(height, width);
    let mut counts = [[0u32; 256]; 3];
    for row in rgb.chunks_exact(width * 3).step_by(stride) {
        for pixel in row.chunks_exact(3).step_by(stride) {
            for (channel, &value) in counts.iter_mut().zip(pixel) {
                channel[usize::from(value)] += 1;
            }
        }
    }
    counts
}

/// The counts as they stand in a file: channel after channel, little-endian.
pub(crate) fn to_bytes(counts: &[[u32; 256]; 3]) -> Vec<u8> {
    counts.iter().flatten().flat_map(|count| count.to_le_bytes()).collect()
}

/// Adds what [`to_bytes`] made.
pub(crate) fn add_bytes(total: &mut ChannelCounts, bytes: &[u8; COUNTS_BYTES]) {
    for (sum, count) in total.iter_mut().flatten().zip(bytes.chunks_exact(4)) {
        let mut word = [0; 4];
        word.copy_from_slice(count);
        *sum += u64::from(u32::from_le_bytes(word));
    }
}

/// The frames of an episode of `frames` that are looked at: all up to 100, then frames^¾ of them, spread evenly.
pub(crate) fn sample(frames: usize) -> Vec<usize> {
    let wanted = ((frames as f64).powf(0.75) as usize).min(10_000).max(frames.min(100));
    if wanted < 2 {
        return (0..wanted).collect();
    }
    let step = (frames - 1) as f64 / (wanted - 1) as f64;
    let mut sampled: Vec<_> = (0..wanted).map(|i| (i as f64 * step).round_ties_even() as usize).collect();
    sampled[wanted - 1] = frames - 1;
    sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_frames_are_looked_at() {
        // The table in the documentation of lerobot's estimate_num_samples.
        for (frames, samples) in
            [(0, 0), (1, 1), (99, 99), (300, 100), (1000, 177), (2000, 299), (5000, 594), (20_000, 1681)]
        {
            assert_eq!(sample(frames).len(), samples, "{frames} frames");
        }
    }

    #[test]
    fn samples_reach_from_the_first_frame_to_the_last() {
        for frames in [1, 2, 100, 101, 900, 7777] {
            let sampled = sample(frames);
            assert_eq!((sampled[0], *sampled.last().unwrap()), (0, frames - 1));
            assert!(sampled.is_sorted());
        }
        assert_eq!(sample(100), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn large_images_are_thinned_out() {
        assert_eq!((stride(299, 200), stride(300, 200), stride(480, 640), stride(1080, 1920)), (1, 2, 4, 12));
        // 480 × 640, every fourth row and column: 120 × 160 pixels.
        let rgb: Vec<u8> = (0..480 * 640).flat_map(|i| [(i / 640 % 4) as u8, (i % 4) as u8, 7]).collect();
        let counts = count(&rgb, 480, 640);
        assert_eq!((counts[0][0], counts[1][0], counts[2][7]), (120 * 160, 120 * 160, 120 * 160));
    }

    #[test]
    fn counts_come_back_from_bytes() {
        let counts = count(&[1, 2, 3, 1, 2, 255], 1, 2);
        let bytes: [u8; COUNTS_BYTES] = to_bytes(&counts).try_into().unwrap();
        let mut total: ChannelCounts = [[1; 256]; 3];
        add_bytes(&mut total, &bytes);
        assert_eq!((total[0][1], total[2][3], total[2][255], total[0][0]), (3, 2, 2, 1));
    }
}
