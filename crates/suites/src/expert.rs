//! Scripted experts: waypoints in the same seven numbers that a policy has, from the simulator's full state.

mod grasp;
mod grip;
pub(crate) mod motion;
mod pick;
mod pull;
mod push;

use skillweld_robot_sim::Random;

use crate::controller::ACTIONS;
use crate::env::Env;
use crate::goal::Goal;

use pick::Pick;
use pull::Pull;
use push::Push;

/// Solves the task of an episode.
#[derive(Debug, Clone)]
pub struct Expert {
    /// What is left to do, the next last.
    stages: Vec<Stage>,
    noise: f64,
    random: Random,
    intended: [f64; ACTIONS],
}

/// Bringing about one goal.
#[derive(Debug, Clone)]
enum Stage {
    Pick(Pick),
    Pull(Pull),
    Push(Push),
}

impl Expert {
    /// For an episode as it stands: at its beginning, or wherever somebody else has left it.
    pub fn new(env: &Env) -> Self {
        Self::noisy(env, 0.0, 0)
    }

    /// The same with a hand that is not steady, so that demonstrations also show the way back: normal noise on shift and
    /// turn, `noise` times as large as they are (0.3 is much). So it fades where precision counts. `seed` decides it.
    pub fn noisy(env: &Env, noise: f64, seed: u64) -> Self {
        Self::towards(env.task().goals, noise, seed)
    }

    /// As [`noisy`](Self::noisy), for other goals than the task's.
    pub(crate) fn towards(goals: &[Goal], noise: f64, seed: u64) -> Self {
        let stages = goals.iter().rev().map(|&goal| Stage::new(goal)).collect();
        Self { stages, noise, random: Random::new(seed), intended: motion::wait(false) }
    }

    /// The next action. Afterwards the episode is to take the step.
    pub fn act(&mut self, env: &Env) -> [f64; ACTIONS] {
        self.intended = loop {
            let Some(stage) = self.stages.last_mut() else { break motion::wait(false) };
            match stage.act(env) {
                Some(action) => break action,
                None => self.stages.pop(),
            };
        };
        let mut action = self.intended;
        for part in [0..3, 3..6] {
            let length = self.intended[part.clone()].iter().map(|x| x * x).sum::<f64>().sqrt();
            for value in &mut action[part] {
                *value = (*value + self.noise * length * self.random.normal()).clamp(-1.0, 1.0);
            }
        }
        action
    }

    /// The last action before noise: what is to be learned from a step that noise disturbed.
    pub fn intended(&self) -> [f64; ACTIONS] {
        self.intended
    }
}

impl Stage {
    fn new(goal: Goal) -> Self {
        match goal {
            Goal::On { object, support } => Self::Pick(Pick::new(goal, object, support)),
            Goal::Within { object, zone } => Self::Push(Push::new(goal, object, zone)),
            Goal::Open { drawer } => Self::Pull(Pull::new(goal, drawer)),
        }
    }

    /// The next action, or none when the goal is reached.
    fn act(&mut self, env: &Env) -> Option<[f64; ACTIONS]> {
        match self {
            Self::Pick(pick) => pick.act(env),
            Self::Pull(pull) => pull.act(env),
            Self::Push(push) => push.act(env),
        }
    }
}
