//! Statistics of features, as `lerobot` (`compute_stats.py`, 0.6) computes and aggregates them, in f64.
//!
//! Minimum, maximum, mean, standard deviation, and the quantiles of a histogram of 5000 bins. Of images each channel's, over
//! a sample of an episode's frames, of which large ones are thinned out ([`pixels`]), in 0 … 1.

pub(crate) mod pixels;

use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::column::Column;
use pixels::ChannelCounts;

/// Names of the quantiles with what they are, in the order in which [`Statistics::quantiles`] has them.
pub(crate) const QUANTILES: [(&str, f64); 5] =
    [("q01", 0.01), ("q10", 0.10), ("q50", 0.50), ("q90", 0.90), ("q99", 0.99)];

/// Bins of the histogram that quantiles are read from.
const BINS: usize = 5000;

/// What the histogram reaches beyond minimum and maximum.
const PADDING: f64 = 1e-10;

/// Statistics of one feature: each a number for every number of the feature, or for every channel of an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statistics {
    /// `[n]`, or `[3, 1, 1]` for images.
    pub(crate) shape: Vec<usize>,
    /// Least values.
    pub(crate) min: Vec<f64>,
    /// Largest values.
    pub(crate) max: Vec<f64>,
    /// Means.
    pub(crate) mean: Vec<f64>,
    /// Standard deviations of the whole population.
    pub(crate) std: Vec<f64>,
    /// Frames looked at.
    pub(crate) count: u64,
    /// The quantiles of [`QUANTILES`]; none in datasets from before there were any.
    pub(crate) quantiles: Option<[Vec<f64>; 5]>,
}

/// Statistics of every feature, in the order of the features.
pub(crate) type FeatureStatistics = IndexMap<String, Statistics>;

impl Statistics {
    /// Of a column of an episode.
    pub(crate) fn of_column(column: &Column) -> Self {
        let rows = column.rows();
        let dimensions = (0..column.width).map(|dimension| {
            let mut values: Vec<f64> = (0..rows).map(|row| column.number(row, dimension)).collect();
            values.sort_by(f64::total_cmp);
            Summary::of(&values.into_iter().map(|value| (value, 1)).collect::<Vec<_>>())
        });
        Self::join(vec![column.width], dimensions, rows as u64)
    }

    /// Of a camera in an episode, from how often each channel has each of the 256 values in `images` sampled images.
    pub(crate) fn of_images(channels: &ChannelCounts, images: u64) -> Self {
        let dimensions = channels.iter().map(|counts| {
            let values: Vec<_> =
                (0u8..=255).map(f64::from).zip(counts.iter().copied()).filter(|&(_, n)| n > 0).collect();
            Summary::of(&values).scaled(1.0 / 255.0)
        });
        Self::join(vec![3, 1, 1], dimensions, images)
    }

    fn join(shape: Vec<usize>, dimensions: impl Iterator<Item = Summary>, count: u64) -> Self {
        let all: Vec<_> = dimensions.collect();
        let of = |pick: fn(&Summary) -> f64| -> Vec<f64> { all.iter().map(pick).collect() };
        Self {
            shape,
            min: of(|s| s.min),
            max: of(|s| s.max),
            mean: of(|s| s.mean),
            std: of(|s| s.std),
            count,
            quantiles: Some(std::array::from_fn(|q| all.iter().map(|s| s.quantiles[q]).collect())),
        }
    }

    /// Of both parts' frames together: means and variances exactly, quantiles as the mean of the parts' quantiles.
    pub(crate) fn aggregate(&self, other: &Self) -> Self {
        let total = self.count.saturating_add(other.count).max(1) as f64;
        let (mine, theirs) = (self.count as f64 / total, other.count as f64 / total);
        let each = |a: &[f64], b: &[f64], f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
        };
        let weighted = |a: &[f64], b: &[f64]| each(a, b, &|a, b| a * mine + b * theirs);
        let mean = weighted(&self.mean, &other.mean);
        let std = (0..mean.len().min(self.std.len()).min(other.std.len()))
            .map(|i| {
                let part = |s: &Self| s.std[i].powi(2) + (s.mean[i] - mean[i]).powi(2);
                (part(self) * mine + part(other) * theirs).sqrt()
            })
            .collect();
        let quantiles = self.quantiles.as_ref().zip(other.quantiles.as_ref());
        Self {
            shape: self.shape.clone(),
            min: each(&self.min, &other.min, &f64::min),
            max: each(&self.max, &other.max, &f64::max),
            mean,
            std,
            count: self.count.saturating_add(other.count),
            quantiles: quantiles.map(|(a, b)| std::array::from_fn(|q| weighted(&a[q], &b[q]))),
        }
    }

    /// Every statistic but the count, with its name.
    pub(crate) fn named(&self) -> Vec<(&'static str, &[f64])> {
        let mut all: Vec<(&'static str, &[f64])> =
            vec![("min", &self.min), ("max", &self.max), ("mean", &self.mean), ("std", &self.std)];
        if let Some(quantiles) = &self.quantiles {
            all.extend(QUANTILES.iter().zip(quantiles).map(|((name, _), values)| (*name, values.as_slice())));
        }
        all
    }

    /// As `stats.json` has it.
    fn to_json(&self) -> Value {
        let nested = |values: &[f64]| match self.shape.len() {
            3 => json!(values.iter().map(|v| [[v]]).collect::<Vec<_>>()),
            _ => json!(values),
        };
        let mut fields: serde_json::Map<_, _> =
            self.named().into_iter().map(|(name, values)| (name.to_owned(), nested(values))).collect();
        fields.insert("count".into(), json!([self.count]));
        Value::Object(fields)
    }
}

