//! Things on the table: rigid, made of boxes and cylinders.

use crate::error::SimError;
use crate::geometry::{Pose, Quat, Vec3, vec3};
use crate::shape::{Shape, Solid};

/// A piece of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its form.
    pub shape: Shape,
    /// Where it is in the body's frame.
    pub pose: Pose,
    /// sRGB.
    pub color: [u8; 3],
}

/// How a body may move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Motion {
    /// Not at all.
    Fixed,
    /// It can be pushed, gripped, carried and dropped.
    Free,
    /// Along one horizontal direction, as a drawer.
    Slides {
        /// Unit direction in the world, in which the slide's position grows.
        axis: Vec3,
        /// Furthest it goes, in metres; it begins at zero.
        travel_m: f64,
    },
}

/// A rigid body. Its origin is taken for its centre of mass.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// Unlike those of all others in the world.
    pub name: String,
    /// At least one.
    pub parts: Vec<Part>,
    /// How it may move.
    pub motion: Motion,
    pub(crate) pose: Pose,
    /// Of a sliding body: how far out it is.
    pub(crate) slide_m: f64,
    /// Downwards, in metres a second.
    pub(crate) fall_speed: f64,
    /// The body that it stands on.
    pub(crate) rests_on: Option<usize>,
    /// The parts in the world: follows `pose`.
    pub(crate) solids: Vec<Solid>,
}

impl Body {
    /// A free body of several parts, its origin at `pose`.
    pub fn new(name: impl Into<String>, parts: Vec<Part>, pose: Pose) -> Self {
        let mut body = Self {
            name: name.into(),
            parts,
            motion: Motion::Free,
            pose,
            slide_m: 0.0,
            fall_speed: 0.0,
            rests_on: None,
            solids: Vec::new(),
        };
        body.place(pose);
        body
    }

    /// A free block from its full edge lengths.
    pub fn block(name: impl Into<String>, size_m: Vec3, color: [u8; 3], pose: Pose) -> Self {
        let shape = Shape::Box { half_m: size_m * 0.5 };
        Self::new(name, vec![Part { shape, pose: Pose::IDENTITY, color }], pose)
    }

    /// A free standing cylinder.
    pub fn cylinder(
        name: impl Into<String>,
        radius_m: f64,
        height_m: f64,
        color: [u8; 3],
        pose: Pose,
    ) -> Self {
        let shape = Shape::cylinder(radius_m, 0.5 * height_m);
        Self::new(name, vec![Part { shape, pose: Pose::IDENTITY, color }], pose)
    }

    /// An open box from its outer size: a floor and four walls. Its origin is the middle of the outer size.
    pub fn tray(name: impl Into<String>, size_m: Vec3, wall_m: f64, color: [u8; 3], pose: Pose) -> Self {
        let (h, w) = (size_m * 0.5, 0.5 * wall_m);
        let part = |half: Vec3, x: f64, y: f64, z: f64| Part {
            shape: Shape::Box { half_m: half },
            pose: Pose::at(x, y, z),
            color,
        };
        let parts = vec![
            part(vec3(h.x, h.y, w), 0.0, 0.0, w - h.z),
            part(vec3(w, h.y, h.z - w), w - h.x, 0.0, w),
            part(vec3(w, h.y, h.z - w), h.x - w, 0.0, w),
            part(vec3(h.x - 2.0 * w, w, h.z - w), 0.0, w - h.y, w),
            part(vec3(h.x - 2.0 * w, w, h.z - w), 0.0, h.y - w, w),
        ];
        Self::new(name, parts, pose)
    }

    /// The same body, with another way to move.
    #[must_use]
    pub fn moving(mut self, motion: Motion) -> Self {
        self.motion = motion;
        self
    }

    /// Where it is.
    pub fn pose(&self) -> Pose {
        self.pose
    }

    /// How far a sliding body is out, in metres; 0 for all others.
    pub fn slide_m(&self) -> f64 {
        self.slide_m
    }

    /// Its parts in the world.
    pub fn solids(&self) -> &[Solid] {
        &self.solids
    }

    /// Height of its lowest point.
    pub fn bottom_m(&self) -> f64 {
        self.solids.iter().map(Solid::bottom_m).fold(f64::INFINITY, f64::min)
    }

    /// Height of its highest point.
    pub fn top_m(&self) -> f64 {
        self.solids.iter().map(Solid::top_m).fold(f64::NEG_INFINITY, f64::max)
    }

    pub(crate) fn place(&mut self, pose: Pose) {
        self.pose = pose;
        self.solids.clear();
        self.solids.extend(self.parts.iter().map(|part| Solid::new(part.shape, pose * part.pose)));
    }

    /// Shifts it, then turns it about the vertical through `centre`.
    pub(crate) fn shift(&mut self, by: Vec3, yaw_rad: f64, centre: Vec3) {
        let turn = Quat::about(Vec3::Z, yaw_rad);
        let position = centre + turn.rotate(self.pose.position + by - centre);
        let rotation =
            if yaw_rad == 0.0 { self.pose.rotation } else { (turn * self.pose.rotation).normalized() };
        self.place(Pose { position, rotation });
    }

    /// Half of its largest extent in the plane of the table.
    pub(crate) fn radius_m(&self) -> f64 {
        let far = |part: &Part| part.pose.position.length() + part.shape.half_m().length();
        self.parts.iter().map(far).fold(0.0, f64::max)
    }

    /// The turn that lays it flat: onto the nearest of the faces of its frame, or, for a cylinder, onto its side.
    pub(crate) fn to_flat(&self) -> Quat {
        let axes = self.pose.rotation.axes();
        if let [Part { shape: Shape::Cylinder { .. }, .. }] = self.parts.as_slice() {
            let along = axes[2];
            if along.z.abs() < std::f64::consts::FRAC_1_SQRT_2 {
                let flat = vec3(along.x, along.y, 0.0).unit().unwrap_or(Vec3::X);
                return Quat::between(along, flat);
            }
            return Quat::between(along, vec3(0.0, 0.0, 1f64.copysign(along.z)));
        }
        let steepest =
            axes.into_iter().fold(axes[2], |best, a| if a.z.abs() > best.z.abs() { a } else { best });
        Quat::between(steepest, vec3(0.0, 0.0, 1f64.copysign(steepest.z)))
    }

    pub(crate) fn check(&self) -> Result<(), SimError> {
        let invalid = |problem: &str| Err(SimError::invalid(format!("body {}", self.name), problem));
        if self.parts.is_empty() {
            return invalid("it has no parts: give it at least one shape");
        }
        let sound = |pose: Pose| {
            pose.position.is_finite() && pose.rotation.w.is_finite() && pose.rotation.v.is_finite()
        };
        for part in &self.parts {
            let half = part.shape.half_m();
            if !(half.is_finite() && half.x > 0.0 && half.y > 0.0 && half.z > 0.0) {
                return invalid("a part has a size that is not a positive number of metres");
            }
            if !sound(part.pose) {
                return invalid("a part's pose is not finite");
            }
        }
        if !sound(self.pose) {
            return invalid("its pose is not finite");
        }
        if let Motion::Slides { axis, travel_m } = self.motion {
            let level = axis.z.abs() < 1e-9 && (axis.length() - 1.0).abs() < 1e-9;
            if !(level && travel_m.is_finite() && travel_m >= 0.0) {
                return invalid(
                    "its slide wants a horizontal axis of length one and a travel of at least 0 m",
                );
            }
        }
        Ok(())
    }
}
