//! Taking hold of something and letting go of it: what picking and pulling have in common.

use skillweld_robot_sim::Pose;

use super::grasp::is_open;
use super::motion::{Funnel, arrived, at_height, line, over_all_m, wait};
use crate::controller::ACTIONS;
use crate::env::Env;

/// Steps after which a motion has gone wrong.
pub(super) const PATIENCE: u32 = 40;
/// The same for closing and opening, which a few steps do.
const CLOSING: u32 = 12;
/// So long the fingers go on closing on what they hold: a policy that learns from it and is a little early then holds it, too.
const FIRM: u32 = 2;
/// Up and away from things, in a step.
const RETREAT_M: f64 = 0.02;
/// Near enough to a height.
pub(super) const HEIGHT_M: f64 = 0.006;

/// How it goes on.
pub(super) enum Progress {
    /// With this action.
    Act([f64; ACTIONS]),
    /// It is done.
    Done,
    /// It has not worked out.
    Failed,
}

/// To above a thing, down around it, and close.
#[derive(Debug, Clone)]
pub(super) struct Seize {
    tool: Pose,
    phase: Phase,
    steps: u32,
    /// For which it has been held.
    held_steps: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Reach,
    Close,
}

impl Seize {
    /// The tool's pose when the fingers close.
    pub(super) fn new(tool: Pose) -> Self {
        Self { tool, phase: Phase::Reach, steps: 0, held_steps: 0 }
    }

    pub(super) fn act(&mut self, env: &Env, object: usize) -> Progress {
        let (world, tool) = (env.world(), self.tool);
        self.steps += 1;
        if self.phase == Phase::Reach {
            // Somebody else has taken it.
            if world.held() == Some(object) {
                return Progress::Done;
            }
            if self.steps > 2 * PATIENCE {
                return Progress::Failed;
            }
            if !(arrived(env, tool) && is_open(world)) {
                let over_m = over_all_m(env, None, world.arm().gripper.tip_m);
                return Progress::Act(Funnel { target: tool, over_m }.action(env, false));
            }
            (self.phase, self.steps) = (Phase::Close, 1);
        }
        let held = world.held() == Some(object);
        self.held_steps += u32::from(held);
        match held {
            true if self.held_steps > FIRM => Progress::Done,
            false if self.steps > CLOSING => Progress::Failed,
            _ => Progress::Act(wait(true)),
        }
    }
}

/// Open, and straight up.
#[derive(Debug, Clone)]
pub(super) struct Leave {
    /// Whether fingers open wide before they go up, or while they do.
    wide: bool,
    released: bool,
    steps: u32,
}

impl Leave {
    /// What has been put down: fingers that go up too soon take it along.
    pub(super) fn thing() -> Self {
        Self { wide: true, released: false, steps: 0 }
    }

    /// What cannot come along. A hand that stands still with open fingers is what a policy that learns from it gets stuck in.
    pub(super) fn handle() -> Self {
        Self { wide: false, ..Self::thing() }
    }

    /// The next action; none when the gripper is above everything.
    pub(super) fn act(&mut self, env: &Env) -> Option<[f64; ACTIONS]> {
        let world = env.world();
        self.steps += 1;
        if !self.released {
            if (world.held().is_some() || self.wide && !is_open(world)) && self.steps <= CLOSING {
                return Some(wait(false));
            }
            (self.released, self.steps) = (true, 1);
        }
        let height_m = over_all_m(env, None, world.arm().gripper.tip_m);
        if world.tool().position.z < height_m - HEIGHT_M && self.steps <= PATIENCE {
            return Some(line(env, at_height(world.tool(), height_m), RETREAT_M, false));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use skillweld_robot_sim::{Motion, Vec3, vec3};

    use super::super::grasp::grasp;
    use super::super::pull::around_handle;
    use super::*;
    use crate::{EnvOptions, Goal, Suite};

    /// Whether fingers that come down `off_m` beside where they should, and turned by `turn_rad`, get hold of it.
    fn seizes(goal: &Goal, env: &mut Env, off_m: Vec3, turn_rad: f64) -> bool {
        let world = env.world();
        let object = world.index(goal.object()).expect("a body");
        let body = &world.bodies()[object];
        let tool = match body.motion {
            Motion::Slides { axis, .. } => around_handle(world, body, axis).expect("a handle"),
            _ => grasp(world, object),
        };
        let position = tool.position + tool.rotation.rotate(off_m);
        let mut seize = Seize::new(Pose { position, ..tool }.turned(Vec3::X, turn_rad));
        loop {
            match seize.act(env, object) {
                Progress::Act(action) => drop(env.step(&action).expect("finite numbers")),
                Progress::Done => return true,
                Progress::Failed => return false,
            }
        }
    }

    /// What a policy learns from here it does a little wrongly: six millimetres to any side and a tenth of a radian are forgiven.
    #[test]
    fn fingers_that_come_down_a_little_off_get_hold_all_the_same() {
        let (mut tries, mut failed) = (0, Vec::new());
        for task in Suite::ALL.iter().flat_map(|suite| suite.tasks()) {
            let Some(goal) = task.goals.iter().find(|goal| !matches!(goal, Goal::Within { .. })) else {
                continue;
            };
            for index in 0..4 {
                for (y, z, turn_rad) in
                    [(0.006, 0.0, 0.0), (-0.006, 0.0, 0.0), (0.0, 0.006, 0.1), (0.0, -0.006, -0.1)]
                {
                    let options = EnvOptions { index, ..EnvOptions::default() };
                    let mut env = Env::new(task, &options).expect("a layout");
                    tries += 1;
                    if !seizes(goal, &mut env, vec3(0.0, y, z), turn_rad) {
                        failed.push((task.id, index, y, z));
                    }
                }
            }
        }
        // Among things that stand close together there is not always that much room.
        assert!(failed.len() * 50 <= tries, "{} of {tries}: {failed:?}", failed.len());
    }
}
