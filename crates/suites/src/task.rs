use crate::goal::Goal;
use crate::suite::Suite;

/// Something to do, in words, and how to see that it is done.
#[derive(Debug, PartialEq)]
pub struct Task {
    /// Whose layouts and looks it has.
    pub suite: Suite,
    /// Unlike those of all other tasks, for example `spatial_left`.
    pub id: &'static str,
    /// What a policy is told, in lower case.
    pub instruction: &'static str,
    /// The same in other words, further and further from the instruction: for the language perturbation.
    pub rephrased: [&'static str; 3],
    /// What must be so at the end, all of it; experts bring it about in this order.
    pub goals: &'static [Goal],
    /// An episode that takes more control steps has failed.
    pub step_limit: u32,
}

impl Task {
    /// The task of this id, of whatever suite.
    pub fn named(id: &str) -> Option<&'static Self> {
        Suite::ALL.into_iter().flat_map(Suite::tasks).find(|task| task.id == id)
    }
}
