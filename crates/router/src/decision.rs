use serde::Serialize;

/// When to trust a score, and what to do otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Indices of the tasks that may be chosen; empty: all of them.
    pub candidates: Vec<usize>,
    /// The softmax probability of the best task below which the router abstains; 0 never abstains.
    pub min_probability: f32,
    /// The task that runs when the router abstains; `None`: whoever asked gets an answer without a task.
    pub fallback: Option<usize>,
    /// Compare scores as they are, as the paper does, although the checkpoint is calibrated.
    pub raw_scores: bool,
}

impl Default for Rule {
    /// All tasks, never abstaining: what the published code does.
    fn default() -> Self {
        Self { candidates: Vec::new(), min_probability: 0.0, fallback: None, raw_scores: false }
    }
}

/// Why a rule cannot be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// An index beyond the tasks.
    #[error("task {index} was named to the router, there are {tasks} tasks")]
    UnknownTask {
        /// The index.
        index: usize,
        /// Tasks there are.
        tasks: usize,
    },
    /// The threshold is no probability.
    #[error("the router's threshold (`--min-probability`) is {0}; it is a probability, from 0 to 1")]
    Threshold(f32),
    /// A score is NaN or infinite.
    #[error(
        "the score of task {index} is {score}; the forward under its mask gave hidden states that are not finite"
    )]
    NonFinite {
        /// The task.
        index: usize,
        /// Its score.
        score: f32,
    },
    /// There is nothing to choose from.
    #[error("there is no task to choose from")]
    Empty,
}

/// One task that could have been chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Candidate {
    /// Index of the task.
    pub task: usize,
    /// What is compared: its score (see [`crate::score`]), or how likely that is by its [`crate::Calibration`].
    pub score: f32,
    /// Softmax of the candidates' scores.
    pub probability: f32,
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The best candidate.
    Routed(usize),
    /// Nobody was above the threshold: the fallback.
    FellBack(usize),
    /// Nobody was above the threshold, and there is no fallback.
    Abstained,
}

/// A decision with everything that led to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// What came out.
    pub outcome: Outcome,
    /// The candidates in order of their index.
    pub candidates: Vec<Candidate>,
    /// Probability of the best less that of the second best; 1 when there is only one.
    pub margin: f32,
}

impl Decision {
    /// The task to run, unless the router abstained.
    pub fn task(&self) -> Option<usize> {
        match self.outcome {
            Outcome::Routed(task) | Outcome::FellBack(task) => Some(task),
            Outcome::Abstained => None,
        }
    }
}

impl Rule {
    /// The tasks to score, ascending: a forward under the masks of others is wasted.
    ///
    /// # Errors
    /// [`RuleError`] when the rule does not fit `tasks` tasks.
    pub fn tasks_to_score(&self, tasks: usize) -> Result<Vec<usize>, RuleError> {
        if !(0.0..=1.0).contains(&self.min_probability) {
            return Err(RuleError::Threshold(self.min_probability));
        }
        if let Some(&index) = self.candidates.iter().chain(&self.fallback).find(|&&index| index >= tasks) {
            return Err(RuleError::UnknownTask { index, tasks });
        }
        if tasks == 0 {
            return Err(RuleError::Empty);
        }
        if self.candidates.is_empty() {
            return Ok((0..tasks).collect());
        }
        let mut candidates = self.candidates.clone();
        candidates.sort_unstable();
        candidates.dedup();
        Ok(candidates)
    }

