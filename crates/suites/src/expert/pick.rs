use super::grasp::{grasp, release};
use super::grip::{Leave, PATIENCE, Progress, Seize};
use super::motion::{Funnel, arrived, over_all_m};
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
    /// Up, and down to where the tool lets go.
    Carry(Funnel),
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
            let next = match &mut self.phase {
                Phase::Begin if self.goal.holds(env) => return None,
                Phase::Begin => Phase::Seize(Seize::new(grasp(world, object))),
                Phase::Seize(seize) => match seize.act(env, object) {
                    Progress::Act(action) => return Some(action),
                    Progress::Failed => Phase::Leave(Leave::thing()),
                    Progress::Done => {
                        let below_m = world.tool().position.z - world.bodies()[object].bottom_m();
                        let over_m = over_all_m(env, Some(object), below_m);
                        Phase::Carry(Funnel { target: release(env, object, support), over_m })
                    }
                },
                // What was lost is looked for again.
                Phase::Carry(_) if !holds => Phase::Leave(Leave::thing()),
                Phase::Carry(funnel) => {
                    if !arrived(env, funnel.target) && self.steps < 2 * PATIENCE {
                        return Some(funnel.action(env, true));
                    }
                    Phase::Leave(Leave::thing())
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
