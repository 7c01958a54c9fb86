//! Rotary embeddings of rows.

use skillweld_simd::vectorize;

vectorize! {
    /// Every head of `row` in place, elements j and j + half together. A head is twice as wide as `cos`.
    pub(super) fn turn_halves(row: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        for head in row.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
            }
        }
    }

    /// Every head of `row` in place, elements 2i and 2i + 1 together, element j by the angle of column j mod half.
    pub(super) fn turn_neighbours(row: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len();
        for head in row.chunks_exact_mut(2 * half) {
            for (index, pair) in head.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let [even, odd] = *pair;
                let (first, second) = (2 * index % half, (2 * index + 1) % half);
                *pair = [even * cos[first] - odd * sin[first], odd * cos[second] + even * sin[second]];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_are_turned_as_the_published_code_does(heads in 1..4usize, half in 1..9usize, seed in any::<u32>()) {
            let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed) >> 20) as f32 / 2048.0 - 1.0;
            let row: Vec<f32> = (0..heads * 2 * half).map(value).collect();
            let cos: Vec<f32> = (0..half).map(|i| value(1000 + i)).collect();
            let sin: Vec<f32> = (0..half).map(|i| value(2000 + i)).collect();
            // x ⊙ [cos, cos] + turned(x) ⊙ [sin, sin]; the designs differ in what `turned` swaps.
            let slow = |turned: &dyn Fn(&[f32], usize) -> f32| -> Vec<f64> {
                row.chunks(2 * half).flat_map(|head| (0..2 * half).map(|j| {
                    f64::from(head[j]) * f64::from(cos[j % half]) + f64::from(turned(head, j)) * f64::from(sin[j % half])
                })).collect()
            };
            let halves = slow(&|head, j| if j < half { -head[j + half] } else { head[j - half] });
            let neighbours = slow(&|head, j| if j % 2 == 0 { -head[j + 1] } else { head[j - 1] });
            let mut actual = row.clone();
            turn_halves(&mut actual, &cos, &sin);
            prop_assert!(actual.iter().zip(&halves).all(|(a, e)| (f64::from(*a) - e).abs() < 1e-6));
            let mut actual = row.clone();
            turn_neighbours(&mut actual, &cos, &sin);
            prop_assert!(actual.iter().zip(&neighbours).all(|(a, e)| (f64::from(*a) - e).abs() < 1e-6));
        }
    }
}
