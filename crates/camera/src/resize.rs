use crate::decode::Rgb;

/// Brings an image to another size: each new pixel is the mean of the old ones that it covers, weighted by the area that it
/// covers of each, rounded to the nearest. What has the size already comes back as it is.
///
/// Smaller by this is as good as any filter; larger shows blocks. The aspect ratio is the caller's affair. A size without
/// pixels gives none.
#[must_use]
pub(crate) fn resize(image: Rgb, height: usize, width: usize) -> Rgb {
    if (image.height, image.width) == (height, width) {
        return image;
    }
    if image.height * image.width * height * width == 0 {
        return Rgb { pixels: vec![0; height * width * 3], height, width };
    }
    let columns = spans(image.width, width);
    let rows = spans(image.height, height);
    // Sums of whole numbers: weights are what a new pixel covers in units of 1 / (new length) of an old one.
    let area = (image.height * image.width) as u64;
    let mut pixels = Vec::with_capacity(height * width * 3);
    let mut sums = vec![0u64; width * 3];
    for (first_row, row_weights) in &rows {
        sums.fill(0);
        for (row, &row_weight) in (*first_row..).zip(row_weights) {
            let line = &image.pixels[row * image.width * 3..(row + 1) * image.width * 3];
            for ((first, weights), sum) in columns.iter().zip(sums.chunks_exact_mut(3)) {
                for (pixel, &weight) in line[first * 3..].chunks_exact(3).zip(weights) {
                    for (sum, &value) in sum.iter_mut().zip(pixel) {
                        *sum += u64::from(value) * weight * row_weight;
                    }
                }
            }
        }
        pixels.extend(sums.iter().map(|sum| ((sum + area / 2) / area) as u8));
    }
    Rgb { pixels, height, width }
}

/// For each new place the first old one that it covers, and how much of that and the following ones.
fn spans(old: usize, new: usize) -> Vec<(usize, Vec<u64>)> {
    // New place i reaches from i · old to (i + 1) · old, old place j from j · new to (j + 1) · new.
    let span = |i: usize| {
        let (begin, end) = (i * old, (i + 1) * old);
        let first = begin / new;
        let last = (end - 1) / new;
        let weight = |j: usize| (end.min((j + 1) * new) - begin.max(j * new)) as u64;
        (first, (first..=last).map(weight).collect())
    };
    (0..new).map(span).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both sizes on a grid fine enough for both: every old pixel is `height` × `width` cells, every new one
    /// `image.height` × `image.width`.
    fn reference(image: &Rgb, height: usize, width: usize) -> Vec<u8> {
        let cell = |y: usize, x: usize, c: usize| {
            u64::from(image.pixels[((y / height) * image.width + x / width) * 3 + c])
        };
        let mut pixels = Vec::new();
        for i in 0..height * width * 3 {
            let (y, x, c) = (i / 3 / width, i / 3 % width, i % 3);
            let mut sum = 0;
            for dy in 0..image.height {
                for dx in 0..image.width {
                    sum += cell(y * image.height + dy, x * image.width + dx, c);
                }
            }
            let cells = (image.height * image.width) as u64;
            pixels.push(((sum + cells / 2) / cells) as u8);
        }
        pixels
    }

    proptest! {
        #[test]
        fn as_on_a_fine_grid(
            (height, width) in (1usize..9, 1usize..9), (new_height, new_width) in (1usize..9, 1usize..9),
            seed in any::<u64>(),
        ) {
            let pixels = (0..height * width * 3).map(|i| (seed.wrapping_mul(i as u64 * 2 + 1) >> 40) as u8);
            let image = Rgb { pixels: pixels.collect(), height, width };
            let want = reference(&image, new_height, new_width);
            let got = resize(image, new_height, new_width);
            prop_assert_eq!((got.height, got.width), (new_height, new_width));
            prop_assert_eq!(got.pixels, want);
        }
    }

    #[test]
    fn exact_values() {
        let image = Rgb { pixels: vec![0, 10, 255, 4, 20, 255, 8, 30, 0, 1, 0, 0], height: 2, width: 2 };
        // Means 3.25, 15, 127.5: to the nearest, halves up.
        assert_eq!(resize(image.clone(), 1, 1).pixels, [3, 15, 128]);
        assert_eq!(resize(image.clone(), 2, 2), image);
        let row = Rgb { pixels: vec![0, 0, 0, 90, 90, 90], height: 1, width: 2 };
        assert_eq!(resize(row.clone(), 1, 3).pixels, [0, 0, 0, 45, 45, 45, 90, 90, 90]);
        assert!(resize(row, 0, 3).pixels.is_empty());
    }
}
