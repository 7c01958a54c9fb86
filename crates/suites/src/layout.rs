//! Where things are: rejection sampling over the part of the table that every arm reaches.

use skillweld_robot_sim::{Body, Mark, Random, Vec3, vec3};

use crate::error::SuiteError;
use crate::suite::Suite;

/// From the arm's origin forward to the pan axis, about which places are polar: the same for all arms.
pub(crate) const PAN_M: f64 = 0.0388;
/// Room that a thing to be gripped needs around its middle: half of it and half of the open fingers.
pub(crate) const GRASP_ROOM_M: f64 = 0.038;
/// The same where hands that do not turn would otherwise touch what stands beside.
pub(crate) const UNTURNED_ROOM_M: f64 = 0.040;

const ATTEMPTS: usize = 20_000;
const TRIES: usize = 30;

/// A place on the table: x and y in metres.
pub(crate) type Place = [f64; 2];

/// All things of a scene.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    pub(crate) bodies: Vec<Body>,
    /// Bodies on which others can be put.
    pub(crate) supports: Vec<Support>,
    /// Painted places into which things can be pushed, or on which they lie.
    pub(crate) zones: Vec<Zone>,
    /// Discs in which nothing else may stand: place and radius in metres.
    pub(crate) taken: Vec<(Place, f64)>,
}

/// Where on a body others are put.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Support {
    pub(crate) name: &'static str,
    /// Points on its surface, in its own frame.
    pub(crate) spots: Vec<Vec3>,
    /// Half the size of the area around its spots' middle in which a thing's middle counts as on it, along its x and y.
    pub(crate) half_m: [f64; 2],
}

/// A painted place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    pub(crate) mark: Mark,
}

/// A part of the table in polar coordinates about the pan axis; angles grow to the right in the front picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sector {
    pub(crate) radius_m: [f64; 2],
    pub(crate) angle_rad: [f64; 2],
}

impl Sector {
    /// All of what the arms reach from above, between two angles.
    pub(crate) const fn between(from_rad: f64, to_rad: f64) -> Self {
        Self { radius_m: [0.130, 0.240], angle_rad: [from_rad, to_rad] }
    }

    /// Uniform over the area.
    pub(crate) fn sample(&self, random: &mut Random) -> Place {
        let [near, far] = self.radius_m;
        let radius = random.uniform(near * near, far * far).sqrt();
        polar(radius, random.uniform(self.angle_rad[0], self.angle_rad[1]))
    }
}

/// Distance and angle about the pan axis as a place.
pub(crate) fn polar(radius_m: f64, angle_rad: f64) -> Place {
    [PAN_M + radius_m * angle_rad.cos(), radius_m * angle_rad.sin()]
}

pub(crate) fn distance_m(a: Place, b: Place) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Finds free places.
pub(crate) struct Places<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) taken: Vec<(Place, f64)>,
}

impl<'a> Places<'a> {
    pub(crate) fn new(random: &'a mut Random) -> Self {
        Self { random, taken: Vec::new() }
    }

    /// Whether a disc touches none that is taken.
    pub(crate) fn is_free(&self, place: Place, room_m: f64) -> bool {
        self.taken.iter().all(|(other, other_m)| distance_m(place, *other) >= room_m + other_m)
    }

    /// Takes a free disc with its middle in the sector.
    pub(crate) fn find(&mut self, sector: Sector, room_m: f64) -> Option<Place> {
        for _ in 0..TRIES {
            let place = sector.sample(self.random);
            if self.is_free(place, room_m) {
                self.taken.push((place, room_m));
                return Some(place);
            }
        }
        None
    }

    /// How a thing with corners is turned: nearly straight, as people put things down.
    pub(crate) fn askew_rad(&mut self) -> f64 {
        self.random.uniform(-ASKEW_RAD, ASKEW_RAD)
    }
}

/// At most: no policy has learned to see larger turns in small pictures, and fingers close on smaller ones all the same.
const ASKEW_RAD: f64 = 0.1;

impl Layout {
    /// The layout of a suite for a seed: the first attempt that finds room for everything.
    pub(crate) fn of(suite: Suite, seed: u64) -> Result<Self, SuiteError> {
        // SplitMix's streams for neighbouring seeds have nothing in common; suites are 2^40 seeds apart.
        let mut random = Random::new(seed.wrapping_add((suite as u64 + 1) << 40));
        (0..ATTEMPTS)
            .find_map(|_| suite.attempt(&mut random))
            .ok_or(SuiteError::Layout { suite: suite.name(), seed })
    }

    /// Turns everything about the pan axis.
    pub(crate) fn turn(&mut self, angle_rad: f64) {
        let (sin, cos) = angle_rad.sin_cos();
        let turned = |[x, y]: Place| {
            let forward = x - PAN_M;
            [PAN_M + cos * forward - sin * y, sin * forward + cos * y]
        };
        for body in &mut self.bodies {
            *body = crate::things::turned(body, angle_rad, turned);
        }
        for zone in &mut self.zones {
            zone.mark.centre_m = turned(zone.mark.centre_m);
            zone.mark.yaw_rad += angle_rad;
        }
        for (place, _) in &mut self.taken {
            *place = turned(*place);
        }
    }
}

/// A point at a height above a place.
pub(crate) fn above(place: Place, height_m: f64) -> Vec3 {
    vec3(place[0], place[1], height_m)
}
