//! Episodes unlike those of training, one thing at a time: the seven kinds of LIBERO-Plus in three strengths.

use skillweld_robot_sim::{Mount, Random, Surface, Vec3, vec3};

use crate::error::SuiteError;
use crate::layout::{Sector, distance_m};
use crate::setup::Setup;
use crate::task::Task;
use crate::things;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PerturbationKind {
    /// Where the cameras stand, and how wide they see.
    Camera,
    /// Table top, sky and floor.
    Background,
    /// Direction, strength and tint of the light.
    Light,
    /// The whole layout is turned about the arm, and things lie about that no instruction speaks of.
    Layout,
    /// Where the arm begins.
    RobotState,
    /// Grain in the pictures.
    Noise,
    /// The instruction in other words.
    Language,
}

impl PerturbationKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Camera,
        Self::Background,
        Self::Light,
        Self::Layout,
        Self::RobotState,
        Self::Noise,
        Self::Language,
    ];

    /// In lower case, for file names and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Background => "background",
            Self::Light => "light",
            Self::Layout => "layout",
            Self::RobotState => "robot_state",
            Self::Noise => "noise",
            Self::Language => "language",
        }
    }
}

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// A third.
    Mild,
    /// Two thirds.
    Medium,
    /// All.
    Strong,
}

impl Strength {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mild, Self::Medium, Self::Strong];

    /// In lower case, for file names and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mild => "mild",
            Self::Medium => "medium",
            Self::Strong => "strong",
        }
    }

    fn share(self) -> f64 {
        (self as usize + 1) as f64 / 3.0
    }
}

/// One change to an episode, a function of these three and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Perturbation {
    /// What is changed.
    pub kind: PerturbationKind,
    /// How much.
    pub strength: Strength,
    /// Which way.
    pub seed: u64,
}

impl Perturbation {
    pub(crate) fn apply(&self, task: &Task, setup: &mut Setup) -> Result<(), SuiteError> {
        let tag = self.kind as u64 * 3 + self.strength as u64;
        let mut change = Change {
            random: Random::new(self.seed.wrapping_add((tag + 1) << 56)),
            share: self.strength.share(),
        };
        match self.kind {
            PerturbationKind::Camera => change.camera(setup),
            PerturbationKind::Background => change.background(setup),
            PerturbationKind::Light => change.light(setup),
            PerturbationKind::Layout => change.layout(setup, self.strength as usize + 1),
            PerturbationKind::RobotState => change.robot_state(setup)?,
            PerturbationKind::Noise => {
                (setup.scene.noise, setup.scene.noise_seed) = (24.0 * change.share, self.seed);
            }
            PerturbationKind::Language => {
                let call = ["", "please ", "now ", "robot, "][(change.random.bits() % 4) as usize];
                setup.instruction = format!("{call}{}", task.rephrased[self.strength as usize]);
            }
        }
        Ok(())
    }
}

/// Other light, other colours of table, sky and floor, by a random share: for scenes that are of no suite.
pub(crate) fn repaint(random: &mut Random, setup: &mut Setup) {
    let share = random.uniform(0.0, 1.0);
    let mut change = Change { random: Random::new(random.bits()), share };
    change.background(setup);
    change.light(setup);
}

struct Change {
    random: Random,
    share: f64,
}

impl Change {
    /// To either side, by half of `most` to all of it at full strength.
    fn aside(&mut self, most: f64) -> f64 {
        let side = if self.random.uniform(0.0, 1.0) < 0.5 { -1.0 } else { 1.0 };
        side * self.random.uniform(0.5, 1.0) * most * self.share
    }

    fn aside3(&mut self, most: f64) -> Vec3 {
        vec3(self.aside(most), self.aside(most), self.aside(most))
    }

    /// Towards a random colour.
    fn color(&mut self, [r, g, b]: [u8; 3]) -> [u8; 3] {
        [r, g, b].map(|value| {
            let other = self.random.uniform(20.0, 240.0);
            (f64::from(value) + self.share * (other - f64::from(value))).round() as u8
        })
    }

