use std::collections::VecDeque;

/// What happens where a new chunk and the queued actions say something about the same step. Actions that are queued for
/// steps after the new chunk's last stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// The new chunk's action is taken.
    Replace,
    /// Cross-fade over the m steps of the overlap: the j-th (from 1) takes j ÷ (m + 1) of the new action.
    #[default]
    Blend,
    /// The mean over all chunks that say something about the step, weighted by exp(−0.01 i), i = 0 the oldest: ACT's temporal
    /// ensembling.
    Ensemble,
}

/// ACT's weight of the i-th oldest prediction is exp(−i · this).
const ENSEMBLE_DECAY: f64 = 0.01;

/// Which action belongs to which step of the plan. Knows no time: a step is what [`advance`](Self::advance) passes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChunkQueue {
    overlap: Overlap,
    /// The step of the plan that is next; `planned[0]` belongs to it.
    step: u64,
    planned: VecDeque<Planned>,
}

/// One step's action, as a weighted sum.
#[derive(Debug, Clone, PartialEq)]
struct Planned {
    sum: Vec<f64>,
    weight: f64,
    predictions: u32,
}

impl Planned {
    fn of(action: Vec<f64>) -> Self {
        Self { sum: action, weight: 1.0, predictions: 1 }
    }

    fn action(&self) -> Vec<f64> {
        self.sum.iter().map(|number| number / self.weight).collect()
    }
}

impl ChunkQueue {
    pub(super) fn new(overlap: Overlap) -> Self {
        Self { overlap, step: 0, planned: VecDeque::new() }
    }

    /// The step of the plan that is next.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// How many actions are queued.
    pub(super) fn len(&self) -> usize {
        self.planned.len()
    }

    /// Takes in a chunk whose first action belongs to the step `first` (or to the first step that has no action, if that is
    /// earlier); says how many actions are dropped because their step has passed.
    pub(super) fn insert(&mut self, first: u64, actions: Vec<Vec<f64>>) -> usize {
        let passed =
            usize::try_from(self.step.saturating_sub(first)).unwrap_or(usize::MAX).min(actions.len());
        let ahead =
            usize::try_from(first.saturating_sub(self.step)).unwrap_or(usize::MAX).min(self.planned.len());
        let overlapping = (actions.len() - passed).min(self.planned.len() - ahead);
        for (index, action) in actions.into_iter().skip(passed).enumerate() {
            let Some(planned) = self.planned.get_mut(ahead + index) else {
                self.planned.push_back(Planned::of(action));
                continue;
            };
            match self.overlap {
                Overlap::Replace => *planned = Planned::of(action),
                Overlap::Blend => {
                    let share = (index + 1) as f64 / (overlapping + 1) as f64;
                    let mixed =
                        planned.sum.iter().zip(&action).map(|(old, new)| old * (1.0 - share) + new * share);
                    planned.sum = mixed.collect();
                }
                Overlap::Ensemble => {
                    let weight = (-ENSEMBLE_DECAY * f64::from(planned.predictions)).exp();
                    planned.sum.iter_mut().zip(&action).for_each(|(sum, new)| *sum += weight * new);
                    planned.weight += weight;
                    planned.predictions += 1;
                }
            }
        }
        passed
    }

    /// The action `ahead` steps after the present one.
    pub(super) fn get(&self, ahead: usize) -> Option<Vec<f64>> {
        self.planned.get(ahead).map(Planned::action)
    }

    /// The present step is done.
    pub(super) fn advance(&mut self) {
        self.planned.pop_front();
        self.step += 1;
    }

