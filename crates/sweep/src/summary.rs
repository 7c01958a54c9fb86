//! Scores of all points, side by side.

use indexmap::IndexMap;
use serde::Serialize;

use crate::ledger::Outcome;
use crate::{Point, Score};

/// What is known of all points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The least score is the best.
    pub minimize: bool,
    /// In the grid's order.
    pub points: Vec<PointSummary>,
}

/// What is known of one point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PointSummary {
    /// `alpha=0.3,mask.lambda=0.6`.
    pub point: String,
    /// A value for each field.
    pub settings: IndexMap<String, String>,
    /// By seed.
    pub scores: IndexMap<u64, f64>,
    /// Why evaluations failed, by seed.
    pub failed: IndexMap<u64, String>,
    /// Evaluations that are still to come.
    pub missing: usize,
    /// Of the scores.
    pub mean: Option<f64>,
    /// Standard deviation of a sample (n − 1); from two scores on.
    pub std: Option<f64>,
    /// The least score.
    pub min: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// Means of whatever else was measured.
    pub metrics: IndexMap<String, f64>,
    /// The best mean of all points that were evaluated completely; of equal ones the first.
    pub best: bool,
}

impl Summary {
    pub(crate) fn new(
        points: &[Point],
        seeds: u64,
        minimize: bool,
        outcome: impl Fn(&str, u64) -> Option<Outcome>,
    ) -> Self {
        let of = |point: &Point| {
            let label = point.label();
            PointSummary::new(point, (0..seeds).map(|seed| (seed, outcome(&label, seed))))
        };
        let mut points: Vec<PointSummary> = points.iter().map(of).collect();
        let complete = |point: &PointSummary| point.failed.is_empty() && point.missing == 0;
        let mut best: Option<(usize, f64)> = None;
        for (i, point) in points.iter().enumerate().filter(|(_, point)| complete(point)) {
            let Some(mean) = point.mean else { continue };
            let better = |other: f64| if minimize { mean < other } else { mean > other };
            if best.is_none_or(|(_, other)| better(other)) {
                best = Some((i, mean));
            }
        }
        if let Some((best, _)) = best {
            points[best].best = true;
        }
        Self { minimize, points }
    }

    /// The best point.
    pub fn best(&self) -> Option<&PointSummary> {
        self.points.iter().find(|point| point.best)
    }

    /// Points with an evaluation that failed.
    pub fn failed(&self) -> usize {
        self.points.iter().filter(|point| !point.failed.is_empty()).count()
    }

    /// Names of everything that was measured besides scores, in the order of first mention.
    pub fn metrics(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.points.iter().flat_map(|point| point.metrics.keys()) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }
}

impl PointSummary {
    fn new(point: &Point, outcomes: impl Iterator<Item = (u64, Option<Outcome>)>) -> Self {
        let mut scored: Vec<Score> = Vec::new();
        let (mut scores, mut failed, mut missing) = (IndexMap::new(), IndexMap::new(), 0);
        for (seed, outcome) in outcomes {
            match outcome {
                Some(Outcome::Scored(score)) => {
                    scores.insert(seed, score.score);
                    scored.push(score);
                }
                Some(Outcome::Failed(why)) => {
                    failed.insert(seed, why);
                }
                None => missing += 1,
            }
        }
        let all: Vec<f64> = scores.values().copied().collect();
        let mut metrics: IndexMap<String, f64> = IndexMap::new();
        for name in scored.iter().flat_map(|score| score.metrics.keys()) {
            let values: Vec<f64> =
                scored.iter().filter_map(|score| score.metrics.get(name).copied()).collect();
            metrics.entry(name.clone()).or_insert_with(|| mean(&values).unwrap_or(f64::NAN));
        }
        Self {
            point: point.label(),
            settings: point.settings.iter().cloned().collect(),
            mean: mean(&all),
            std: deviation(&all),
            min: all.iter().copied().reduce(f64::min),
            max: all.iter().copied().reduce(f64::max),
            scores,
            failed,
            missing,
            metrics,
            best: false,
        }
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

    use super::*;
    use crate::{Axis, grid};

    fn summary(scores: &[&[Option<f64>]], minimize: bool) -> Summary {
        let values: Vec<String> = (0..scores.len()).map(|i| i.to_string()).collect();
        let points = grid(&[Axis { field: "a".to_owned(), values }]).unwrap();
        let seeds = scores.iter().map(|row| row.len()).max().unwrap() as u64;
        Summary::new(&points, seeds, minimize, |label, seed| {
            let row = scores[label[2..].parse::<usize>().unwrap()];
            let outcome = row.get(usize::try_from(seed).unwrap())?;
            Some(match outcome {
                Some(score) => {
                    let metrics = IndexMap::from([("twice".to_owned(), 2.0 * score)]);
                    Outcome::Scored(Score { score: *score, metrics })
                }
                None => Outcome::Failed("no".to_owned()),
            })
        })
    }

    #[test]
    fn means_and_spreads_are_those_of_the_definition() {
        let point = &summary(&[&[Some(1.0), Some(2.0), Some(6.0)]], false).points[0];
        assert_eq!((point.mean, point.min, point.max), (Some(3.0), Some(1.0), Some(6.0)));
        assert_eq!(point.std, Some(7f64.sqrt()));
        assert_eq!(point.metrics["twice"], 6.0);
        assert_eq!(summary(&[&[Some(1.0)]], false).points[0].std, None);
    }

    #[test]
    fn the_best_is_complete_and_the_first_of_equals() {
        let scores: &[&[Option<f64>]] = &[
            &[Some(1.0), Some(1.0)],
            &[Some(9.0), None],
            &[Some(9.0)],
            &[Some(2.0), Some(2.0)],
            &[Some(2.0), Some(2.0)],
        ];
        assert_eq!(summary(scores, false).best().unwrap().point, "a=3");
        assert_eq!(summary(scores, true).best().unwrap().point, "a=0");
        assert_eq!(summary(scores, false).failed(), 1);
        assert_eq!(summary(&[&[None]], false).best(), None);
    }
}
