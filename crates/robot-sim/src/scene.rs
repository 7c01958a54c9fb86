//! How a world looks, as plain data: table, light, background, cameras, noise.

use crate::arm::WRIST_CAMERA;
use crate::error::SimError;
use crate::geometry::{Vec3, vec3};

/// All that decides what the cameras see besides arm and bodies.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// What stands under everything.
    pub table: Table,
    /// The sun of this world.
    pub light: Light,
    /// What is behind everything.
    pub background: Background,
    /// The cameras, in the order of their images.
    pub cameras: Vec<Camera>,
    /// Standard deviation of the noise on each number of an image, in steps of 1/255.
    pub noise: f64,
    /// Which noise: with the step count it decides every grain.
    pub noise_seed: u64,
    /// Pixels are computed `samples × samples` times and averaged: 1 is fast, 2 has smooth edges. 1 … 4.
    pub samples: usize,
}

/// The table: its top is at height zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Middle of the top, in metres: x, y.
    pub centre_m: [f64; 2],
    /// Its size along x and y in metres.
    pub size_m: [f64; 2],
    /// What the top looks like.
    pub surface: Surface,
    /// Painted on the top: nothing to touch. Later ones lie over earlier ones.
    pub marks: Vec<Mark>,
}

/// A rectangle painted on the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    /// Its middle in metres: x, y.
    pub centre_m: [f64; 2],
    /// Half the lengths of its sides in metres.
    pub half_m: [f64; 2],
    /// How far it is turned from the world's axes.
    pub yaw_rad: f64,
    /// sRGB.
    pub color: [u8; 3],
}

impl Mark {
    /// Whether a point of the plane, x and y in metres, lies in it.
    pub fn contains(&self, [x, y]: [f64; 2]) -> bool {
        let (dx, dy, reach) = (x - self.centre_m[0], y - self.centre_m[1], self.half_m[0] + self.half_m[1]);
        if dx.abs() > reach || dy.abs() > reach {
            return false;
        }
        let (sin, cos) = self.yaw_rad.sin_cos();
        (cos * dx + sin * dy).abs() <= self.half_m[0] && (cos * dy - sin * dx).abs() <= self.half_m[1]
    }
}

/// Pattern of the table top, in sRGB colours.
#[derive(Debug, Clone, PartialEq)]
pub enum Surface {
    /// One colour.
    Plain {
        /// The colour.
        color: [u8; 3],
    },
    /// Squares of two colours.
    Checker {
        /// Both colours.
        colors: [[u8; 3]; 2],
        /// Edge of a square in metres.
        size_m: f64,
    },
    /// Boards along y with a grain between two colours.
    Wood {
        /// Light and dark.
        colors: [[u8; 3]; 2],
        /// Width of a board in metres.
        size_m: f64,
    },
}

/// Light from far away, and the light that comes from everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Light {
    /// Towards the light; any length but zero.
    pub direction: Vec3,
    /// Factor on each of red, green and blue of the directed light; 1 is normal.
    pub intensity: [f64; 3],
    /// The same for the light from everywhere; 0.4 is normal.
    pub ambient: f64,
}

/// A sky: colours in sRGB.
#[derive(Debug, Clone, PartialEq)]
pub struct Background {
    /// Straight up.
    pub top: [u8; 3],
    /// At eye level.
    pub horizon: [u8; 3],
    /// Straight down: a floor far below.
    pub floor: [u8; 3],
}

/// What a camera is fastened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mount {
    /// The room.
    World,
    /// The gripper: places are in its frame.
    Gripper,
}

