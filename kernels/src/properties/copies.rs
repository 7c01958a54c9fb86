//! Copies of rows and columns: the same values, rounded where the dtype is narrower; and patches, which are copies too.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use skillweld_gpu::Target;
use skillweld_gpu::ops::{PatchShape, copy_columns, copy_rows, gather_rows, patches};
use skillweld_tensor::Dtype;

use super::rows::{HostRows, Output, float};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![
        Property { name: "copies: rows and columns keep their values", check: keep_values },
        Property { name: "patches: hold the pixels of their place", check: hold_pixels },
    ]
}

fn keep_values<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let widths = prop::collection::vec(prop_oneof![1..20usize, Just(32)], 1..5);
    let cases = (1..30usize, widths, float(), float(), any::<u64>());
    runner.run(&cases, |case| one_copy(target, case)).map_err(|error| error.to_string())
}

fn one_copy<T: Target>(
    target: &T,
    (rows, widths, read, written, seed): (usize, Vec<usize>, Dtype, Dtype, u64),
) -> Result<(), TestCaseError> {
    let rounded = |rows, columns, values: &[f32]| HostRows::of(rows, columns, written, values).values;
    // Side by side.
    let parts: Vec<_> =
        (0u64..).zip(&widths).map(|(i, &width)| HostRows::new(rows, width, read, seed ^ i)).collect();
    let total = widths.iter().sum();
    let mut side_by_side = Output::new(target, rows, total, written)?;
    let mut first = 0;
    for part in &parts {
        let uploaded = part.upload(target)?;
        copy_columns(target, part.view(&uploaded), &mut side_by_side.view(), first).map_err(failed)?;
        first += part.columns;
    }
    let expected: Vec<f32> = (0..rows)
        .flat_map(|row| parts.iter().flat_map(move |part| &part.values[row * part.columns..][..part.columns]))
        .copied()
        .collect();
    prop_assert_eq!(side_by_side.values(target)?, rounded(rows, total, &expected));

    // Some rows of one, below some rows of another by index.
    let part = &parts[0];
    let columns = part.columns;
    let uploaded = part.upload(target)?;
    let skipped = seed as usize % rows;
    let mut indices: Vec<u32> = Vec::new();
    indices.extend((0..seed % 7).map(|i| ((seed >> 8).wrapping_mul(i + 1) % rows as u64) as u32));
    let index_bytes: Vec<u8> = indices.iter().flat_map(|index| index.to_le_bytes()).collect();
    let on_target = target.array_of(Dtype::U32, &index_bytes).map_err(failed)?;
    let mut below = Output::new(target, indices.len() + rows - skipped, columns, written)?;
    let mut below_view = below.view();
    let (first, last) = (0..indices.len(), indices.len()..indices.len() + rows - skipped);
    gather_rows(target, part.view(&uploaded), on_target.view(), &mut below_view.slice(first))
        .map_err(failed)?;
    copy_rows(target, part.view(&uploaded).slice(skipped..rows), &mut below_view.slice(last))
        .map_err(failed)?;
    let order = indices.iter().map(|&index| index as usize).chain(skipped..rows);
    let expected: Vec<f32> =
        order.flat_map(|row| &part.values[row * columns..][..columns]).copied().collect();
    prop_assert_eq!(below.values(target)?, rounded(indices.len() + rows - skipped, columns, &expected));
    Ok(())
}

fn hold_pixels<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let cases = ((1..3usize, 1..4usize, 1..6usize), (0..3usize, 0..3usize), float(), any::<u64>());
    runner.run(&cases, |case| one_grid(target, case)).map_err(|error| error.to_string())
}

type Grid = ((usize, usize, usize), (usize, usize), Dtype, u64);

fn one_grid<T: Target>(
    target: &T,
    ((images, across, patch_side), (extra, first_channel), written, seed): Grid,
) -> Result<(), TestCaseError> {
    // Pixels beyond the last whole patch belong to none.
    let image_side = across * patch_side + extra.min(patch_side - 1);
    let shape =
        PatchShape { images, channels_per_image: 5, first_channel, channels: 2, image_side, patch_side };
    let pixels = HostRows::new(images * 5, image_side * image_side, Dtype::F32, seed);
    let uploaded = pixels.upload(target)?;
    let (rows, columns) = (images * across * across, 2 * patch_side * patch_side);
    let mut out = Output::new(target, rows, columns, written)?;
    patches(target, pixels.view(&uploaded), shape, &mut out.view()).map_err(failed)?;
    let expected: Vec<f32> = (0..rows * columns)
        .map(|index| {
            let (row, column) = (index / columns, index % columns);
            let (image, patch) = (row / (across * across), row % (across * across));
            let channel = column / (patch_side * patch_side);
            let (y, x) = (column / patch_side % patch_side, column % patch_side);
            let (y, x) = (patch / across * patch_side + y, patch % across * patch_side + x);
            pixels.at(image * 5 + first_channel + channel, y * image_side + x) as f32
        })
        .collect();
    prop_assert_eq!(out.values(target)?, HostRows::of(rows, columns, written, &expected).values);
    Ok(())
}