/// `meta/stats.json`.
pub(crate) fn to_json(statistics: &FeatureStatistics) -> Vec<u8> {
    let all: serde_json::Map<_, _> =
        statistics.iter().map(|(name, feature)| (name.clone(), feature.to_json())).collect();
    format!("{:#}\n", serde_json::Value::Object(all)).into_bytes()
}

/// Adds an episode to what all before it have.
pub(crate) fn add(total: &mut FeatureStatistics, episode: &FeatureStatistics) {
    for (name, new) in episode {
        match total.get_mut(name) {
            Some(sum) => *sum = sum.aggregate(new),
            None => {
                total.insert(name.clone(), new.clone());
            }
        }
    }
}

/// Statistics of one number of a feature.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Summary {
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    quantiles: [f64; 5],
}

impl Summary {
    /// Of values in ascending order, each with how often it is there.
    fn of(sorted: &[(f64, u64)]) -> Self {
        let (Some(&(min, _)), Some(&(max, _))) = (sorted.first(), sorted.last()) else {
            return Self { min: 0.0, max: 0.0, mean: 0.0, std: 0.0, quantiles: [0.0; 5] };
        };
        let total: u64 = sorted.iter().map(|&(_, count)| count).sum();
        let average = |f: &dyn Fn(f64) -> f64| {
            sorted.iter().map(|&(value, count)| f(value) * count as f64).sum::<f64>() / total as f64
        };
        let mean = average(&|value| value);
        let std = average(&|value| (value - mean).powi(2)).sqrt();
        // A single value has no histogram.
        let quantiles = if total < 2 { [mean; 5] } else { Histogram::new(min, max).quantiles(sorted, total) };
        Self { min, max, mean, std, quantiles }
    }

    fn scaled(self, factor: f64) -> Self {
        Self {
            min: self.min * factor,
            max: self.max * factor,
            mean: self.mean * factor,
            std: self.std * factor,
            quantiles: self.quantiles.map(|q| q * factor),
        }
    }
}

/// The edges of 5000 equal bins from a little below the minimum to a little above the maximum.
struct Histogram {
    low: f64,
    high: f64,
    step: f64,
}

impl Histogram {
    fn new(min: f64, max: f64) -> Self {
        let (low, high) = (min - PADDING, max + PADDING);
        Self { low, high, step: (high - low) / BINS as f64 }
    }

    fn edge(&self, index: usize) -> f64 {
        if index == BINS { self.high } else { self.low + index as f64 * self.step }
    }

    /// The last bin that begins at or before the value.
    fn bin(&self, value: f64) -> usize {
        // The division may be off by one where a value lies on an edge, and is no number where all edges are one.
        let mut bin = (((value - self.low) / self.step) as usize).min(BINS - 1);
        while bin > 0 && self.edge(bin) > value {
            bin -= 1;
        }
        while bin + 1 < BINS && self.edge(bin + 1) <= value {
            bin += 1;
        }
        bin
    }

    /// For each quantile the first bin up to which there are that many values, and in it the place in proportion.
    fn quantiles(&self, sorted: &[(f64, u64)], total: u64) -> [f64; 5] {
        let mut bins: Vec<(usize, u64)> = Vec::new();
        for &(value, count) in sorted {
            let bin = self.bin(value);
            match bins.last_mut() {
                Some((last, sum)) if *last == bin => *sum += count,
                _ => bins.push((bin, count)),
            }
        }
        QUANTILES.map(|(_, quantile)| {
            let target = quantile * total as f64;
            let mut before = 0;
            for &(bin, count) in &bins {
                if (before + count) as f64 >= target {
                    let (begin, end) = (self.edge(bin), self.edge(bin + 1));
                    let share = if bin == 0 { 0.0 } else { (target - before as f64) / count as f64 };
                    return begin + share * (end - begin);
                }
                before += count;
            }
            self.high
        })
    }
}

#[cfg(test)]
mod tests;
