use skillweld_robot_sim::Pose;

use super::grasp::grasp;
use super::grip::{HEIGHT_M, Leave, PATIENCE, Progress, Seize};
use super::motion::{at_height, line, over_all_m, wait};
use crate::controller::{ACTIONS, POSITION_SCALE_M};
use crate::env::Env;

/// Takes hold of a thing, and holds it above all others from then on.
#[derive(Debug, Clone)]
pub(super) struct Lift {
    object: &'static str,
    phase: Phase,
    /// Steps in this phase.
    steps: u32,
}

#[derive(Debug, Clone)]
enum Phase {
    Begin,
    Seize(Seize),
    /// Straight up to a pose, and there.
    Up(Pose),
    Leave(Leave),
}

impl Lift {
    pub(super) fn new(object: &'static str) -> Self {
        Self { object, phase: Phase::Begin, steps: 0 }
    }

    /// The next action; there always is one.
    pub(super) fn act(&mut self, env: &Env) -> Option<[f64; ACTIONS]> {
        let world = env.world();
        let object = world.index(self.object).ok()?;
        loop {
            self.steps += 1;
            let next = match &mut self.phase {
                Phase::Begin => Phase::Seize(Seize::new(grasp(world, object))),
                Phase::Seize(seize) => match seize.act(env, object) {
                    Progress::Act(action) => return Some(action),
                    Progress::Failed => Phase::Leave(Leave::default()),
                    Progress::Done => {
                        let tool = world.tool();
                        let below_m = tool.position.z - world.bodies()[object].bottom_m();
                        Phase::Up(at_height(tool, over_all_m(env, Some(object), below_m)))
                    }
                },
                Phase::Up(_) if world.held() != Some(object) => Phase::Leave(Leave::default()),
                Phase::Up(above) => {
                    let there = world.tool().position.z >= above.position.z - HEIGHT_M;
                    let wait = wait(true);
                    return Some(if there || self.steps > PATIENCE {
                        wait
                    } else {
                        line(env, *above, POSITION_SCALE_M, true)
                    });
                }
                Phase::Leave(leave) => match leave.act(env) {
                    Some(action) => return Some(action),
                    None => Phase::Begin,
                },
            };
            (self.phase, self.steps) = (next, 0);
        }
    }
}