    /// Decides between tasks by their scores, given as (task, score). Of equal scores the first task's counts, as in the
    /// published code's argmax.
    ///
    /// # Errors
    /// [`RuleError::NonFinite`] and [`RuleError::Empty`].
    pub fn decide(&self, scores: &[(usize, f32)]) -> Result<Decision, RuleError> {
        if let Some(&(index, score)) = scores.iter().find(|(_, score)| !score.is_finite()) {
            return Err(RuleError::NonFinite { index, score });
        }
        let probabilities = softmax(&scores.iter().map(|(_, score)| *score).collect::<Vec<_>>());
        let candidates: Vec<Candidate> = scores
            .iter()
            .zip(probabilities)
            .map(|(&(task, score), probability)| Candidate { task, score, probability })
            .collect();
        let mut best: Option<&Candidate> = None;
        let mut second = 0.0f32;
        for candidate in &candidates {
            match best {
                Some(leader) if candidate.score <= leader.score => second = second.max(candidate.probability),
                _ => {
                    second = best.map_or(0.0, |leader| leader.probability);
                    best = Some(candidate);
                }
            }
        }
        let best = best.ok_or(RuleError::Empty)?;
        let outcome = match self.fallback {
            _ if best.probability >= self.min_probability => Outcome::Routed(best.task),
            Some(fallback) => Outcome::FellBack(fallback),
            None => Outcome::Abstained,
        };
        let margin = best.probability - second;
        Ok(Decision { outcome, candidates, margin })
    }
}

/// e^(sᵢ) / Σ e^(sⱼ), without overflow.
pub fn softmax(scores: &[f32]) -> Vec<f32> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered(scores: &[f32]) -> Vec<(usize, f32)> {
        scores.iter().copied().enumerate().collect()
    }

    #[test]
    fn the_best_score_wins_and_of_equals_the_first() {
        let decision = Rule::default().decide(&numbered(&[1.0, 3.0, 3.0])).unwrap();
        assert_eq!((decision.outcome, decision.margin), (Outcome::Routed(1), 0.0));
        let alone = Rule::default().decide(&[(4, 0.2)]).unwrap();
        assert_eq!((alone.task(), alone.margin), (Some(4), 1.0));
    }

    #[test]
    fn below_the_threshold_the_fallback_runs_or_nobody() {
        let scores = numbered(&[1.0, 1.1]);
        let mut rule = Rule { min_probability: 0.9, fallback: Some(0), ..Rule::default() };
        assert_eq!(rule.decide(&scores).unwrap().outcome, Outcome::FellBack(0));
        rule.fallback = None;
        let decision = rule.decide(&scores).unwrap();
        assert_eq!((decision.outcome, decision.task()), (Outcome::Abstained, None));
        rule.min_probability = 0.5;
        assert_eq!(rule.decide(&scores).unwrap().outcome, Outcome::Routed(1));
    }

    #[test]
    fn rules_that_do_not_fit_are_refused() {
        let beyond = Rule { candidates: vec![0, 3], ..Rule::default() };
        assert_eq!(beyond.tasks_to_score(3), Err(RuleError::UnknownTask { index: 3, tasks: 3 }));
        let fallback = Rule { fallback: Some(3), ..Rule::default() };
        assert_eq!(fallback.tasks_to_score(3), Err(RuleError::UnknownTask { index: 3, tasks: 3 }));
        let threshold = Rule { min_probability: 1.5, ..Rule::default() };
        assert_eq!(threshold.tasks_to_score(3), Err(RuleError::Threshold(1.5)));
        assert_eq!(Rule::default().tasks_to_score(0), Err(RuleError::Empty));
        assert_eq!(Rule::default().decide(&[]), Err(RuleError::Empty));
        let nan = Rule::default().decide(&[(2, f32::NAN)]);
        assert!(matches!(nan, Err(RuleError::NonFinite { index: 2, .. })));
    }

    #[test]
    fn candidates_are_scored_once_in_order() {
        let rule = Rule { candidates: vec![2, 0, 2], ..Rule::default() };
        assert_eq!(rule.tasks_to_score(3).unwrap(), [0, 2]);
    }

    proptest! {
        #[test]
        fn probabilities_sum_to_one_and_keep_the_order(scores in proptest::collection::vec(-200.0f32..200.0, 1..8)) {
            let probabilities = softmax(&scores);
            prop_assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let decision = Rule::default().decide(&numbered(&scores)).unwrap();
            let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(decision.task().map(|task| scores[task]), Some(best));
            prop_assert!((0.0..=1.0).contains(&decision.margin));
        }
    }
}
