use skillweld_robot_sim::Pose;

use super::grasp::{grasp, release};
use super::grip::{DESCENT_M, HEIGHT_M, Leave, PATIENCE, Progress, Seize};
use super::motion::{arc, at, at_height, line, over, over_all_m};
use crate::controller::ACTIONS;
use crate::env::Env;
use crate::goal::Goal;

/// Puts a thing onto another.
#[derive(Debug, Clone)]
pub(super) struct Pick {
    goal: Goal,
    object: &'static str,
    support: &'static str,
    phase: Phase,
    /// Steps in this phase.
    steps: u32,
}

#[derive(Debug, Clone)]
enum Phase {
    Begin,
    Seize(Seize),
    /// Straight up to a pose.
    Lift(Pose),
    /// At the height of the lift to above where the tool lets go.
    Carry(Pose, f64),
    Lower(Pose),
    Leave(Leave),
}

impl Pick {
    pub(super) fn new(goal: Goal, object: &'static str, support: &'static str) -> Self {
        Self { goal, object, support, phase: Phase::Begin, steps: 0 }
    }

    pub(super) fn act(&mut self, env: &Env) -> Option<[f64; ACTIONS]> {
        let world = env.world();
        let (object, support) = (world.index(self.object).ok()?, world.index(self.support).ok()?);
        let holds = world.held() == Some(object);
        loop {
            self.steps += 1;
            let late = self.steps > PATIENCE;
            let next = match &mut self.phase {
                Phase::Begin => Phase::Seize(Seize::new(grasp(world, object))),
                Phase::Seize(seize) => match seize.act(env, object) {
                    Progress::Act(action) => return Some(action),
                    Progress::Failed => Phase::Leave(Leave::default()),
                    Progress::Done => {
                        let tool = world.tool();
                        let below_m = tool.position.z - world.bodies()[object].bottom_m();
                        Phase::Lift(at_height(tool, over_all_m(env, Some(object), below_m)))
                    }
                },
                // What was lost is looked for again.
                Phase::Lift(_) | Phase::Carry(..) | Phase::Lower(_) if !holds => {
                    Phase::Leave(Leave::default())
                }
                Phase::Lift(above) => {
                    if world.tool().position.z < above.position.z - HEIGHT_M && !late {
                        return Some(line(env, *above, DESCENT_M, true));
                    }
                    Phase::Carry(release(env, object, support), above.position.z)
                }
                Phase::Carry(tool, height_m) => {
                    if !over(env, *tool, 0.006, 0.4) && !late {
                        return Some(arc(env, at_height(*tool, height_m.max(tool.position.z)), true));
                    }
                    Phase::Lower(*tool)
                }
                Phase::Lower(tool) => {
                    if !at(env, *tool, 0.0025, 0.04) && self.steps < PATIENCE / 2 {
                        return Some(line(env, *tool, DESCENT_M, true));
                    }
                    Phase::Leave(Leave::default())
                }
                Phase::Leave(leave) => match leave.act(env) {
                    Some(action) => return Some(action),
                    None if self.goal.holds(env) => return None,
                    // What has missed is done again.
                    None => Phase::Begin,
                },
            };
            (self.phase, self.steps) = (next, 0);
        }
    }
}
