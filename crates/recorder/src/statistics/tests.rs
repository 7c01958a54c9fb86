use proptest::prelude::*;

use super::*;
use crate::column::Values;

/// The definition, word for word: all values one by one, all 5001 edges, all 5000 counts.
fn reference(values: &[f64]) -> Summary {
    let n = values.len() as f64;
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    if values.len() < 2 {
        return Summary { min, max, mean, std, quantiles: [mean; 5] };
    }
    let (low, high) = (min - 1e-10, max + 1e-10);
    let step = (high - low) / 5000.0;
    let mut edges: Vec<f64> = (0..5000).map(|i| low + f64::from(i) * step).collect();
    edges.push(high);
    let mut counts = vec![0u64; 5000];
    for value in values {
        let bin = (0..5000).rev().find(|&i| edges[i] <= *value).unwrap();
        counts[bin] += 1;
    }
    let cumulated: Vec<u64> = (0..5000).map(|i| counts[..=i].iter().sum()).collect();
    let quantiles = [0.01, 0.10, 0.50, 0.90, 0.99].map(|q| {
        let target = q * n;
        let index = cumulated.iter().position(|&c| c as f64 >= target).unwrap();
        if index == 0 {
            return edges[0];
        }
        let before = cumulated[index - 1];
        let share = (target - before as f64) / (cumulated[index] - before) as f64;
        edges[index] + share * (edges[index + 1] - edges[index])
    });
    Summary { min, max, mean, std, quantiles }
}

fn close(a: f64, b: f64, scale: f64) -> bool {
    // Sums of at most 1000 terms in different order: 1000 roundings of 2⁻⁵³ each.
    (a - b).abs() <= 1000.0 * f64::EPSILON * scale.max(1e-300)
}

fn column(width: usize, values: &[f32]) -> Column {
    Column { width, values: Values::F32(values.to_vec()) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_column_is_as_the_reference_has_it(values in prop::collection::vec(
        prop_oneof![-1e3f32..1e3, Just(0.0), Just(-2.5), 1e6f32..1e7], 1..300,
    )) {
        let got = Statistics::of_column(&column(1, &values));
        let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let want = reference(&wide);
        let scale = wide.iter().fold(0.0f64, |a, v| a.max(v.abs()));
        prop_assert_eq!(got.min[0], want.min);
        prop_assert_eq!(got.max[0], want.max);
        prop_assert!(close(got.mean[0], want.mean, scale));
        prop_assert!(close(got.std[0].powi(2), want.std.powi(2), scale * scale));
        // Bins and counts are whole numbers: quantiles agree to the bit.
        prop_assert_eq!(got.quantiles.unwrap().map(|q| q[0]), want.quantiles);
    }

    #[test]
    fn counted_pixels_are_as_pixels_one_by_one(pixels in prop::collection::vec(any::<u8>(), 2..400)) {
        let mut counts: ChannelCounts = [[0; 256]; 3];
        for &value in &pixels {
            counts[1][usize::from(value)] += 1;
        }
        let got = Statistics::of_images(&counts, 1);
        let values: Vec<f64> = pixels.iter().map(|&v| f64::from(v)).collect();
        let want = reference(&values).scaled(1.0 / 255.0);
        prop_assert_eq!((got.min[1], got.max[1]), (want.min, want.max));
        prop_assert!(close(got.mean[1], want.mean, 1.0));
        prop_assert!(close(got.std[1].powi(2), want.std.powi(2), 1.0));
        prop_assert_eq!(got.quantiles.unwrap().map(|q| q[1]), want.quantiles);
    }

    #[test]
    fn joining_parts_is_as_the_whole(values in prop::collection::vec(-50f32..50.0, 2..200), cut in 0.0f64..1.0) {
        let at = 1 + ((values.len() - 2) as f64 * cut) as usize;
        let (left, right) = values.split_at(at);
        let joined =
            Statistics::of_column(&column(1, left)).aggregate(&Statistics::of_column(&column(1, right)));
        let whole = Statistics::of_column(&column(1, &values));
        prop_assert_eq!(joined.count, whole.count);
        prop_assert_eq!((&joined.min, &joined.max), (&whole.min, &whole.max));
        prop_assert!(close(joined.mean[0], whole.mean[0], 50.0));
        prop_assert!(close(joined.std[0].powi(2), whole.std[0].powi(2), 2500.0));
    }
}

#[test]
fn each_number_of_a_vector_has_its_own() {
    let got = Statistics::of_column(&column(2, &[1.0, 10.0, 3.0, 30.0]));
    assert_eq!(got.shape, [2]);
    assert_eq!((got.min, got.max), (vec![1.0, 10.0], vec![3.0, 30.0]));
    assert_eq!((got.mean, got.std), (vec![2.0, 20.0], vec![1.0, 10.0]));
    assert_eq!(got.count, 2);
}

#[test]
fn quantiles_of_parts_are_weighted_by_frames() {
    let one = Statistics::of_column(&column(1, &[4.0]));
    let mut three = Statistics::of_column(&column(1, &[0.0, 0.0, 0.0]));
    three.quantiles = Some(std::array::from_fn(|_| vec![0.0]));
    assert_eq!(one.aggregate(&three).quantiles.unwrap()[2], [1.0]);
}

#[test]
fn images_stand_in_json_with_the_shape_of_a_channel() {
    let mut counts: ChannelCounts = [[0; 256]; 3];
    for channel in &mut counts {
        channel[0] = 2;
        channel[255] = 2;
    }
    let all = FeatureStatistics::from([("camera".to_owned(), Statistics::of_images(&counts, 4))]);
    let json: Value = serde_json::from_slice(&to_json(&all)).unwrap();
    assert_eq!(json["camera"]["min"], json!([[[0.0]], [[0.0]], [[0.0]]]));
    assert_eq!(json["camera"]["mean"], json!([[[0.5]], [[0.5]], [[0.5]]]));
    assert_eq!(json["camera"]["std"], json!([[[0.5]], [[0.5]], [[0.5]]]));
    assert_eq!(json["camera"]["count"], json!([4]));
}
