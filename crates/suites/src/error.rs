use skillweld_robot_sim::SimError;

/// What is no episode or no action. Texts name the thing and the remedy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// A number of an action that is none.
    #[error("action[{index}] is {value}: send seven finite numbers, −1 … 1")]
    Action {
        /// Which of the seven.
        index: usize,
        /// NaN or infinity.
        value: f64,
    },
    /// Things do not find room on the table.
    #[error("no layout of suite {suite} was found for seed {seed}: take another index")]
    Layout {
        /// The suite's name.
        suite: &'static str,
        /// What the split and the index gave.
        seed: u64,
    },
    /// The arm does not reach the place where episodes begin.
    #[error("the arm {arm} cannot reach the place where episodes begin: change its lengths or limits")]
    Start {
        /// The model's name.
        arm: String,
    },
    /// The simulator refuses the scene, for example because of its picture size.
    #[error(transparent)]
    Sim(#[from] SimError),
}
