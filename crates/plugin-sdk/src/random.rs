//! Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
//! 1, 2, 3", SC'11).
//!
//! A number depends on the seed, the stream and the index of its element only, so any split of a tensor over blocks,
//! threads or machines gives the same numbers.
//!
//! # Arrangement
//! Elements of a tensor are grouped in tiles of [`TILE`] = 256. Element e = 256·T + 64·w + c (tile T, 0 ≤ w < 4,
//! 0 ≤ c < 64) gets word w of the block that Philox4x32-10 makes of
//! - counter `[low32(n), high32(n), stream, 0]` with n = 64·T + c, and
//! - key `[low32(seed), high32(seed)]`.
//!
//! So 64 consecutive counters fill a tile, and each of the four words of neighbouring counters is a run of neighbouring
//! elements: 16 lanes compute 64 numbers without a shuffle.

use skillweld_simd::vectorize;

/// Elements that share a run of counters.
pub const TILE: usize = 256;
/// Counters a tile: each gives four words.
const COUNTERS: usize = TILE / 4;

const MULTIPLIER: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// What is added to the key after every round: the golden ratio and √3 − 1.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: u32 = 10;

/// One stream of 32-bit numbers, one an element of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    seed: u64,
    stream: u32,
}

impl Random {
    /// Stream number `stream` of `seed`. [`Block::random`](crate::Block::random) takes the expert as stream.
    pub const fn new(seed: u64, stream: u32) -> Self {
        Self { seed, stream }
    }

    /// Fills `numbers` with those of elements `offset..offset + numbers.len()`, uniform over all `u32`.
    ///
    /// Fastest in whole tiles: `offset` and the length multiples of [`TILE`].
    pub fn fill(&self, offset: u64, numbers: &mut [u32]) {
        let skip = (offset % TILE as u64) as usize;
        let mut tile = offset / TILE as u64;
        let mut rest = numbers;
        if skip != 0 {
            let mut whole = [0; TILE];
            fill_tiles(&mut whole, self.seed, self.stream, tile);
            let (head, tail) = rest.split_at_mut(rest.len().min(TILE - skip));
            head.copy_from_slice(&whole[skip..skip + head.len()]);
            rest = tail;
            tile += 1;
        }
        let whole_tiles = rest.len() / TILE * TILE;
        let (body, tail) = rest.split_at_mut(whole_tiles);
        fill_tiles(body, self.seed, self.stream, tile);
        if !tail.is_empty() {
            let mut whole = [0; TILE];
            fill_tiles(&mut whole, self.seed, self.stream, tile + (whole_tiles / TILE) as u64);
            tail.copy_from_slice(&whole[..tail.len()]);
        }
    }
}

/// The four words of one counter.
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

vectorize! {
    /// `numbers`: whole tiles, the first of them `tile`.
    fn fill_tiles(numbers: &mut [u32], seed: u64, stream: u32, tile: u64) {
        let key = [seed as u32, (seed >> 32) as u32];
        for (i, words) in numbers.chunks_exact_mut(TILE).enumerate() {
            let first = (tile + i as u64) * COUNTERS as u64;
            // 64 divides 2³², so the counters of a tile share their upper half.
            let (low, high) = (first as u32, (first >> 32) as u32);
            let (half0, half1) = words.split_at_mut(2 * COUNTERS);
            let (words0, words1) = half0.split_at_mut(COUNTERS);
            let (words2, words3) = half1.split_at_mut(COUNTERS);
            for c in 0..COUNTERS {
                let words = philox([low + c as u32, high, stream, 0], key);
                words0[c] = words[0];
                words1[c] = words[1];
                words2[c] = words[2];
                words3[c] = words[3];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The known answers published with Random123.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    /// One element at a time, straight from the module's documentation.
    fn reference(seed: u64, stream: u32, element: u64) -> u32 {
        let (tile, within) = (element / 256, element % 256);
        let (word, lane) = (within / 64, within % 64);
        let counter = 64 * tile + lane;
        philox([counter as u32, (counter >> 32) as u32, stream, 0], [seed as u32, (seed >> 32) as u32])
            [word as usize]
    }

    proptest! {
        #[test]
        fn any_part_of_a_stream_equals_the_reference(
            seed: u64, stream: u32, offset in 0u64..(1 << 40), length in 0usize..1500,
        ) {
            let mut numbers = vec![0; length];
            Random::new(seed, stream).fill(offset, &mut numbers);
            for (i, &number) in numbers.iter().enumerate() {
                prop_assert_eq!(number, reference(seed, stream, offset + i as u64));
            }
        }
    }

    #[test]
    fn the_mean_is_that_of_uniform_numbers() {
        let mut numbers = vec![0; 1 << 20];
        Random::new(7, 3).fill(0, &mut numbers);
        let mean = numbers.iter().map(|&n| f64::from(n) / 2f64.powi(32)).sum::<f64>() / (1 << 20) as f64;
        // One standard deviation of the mean is √(1/12) / 1024 = 2.8e-4.
        assert!((mean - 0.5).abs() < 5.0 * 2.9e-4, "{mean}");
    }
}