/// A pinhole camera with square pixels, its axis through the middle of the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// For example `front`.
    pub name: String,
    /// What it moves with.
    pub mount: Mount,
    /// Where it is.
    pub eye: Vec3,
    /// What it looks at.
    pub target: Vec3,
    /// Which way is up in the image, roughly.
    pub up: Vec3,
    /// Opening angle from the lower to the upper edge, in radians.
    pub fov_y_rad: f64,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Scene {
    /// A light wooden table, a soft sky, a camera `front` that faces the arm from the side and one `wrist` on the gripper,
    /// both of `width` × `height`.
    pub fn tabletop(width: usize, height: usize) -> Self {
        let front = Camera {
            name: "front".into(),
            mount: Mount::World,
            eye: vec3(0.585, -0.37, 0.285),
            target: vec3(0.140, 0.015, 0.090),
            up: Vec3::Z,
            fov_y_rad: 0.66,
            width,
            height,
        };
        let [eye, target] = WRIST_CAMERA;
        let wrist = Camera {
            name: "wrist".into(),
            mount: Mount::Gripper,
            eye,
            target,
            up: Vec3::Y,
            fov_y_rad: 1.25,
            ..front.clone()
        };
        Self {
            table: Table {
                centre_m: [0.22, 0.0],
                size_m: [0.80, 1.10],
                surface: Surface::Wood { colors: [[222, 190, 150], [196, 158, 116]], size_m: 0.11 },
                marks: Vec::new(),
            },
            light: Light { direction: vec3(0.35, -0.45, 1.0), intensity: [1.0, 0.97, 0.91], ambient: 0.42 },
            background: Background { top: [112, 164, 222], horizon: [238, 242, 246], floor: [186, 192, 202] },
            cameras: vec![front, wrist],
            noise: 0.0,
            noise_seed: 0,
            samples: 1,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SimError> {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !self.table.size_m.into_iter().all(positive)
            || !self.table.centre_m.into_iter().all(f64::is_finite)
        {
            return Err(SimError::invalid("the table", "its size must be positive and its centre finite"));
        }
        if let Surface::Checker { size_m, .. } | Surface::Wood { size_m, .. } = self.table.surface
            && !positive(size_m)
        {
            return Err(SimError::invalid("the table", "size_m of its pattern must be positive"));
        }
        for mark in &self.table.marks {
            let [x, y] = mark.centre_m;
            if !mark.half_m.into_iter().all(positive) || ![x, y, mark.yaw_rad].into_iter().all(f64::is_finite)
            {
                return Err(SimError::invalid(
                    "a mark",
                    "its sides must be positive, its place and yaw finite",
                ));
            }
        }
        let light = &self.light;
        let sound = |x: f64| x.is_finite() && x >= 0.0;
        if !light.direction.is_finite() || light.direction.z <= 0.0 {
            return Err(SimError::invalid(
                "the light",
                "its direction must be finite and point upwards, to the light",
            ));
        }
        if !light.intensity.into_iter().all(sound) || !sound(light.ambient) {
            return Err(SimError::invalid("the light", "intensities must be numbers from 0"));
        }
        if !sound(self.noise) {
            return Err(SimError::invalid("noise", "must be a number from 0"));
        }
        if !(1..=4).contains(&self.samples) {
            return Err(SimError::invalid("samples", format!("{} is not in 1 … 4", self.samples)));
        }
        for (i, camera) in self.cameras.iter().enumerate() {
            camera.check()?;
            if self.cameras[..i].iter().any(|other| other.name == camera.name) {
                return Err(SimError::invalid(
                    format!("camera {}", camera.name),
                    "another one has the same name: give each its own",
                ));
            }
        }
        Ok(())
    }
}

impl Camera {
    fn check(&self) -> Result<(), SimError> {
        let invalid = |problem: &str| Err(SimError::invalid(format!("camera {}", self.name), problem));
        if !(1..=4096).contains(&self.width) || !(1..=4096).contains(&self.height) {
            return invalid("width and height must be 1 … 4096 pixels");
        }
        if !(self.fov_y_rad > 0.01 && self.fov_y_rad < 3.0) {
            return invalid("fov_y_rad must be 0.01 … 3");
        }
        if !(self.eye.is_finite() && self.target.is_finite() && self.up.is_finite()) {
            return invalid("eye, target and up must be finite");
        }
        if (self.target - self.eye).cross(self.up).unit().is_none() {
            return invalid("eye and target must differ, and up must not lie along the view");
        }
        Ok(())
    }
}
