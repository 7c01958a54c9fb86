use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

/// Camera images are square, of this many pixels a side: LIBERO's.
const SIDE: usize = 256;

/// Writes one observation of a robot to `path`, as `skillweld predict` takes it: two cameras that see a table with blocks
/// on it (`image_0`, `image_1`, U8 256 × 256 × 3), the robot's state (`state`, F32, 8 values) and an instruction.
///
/// # Errors
/// Whatever the file system refuses.
pub fn write_observation(path: &Path, instruction: &str, seed: u64) -> io::Result<()> {
    let images = [table(seed, 0), table(seed, 1)];
    let state: Vec<u8> = (0..8).flat_map(|i| (0.1 * (i as f32 + seed as f32).sin()).to_le_bytes()).collect();
    let image_bytes = SIDE * SIDE * 3;
    let header = json!({
        "__metadata__": { "prompt": instruction },
        "image_0": { "dtype": "U8", "shape": [SIDE, SIDE, 3], "data_offsets": [0, image_bytes] },
        "image_1": { "dtype": "U8", "shape": [SIDE, SIDE, 3], "data_offsets": [image_bytes, 2 * image_bytes] },
        "state": { "dtype": "F32", "shape": [8], "data_offsets": [2 * image_bytes, 2 * image_bytes + state.len()] },
    });
    let mut header = header.to_string();
    // The format wants the data to start at a multiple of eight bytes.
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    images.iter().try_for_each(|image| file.write_all(image))?;
    file.write_all(&state)
}

/// A wooden table in front of a wall, and three blocks whose places depend on the seed and the camera.
fn table(seed: u64, camera: u64) -> Vec<u8> {
    const COLOURS: [[u8; 3]; 3] = [[190, 40, 40], [40, 90, 190], [220, 190, 60]];
    let place = |block: u64, axis: u64| {
        let mixed = (seed * 31 + camera * 17 + block * 7 + axis * 3 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        40 + (mixed >> 56) as usize * (SIDE - 80) / 256
    };
    let colour = |y: usize, x: usize| {
        let hit = |block: &u64| place(*block, 0).abs_diff(x) < 14 && place(*block, 1).abs_diff(y) < 14;
        match (0..3).find(hit) {
            Some(block) => COLOURS[block as usize],
            None if y < SIDE / 3 => [170, 175, 180],
            None => [120 + (x * 40 / SIDE) as u8, 85 + (y * 30 / SIDE) as u8, 60],
        }
    };
    (0..SIDE * SIDE).flat_map(|pixel| colour(pixel / SIDE, pixel % SIDE)).collect()
}
