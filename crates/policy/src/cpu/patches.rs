use crate::backend::PatchGrid;

/// Writes patch number `row` of all images: channel by channel, each row by row. `pixels` holds channel after channel.
pub(super) fn copy_patch(pixels: &[f32], grid: PatchGrid, row: usize, out: &mut [f32]) {
    let PatchGrid { image_side, patch_side, .. } = grid;
    let (image, patch) = (row / grid.patches(), row % grid.patches());
    let across = image_side / patch_side;
    let (top, left) = (patch / across * patch_side, patch % across * patch_side);
    let channels = pixels.chunks_exact(image_side * image_side);
    let channels = channels.skip(image * grid.channels_per_image + grid.first_channel);
    for (channel, out) in channels.zip(out.chunks_exact_mut(patch_side * patch_side)) {
        for (y, out) in (top..).zip(out.chunks_exact_mut(patch_side)) {
            out.copy_from_slice(&channel[y * image_side + left..][..patch_side]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn patches_hold_the_pixels_of_their_place(
            images in 1..3usize, across in 1..4usize, patch_side in 1..4usize, extra in 0..3usize, first_channel in 0..3usize,
        ) {
            // Pixels beyond the last whole patch belong to none.
            let image_side = across * patch_side + extra.min(patch_side - 1);
            let grid = PatchGrid { images, channels_per_image: 6, first_channel, channels: 3, image_side, patch_side };
            let area = image_side * image_side;
            let pixels: Vec<f32> = (0..images * 6 * area).map(|i| (i / area * 1000 + i % area) as f32).collect();
            for row in 0..images * grid.patches() {
                let mut out = vec![f32::NAN; grid.patch_len()];
                copy_patch(&pixels, grid, row, &mut out);
                let (image, patch) = (row / (across * across), row % (across * across));
                for (index, &value) in out.iter().enumerate() {
                    let channel = index / (patch_side * patch_side);
                    let (y, x) = (index / patch_side % patch_side, index % patch_side);
                    let (y, x) = (patch / across * patch_side + y, patch % across * patch_side + x);
                    let expected = (image * 6 + first_channel + channel) * 1000 + y * image_side + x;
                    prop_assert_eq!(value, expected as f32);
                }
            }
            prop_assert_eq!(grid.patches(), across * across);
        }
    }
}
