use skillweld_robot_sim::{Body, Motion, Pose, Shape, Vec3, World};

use super::grasp::{ASIDE_M, at_place};
use super::grip::{Leave, PATIENCE, Progress, Seize};
use super::motion::{line, wait};
use crate::controller::ACTIONS;
use crate::env::Env;
use crate::goal::{Goal, OPEN_SHARE};

/// In a step: a handle that is pulled faster than the arm turns slips out of the fingers.
const PULL_M: f64 = 0.010;
/// So near its end a drawer is open.
const END_M: f64 = 0.002;

/// Opens a drawer by its handle, which is its last part.
#[derive(Debug, Clone)]
pub(super) struct Pull {
    goal: Goal,
    drawer: &'static str,
    phase: Phase,
    /// Steps in this phase.
    steps: u32,
}

#[derive(Debug, Clone)]
enum Phase {
    Begin,
    Seize(Seize),
    /// To where the drawer is out.
    Draw(Pose),
    Leave(Leave),
}

impl Pull {
    pub(super) fn new(goal: Goal, drawer: &'static str) -> Self {
        Self { goal, drawer, phase: Phase::Begin, steps: 0 }
    }

    pub(super) fn act(&mut self, env: &Env) -> Option<[f64; ACTIONS]> {
        let world = env.world();
        let drawer = world.index(self.drawer).ok()?;
        let body = &world.bodies()[drawer];
        let Motion::Slides { axis, travel_m } = body.motion else { return None };
        let left_m = travel_m - body.slide_m();
        loop {
            self.steps += 1;
            let next = match &mut self.phase {
                Phase::Begin if self.goal.holds(env) => return None,
                // Out, but with fingers around it.
                Phase::Begin if body.slide_m() >= OPEN_SHARE * travel_m => Phase::Leave(Leave::handle()),
                Phase::Begin => Phase::Seize(Seize::new(around_handle(world, body, axis)?)),
                Phase::Seize(seize) => match seize.act(env, drawer) {
                    Progress::Act(action) => return Some(action),
                    Progress::Failed => Phase::Leave(Leave::handle()),
                    Progress::Done => {
                        let tool = world.tool();
                        Phase::Draw(Pose { position: tool.position + axis * left_m, ..tool })
                    }
                },
                Phase::Draw(tool) => {
                    let holds = world.held() == Some(drawer);
                    if holds && left_m > END_M && self.steps <= PATIENCE {
                        return Some(line(env, *tool, PULL_M, true));
                    }
                    Phase::Leave(Leave::handle())
                }
                Phase::Leave(leave) => match leave.act(env) {
                    Some(action) => return Some(action),
                    None if self.goal.holds(env) => return None,
                    // It may still slide.
                    None if body.slide_m() >= OPEN_SHARE * travel_m => return Some(wait(false)),
                    None => Phase::Begin,
                },
            };
            (self.phase, self.steps) = (next, 0);
        }
    }
}

/// Where the fingers come down around a drawer's handle, across the way `axis` that it slides.
pub(super) fn around_handle(world: &World, drawer: &Body, axis: Vec3) -> Option<Pose> {
    let handle = drawer.parts.last()?;
    let width_m = match handle.shape {
        Shape::Box { half_m } => 2.0 * half_m.y,
        Shape::Cylinder { radius_m, .. } => 2.0 * radius_m,
    };
    let place = (drawer.pose() * handle.pose).position;
    let across = Vec3::Z.cross(axis);
    Some(at_place(world, place, across.y.atan2(across.x), width_m + 2.0 * ASIDE_M))
}
