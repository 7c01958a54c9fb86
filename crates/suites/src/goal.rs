use skillweld_robot_sim::Solid;

use crate::env::Env;

/// An episode is solved when all goals have held for so many control steps in a row.
pub const HOLD_STEPS: u32 = 5;

/// A thing that moves less than this in a control step is at rest, in metres.
const REST_M: f64 = 5e-4;
/// A drawer is open when it is out by this share of its way.
pub(crate) const OPEN_SHARE: f64 = 0.75;

/// What must be so. Whatever the goal, the gripper has let go and the thing is at rest. Names are of bodies and zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The object stands on, or in, the support, with its middle over it.
    On {
        /// What is moved.
        object: &'static str,
        /// What carries it.
        support: &'static str,
    },
    /// The object stands on the table with its middle in the painted zone.
    Within {
        /// What is moved.
        object: &'static str,
        /// The zone's name.
        zone: &'static str,
    },
    /// The drawer is out by three quarters of its way.
    Open {
        /// What slides.
        drawer: &'static str,
    },
}

impl Goal {
    /// The thing that is to be moved.
    pub const fn object(&self) -> &'static str {
        match self {
            Self::On { object, .. } | Self::Within { object, .. } => object,
            Self::Open { drawer } => drawer,
        }
    }

    /// Whether it is so now.
    pub(crate) fn holds(&self, env: &Env) -> bool {
        let world = env.world();
        let Ok(object) = world.index(self.object()) else { return false };
        if world.held() == Some(object) || env.moved_m(object) > REST_M {
            return false;
        }
        let body = &world.bodies()[object];
        let middle = body.pose().position;
        match self {
            Self::On { support, .. } => {
                let Ok(below) = world.index(support) else { return false };
                let inside = env.support(support).is_some_and(|s| {
                    let spots = 1.0 / s.spots.len() as f64;
                    let local = world.bodies()[below].pose().inverse().apply(middle);
                    let (x, y) = s
                        .spots
                        .iter()
                        .fold((0.0, 0.0), |(x, y), spot| (x + spots * spot.x, y + spots * spot.y));
                    (local.x - x).abs() <= s.half_m[0] && (local.y - y).abs() <= s.half_m[1]
                });
                inside && world.rests_on(object) == Some(below)
            }
            Self::Within { zone, .. } => {
                let on_table = world.rests_on(object) == Some(skillweld_robot_sim::TABLE);
                on_table && env.zone(zone).is_some_and(|z| z.mark.contains([middle.x, middle.y]))
            }
            Self::Open { .. } => {
                let skillweld_robot_sim::Motion::Slides { travel_m, .. } = body.motion else { return false };
                body.slide_m() >= OPEN_SHARE * travel_m && fingers_are_off(env, object)
            }
        }
    }
}

/// Whether neither finger is around the thing: a gripper may have let go of a handle only to be stopped by it.
fn fingers_are_off(env: &Env, object: usize) -> bool {
    let world = env.world();
    let tips = world.arm().solids(world.frames());
    let apart = |finger: &Solid| {
        world.bodies()[object].solids().iter().all(|s| skillweld_robot_sim::separation_m(s, finger) > 1e-3)
    };
    tips.iter().take(2).all(apart)
}