    /// The queued actions, the next one first.
    pub(super) fn left_over(&self) -> impl Iterator<Item = Vec<f64>> + '_ {
        self.planned.iter().map(Planned::action)
    }

    /// Forgets all actions.
    pub(super) fn clear(&mut self) {
        self.planned.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious way: remember every chunk, and when it came; look all of them through for one step's action.
    #[derive(Debug, Default)]
    struct Slow {
        step: u64,
        chunks: Vec<Said>,
    }

    /// A chunk that came at one step, for the steps from `first` on.
    #[derive(Debug)]
    struct Said {
        came: u64,
        first: u64,
        actions: Vec<f64>,
    }

    impl Said {
        fn end(&self) -> u64 {
            self.first + self.actions.len() as u64
        }

        fn of(&self, step: u64) -> Option<f64> {
            self.actions.get(usize::try_from(step.checked_sub(self.first)?).ok()?).copied()
        }
    }

    impl Slow {
        fn end(&self) -> u64 {
            self.chunks.iter().map(Said::end).max().unwrap_or(0).max(self.step)
        }

        fn action(&self, overlap: Overlap, step: u64) -> Option<f64> {
            let said = || self.chunks.iter().filter_map(|chunk| chunk.of(step));
            match overlap {
                Overlap::Replace => said().next_back(),
                Overlap::Ensemble => {
                    let weights = || (0..said().count()).map(|i| (-0.01 * i as f64).exp());
                    let sum: f64 = weights().zip(said()).map(|(weight, action)| weight * action).sum();
                    said().next().map(|_| sum / weights().sum::<f64>())
                }
                Overlap::Blend => {
                    let (mut action, mut end) = (None, 0);
                    for chunk in &self.chunks {
                        if let Some(new) = chunk.of(step) {
                            let from = chunk.first.max(chunk.came);
                            let share = |end: u64| {
                                (step - from + 1) as f64 / (chunk.end().min(end) - from + 1) as f64
                            };
                            action = action.map(|old: f64| old + (new - old) * share(end)).or(Some(new));
                        }
                        end = end.max(chunk.end());
                    }
                    action
                }
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Do {
        Insert { ago: i64, actions: Vec<f64> },
        Advance,
        Clear,
    }

    fn doing() -> impl Strategy<Value = Do> {
        prop_oneof![
            2 => (-3_i64..12, prop::collection::vec(-100.0..100.0_f64, 1..16))
                .prop_map(|(ago, actions)| Do::Insert { ago, actions }),
            4 => Just(Do::Advance),
            1 => Just(Do::Clear),
        ]
    }

    proptest! {
        #[test]
        fn as_looking_through_all_chunks(
            doings in prop::collection::vec(doing(), 1..60),
            overlap in prop_oneof![Just(Overlap::Replace), Just(Overlap::Blend), Just(Overlap::Ensemble)],
        ) {
            let (mut queue, mut slow) = (ChunkQueue::new(overlap), Slow::default());
            for doing in doings {
                match doing {
                    Do::Insert { ago, actions } => {
                        let first = slow.step.saturating_add_signed(-ago).min(slow.end());
                        let rows = actions.iter().map(|action| vec![*action]).collect();
                        let dropped = queue.insert(first, rows);
                        prop_assert_eq!(dropped as u64, slow.step.saturating_sub(first).min(actions.len() as u64));
                        slow.chunks.push(Said { came: slow.step, first, actions });
                    }
                    Do::Advance => {
                        queue.advance();
                        slow.step += 1;
                    }
                    Do::Clear => {
                        queue.clear();
                        slow.chunks.clear();
                    }
                }
                prop_assert_eq!(queue.step(), slow.step);
                let left_over: Vec<_> = queue.left_over().collect();
                prop_assert_eq!(left_over.len(), queue.len());
                for ahead in 0..30 {
                    let (got, wanted) = (queue.get(ahead), slow.action(overlap, slow.step + ahead as u64));
                    prop_assert_eq!(left_over.get(ahead), got.as_ref());
                    match (got, wanted) {
                        (None, None) => {}
                        // Sums of at most 60 numbers below 100.
                        (Some(got), Some(wanted)) => prop_assert!((got[0] - wanted).abs() < 1e-10, "{:?} {}", got, wanted),
                        other => prop_assert!(false, "{:?} at {}", other, ahead),
                    }
                }
            }
        }
    }

    #[test]
    fn blending_is_linear_over_the_overlap() {
        let mut queue = ChunkQueue::new(Overlap::Blend);
        queue.insert(0, vec![vec![0.0]; 5]);
        queue.advance();
        queue.advance();
        assert_eq!(queue.insert(1, vec![vec![8.0]; 6]), 1);
        let actions: Vec<_> = queue.left_over().map(|action| action[0]).collect();
        assert_eq!(actions, [2.0, 4.0, 6.0, 8.0, 8.0]);
    }

    #[test]
    fn ensembles_weigh_the_oldest_most() {
        let mut queue = ChunkQueue::new(Overlap::Ensemble);
        queue.insert(0, vec![vec![1.0]]);
        queue.insert(0, vec![vec![0.0]]);
        let action = queue.get(0).unwrap()[0];
        assert!((action - 1.0 / (1.0 + (-0.01_f64).exp())).abs() < 1e-15, "{action}");
        queue.insert(0, vec![vec![f64::MAX]]);
        assert!(queue.get(0).unwrap()[0].is_finite());
    }
}
