use skillweld_robot_sim::{Pose, Vec3, vec3};

use super::grasp::{LOWEST_M, at_place};
use super::grip::{HEIGHT_M, PATIENCE};
use super::motion::{Funnel, arrived, at_height, line, over_all_m};
use crate::controller::{ACTIONS, POSITION_SCALE_M};
use crate::env::Env;
use crate::goal::Goal;

/// Forward in a step.
const STROKE_M: f64 = 0.008;
/// Half of both closed fingers, along the push.
const FINGERS_M: f64 = 0.009;
/// The fingers come down so far behind the thing.
const RUN_UP_M: f64 = 0.014;
/// Near enough to the zone's middle.
const ARRIVED_M: f64 = 0.005;
/// Further beside the line than this the fingers do not push.
const ASIDE_M: f64 = 0.006;
/// So near the direction is kept.
const FINAL_M: f64 = 0.015;

/// Pushes a round thing over the table with closed fingers, into a zone.
#[derive(Debug, Clone)]
pub(super) struct Push {
    goal: Goal,
    object: &'static str,
    zone: &'static str,
    phase: Phase,
    steps: u32,
    /// Unit, from the thing to the zone.
    direction: Vec3,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Begin,
    Reach(Pose),
    Stroke,
    Retreat,
}

impl Push {
    pub(super) fn new(goal: Goal, object: &'static str, zone: &'static str) -> Self {
        Self { goal, object, zone, phase: Phase::Begin, steps: 0, direction: Vec3::X }
    }

    pub(super) fn act(&mut self, env: &Env) -> Option<[f64; ACTIONS]> {
        let world = env.world();
        let body = &world.bodies()[world.index(self.object).ok()?];
        let [x, y] = env.zone(self.zone)?.mark.centre_m;
        let here = body.pose().position;
        let way = vec3(x - here.x, y - here.y, 0.0);
        if way.length() > FINAL_M {
            self.direction = way.unit()?;
        }
        let radius_m = body.parts[0].shape.half_m().x;
        // Where the fingers' middle is when they touch the thing, seen from its middle.
        let direction = self.direction;
        let behind = |gap_m: f64| {
            let middle = here - direction * (radius_m + FINGERS_M + gap_m);
            // Closed they are about as deep as wide: they stay turned as they are at the beginning, closing forward.
            at_place(world, vec3(middle.x, middle.y, LOWEST_M), 0.0, 0.0)
        };
        let height_m = over_all_m(env, None, world.arm().gripper.tip_m);
        loop {
            self.steps += 1;
            let late = self.steps > PATIENCE;
            let next = match self.phase {
                Phase::Begin if self.goal.holds(env) => return None,
                Phase::Begin => Phase::Reach(behind(RUN_UP_M)),
                Phase::Reach(tool) => {
                    if !arrived(env, tool) && self.steps <= 2 * PATIENCE {
                        return Some(Funnel { target: tool, over_m: height_m }.action(env, true));
                    }
                    Phase::Stroke
                }
                Phase::Stroke => {
                    let left_m = way.dot(direction);
                    if left_m >= ARRIVED_M && !late {
                        // Sideways at once, forward by as much as the fingers are behind the thing.
                        let touching = behind(0.0);
                        let off = touching.position - world.tool().position;
                        let gap_m = off.dot(direction);
                        let aside = vec3(off.x, off.y, 0.0) - direction * gap_m;
                        let straight = (1.0 - aside.length() / ASIDE_M).max(0.0);
                        let forward_m = (gap_m + left_m).min(STROKE_M) * straight;
                        let step = aside + direction * forward_m + Vec3::Z * off.z;
                        let tool = Pose { position: world.tool().position + step, ..touching };
                        return Some(line(env, tool, POSITION_SCALE_M, true));
                    }
                    Phase::Retreat
                }
                Phase::Retreat => {
                    if world.tool().position.z < height_m - HEIGHT_M && !late {
                        return Some(line(env, at_height(world.tool(), height_m), POSITION_SCALE_M, true));
                    }
                    if self.goal.holds(env) {
                        return None;
                    }
                    Phase::Begin
                }
            };
            (self.phase, self.steps) = (next, 0);
        }
    }
}