    fn camera(&mut self, setup: &mut Setup) {
        for camera in &mut setup.scene.cameras {
            if camera.mount == Mount::Gripper {
                camera.eye += self.aside3(0.008);
                camera.target += self.aside3(0.006);
                continue;
            }
            // Around what it looks at, by longitude, latitude and distance.
            let away = camera.eye - camera.target;
            let (longitude, latitude) =
                (away.y.atan2(away.x) + self.aside(0.28), away.z.atan2(away.length_xy()) + self.aside(0.15));
            let distance = away.length() * (1.0 + self.aside(0.15));
            let level = latitude.cos();
            let direction = vec3(level * longitude.cos(), level * longitude.sin(), latitude.sin());
            camera.eye = camera.target + direction * distance;
            camera.target += self.aside3(0.02);
            camera.fov_y_rad *= 1.0 + self.aside(0.08);
        }
    }

    fn background(&mut self, setup: &mut Setup) {
        let scene = &mut setup.scene;
        let colors = match scene.table.surface {
            Surface::Plain { color } => [color; 2],
            Surface::Checker { colors, .. } | Surface::Wood { colors, .. } => colors,
        };
        let colors = colors.map(|color| self.color(color));
        let size_m = self.random.uniform(0.04, 0.12);
        let other = match (self.random.bits() % 3, self.share < 1.0) {
            (_, true) => None,
            (0, _) => Some(Surface::Plain { color: colors[0] }),
            (1, _) => Some(Surface::Checker { colors, size_m }),
            _ => Some(Surface::Wood { colors, size_m }),
        };
        // Only the strongest changes the pattern.
        match (&mut scene.table.surface, other) {
            (surface, Some(other)) => *surface = other,
            (Surface::Plain { color }, None) => *color = colors[0],
            (Surface::Checker { colors: old, .. } | Surface::Wood { colors: old, .. }, None) => *old = colors,
        }
        let sky = &mut scene.background;
        for color in [&mut sky.top, &mut sky.horizon, &mut sky.floor] {
            *color = self.color(*color);
        }
    }

    fn light(&mut self, setup: &mut Setup) {
        let light = &mut setup.scene.light;
        let level = light.direction.length_xy() + self.aside(0.3).abs();
        let angle = light.direction.y.atan2(light.direction.x) + self.aside(2.0);
        light.direction = vec3(level * angle.cos(), level * angle.sin(), light.direction.z);
        let brightness = 1.0 + self.aside(0.5);
        for value in &mut light.intensity {
            *value *= brightness * (1.0 + self.aside(0.2));
        }
        light.ambient *= 1.0 + self.aside(0.4);
    }

    fn layout(&mut self, setup: &mut Setup, distractors: usize) {
        let layout = &mut setup.layout;
        layout.turn(self.aside(0.10));
        let sector = Sector { radius_m: [0.110, 0.310], angle_rad: [-1.15, 1.15] };
        for number in 0..distractors {
            let color = [[242, 130, 176], [120, 124, 130], [40, 168, 168], [150, 92, 190]][(number + 1) % 4];
            let Some(place) = (0..400).map(|_| sector.sample(&mut self.random)).find(|place| {
                layout.taken.iter().all(|(other, room_m)| distance_m(*place, *other) > room_m + 0.026)
            }) else {
                continue;
            };
            layout.taken.push((place, 0.026));
            let name = format!("distractor_{number}");
            let yaw_rad = self.random.uniform(-0.8, 0.8);
            layout.bodies.push(if self.random.uniform(0.0, 1.0) < 0.5 {
                things::disc(&name, 0.014, 0.030, place, color)
            } else {
                things::brick(&name, vec3(0.026, 0.030, 0.028), place, yaw_rad, color)
            });
        }
    }

    fn robot_state(&mut self, setup: &mut Setup) -> Result<(), SuiteError> {
        let begin = setup.joints;
        // Where the fingers would begin among the things, another way is tried.
        for _ in 0..100 {
            let mut joints = begin;
            for joint in joints.iter_mut().take(5) {
                *joint += self.aside(0.3);
            }
            joints = setup.arm.clamped(joints);
            let tool = setup.arm.frames(&joints).tool();
            if tool.position.z > 0.085 && tool.position.z < 0.200 {
                setup.joints = joints;
                return Ok(());
            }
        }
        Err(SuiteError::Start { arm: setup.arm.name.clone() })
    }
}
