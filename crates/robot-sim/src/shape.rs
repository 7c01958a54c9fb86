//! Boxes and cylinders in space: how far one reaches, whether two overlap, and what parts them.
//!
//! Overlap is decided by separating axes. For two boxes the fifteen candidate axes are exact. Where a cylinder takes part
//! they are exact for cylinders that stand or lie against upright boxes, and otherwise err towards overlap, never
//! towards missing one.

use crate::geometry::{Pose, Vec3, vec3};

/// A convex primitive about its own centre.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Half the edge lengths, in metres.
    Box {
        /// Half the lengths along x, y and z.
        half_m: Vec3,
    },
    /// A cylinder along its own z axis.
    Cylinder {
        /// Radius in metres.
        radius_m: f64,
        /// Half the height in metres.
        half_height_m: f64,
    },
}

impl Shape {
    /// A box from its half lengths.
    pub const fn cuboid(x: f64, y: f64, z: f64) -> Self {
        Self::Box { half_m: vec3(x, y, z) }
    }

    /// A cylinder along z.
    pub const fn cylinder(radius_m: f64, half_height_m: f64) -> Self {
        Self::Cylinder { radius_m, half_height_m }
    }

    /// Half the lengths of the smallest box around it.
    pub fn half_m(self) -> Vec3 {
        match self {
            Self::Box { half_m } => half_m,
            Self::Cylinder { radius_m, half_height_m } => vec3(radius_m, radius_m, half_height_m),
        }
    }
}

/// A shape at a place in the world.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solid {
    /// What it is.
    pub shape: Shape,
    /// Its centre in the world.
    pub centre: Vec3,
    /// Its own axes in the world.
    pub axes: [Vec3; 3],
    /// Half the lengths of the axis-parallel box around it.
    bounds_m: Vec3,
}

/// How two solids overlap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contact {
    /// Unit direction in which the first leaves the second soonest.
    pub normal: Vec3,
    /// How far it has to go, in metres; positive.
    pub depth_m: f64,
}

impl Solid {
    /// The shape at `pose`.
    pub fn new(shape: Shape, pose: Pose) -> Self {
        let mut solid =
            Self { shape, centre: pose.position, axes: pose.rotation.axes(), bounds_m: Vec3::ZERO };
        solid.bounds_m = vec3(solid.reach(Vec3::X), solid.reach(Vec3::Y), solid.reach(Vec3::Z));
        solid
    }

    /// How far it extends from its centre along a unit direction.
    pub fn reach(&self, direction: Vec3) -> f64 {
        let [x, y, z] = self.axes;
        match self.shape {
            Shape::Box { half_m } => {
                half_m.x * x.dot(direction).abs()
                    + half_m.y * y.dot(direction).abs()
                    + half_m.z * z.dot(direction).abs()
            }
            Shape::Cylinder { radius_m, half_height_m } => {
                let along = z.dot(direction);
                half_height_m * along.abs() + radius_m * (1.0 - along * along).max(0.0).sqrt()
            }
        }
    }

    /// Height of its lowest point.
    pub fn bottom_m(&self) -> f64 {
        self.centre.z - self.bounds_m.z
    }

    /// Height of its highest point.
    pub fn top_m(&self) -> f64 {
        self.centre.z + self.bounds_m.z
    }

    /// The point in its own frame.
    pub fn local(&self, point: Vec3) -> Vec3 {
        let d = point - self.centre;
        vec3(self.axes[0].dot(d), self.axes[1].dot(d), self.axes[2].dot(d))
    }

    /// Whether the point is inside the shape grown by `margin_m` on all sides.
    pub fn contains(&self, point: Vec3, margin_m: f64) -> bool {
        let p = self.local(point);
        match self.shape {
            Shape::Box { half_m } => {
                p.x.abs() <= half_m.x + margin_m
                    && p.y.abs() <= half_m.y + margin_m
                    && p.z.abs() <= half_m.z + margin_m
            }
            Shape::Cylinder { radius_m, half_height_m } => {
                p.length_xy() <= radius_m + margin_m && p.z.abs() <= half_height_m + margin_m
            }
        }
    }

    /// The corners of a box; twelve points on each rim of a cylinder.
    pub fn corners(&self) -> Vec<Vec3> {
        let [x, y, z] = self.axes;
        let at = |p: Vec3| self.centre + x * p.x + y * p.y + z * p.z;
        match self.shape {
            Shape::Box { half_m: h } => (0..8)
                .map(|i| {
                    let sign = |bit: usize| if i >> bit & 1 == 0 { -1.0 } else { 1.0 };
                    at(vec3(sign(0) * h.x, sign(1) * h.y, sign(2) * h.z))
                })
                .collect(),
            Shape::Cylinder { radius_m, half_height_m } => (0..24)
                .map(|i| {
                    let (sin, cos) = (f64::from(i / 2) * std::f64::consts::TAU / 12.0).sin_cos();
                    let height = if i % 2 == 0 { -half_height_m } else { half_height_m };
                    at(vec3(radius_m * cos, radius_m * sin, height))
                })
                .collect(),
        }
    }

    /// Whether the boxes around both, grown by `margin_m`, overlap: a quick no.
    pub fn near(&self, other: &Self, margin_m: f64) -> bool {
        let (d, a, b) = (self.centre - other.centre, self.bounds_m, other.bounds_m);
        d.x.abs() < a.x + b.x + margin_m
            && d.y.abs() < a.y + b.y + margin_m
            && d.z.abs() < a.z + b.z + margin_m
    }

    /// Whether they would overlap somewhere if one fell: [`near`](Self::near) in the plane of the table.
    pub fn near_xy(&self, other: &Self) -> bool {
        let (d, a, b) = (self.centre - other.centre, self.bounds_m, other.bounds_m);
        d.x.abs() < a.x + b.x && d.y.abs() < a.y + b.y
    }
}

/// Directions along which two convex solids may be apart, with length one.
struct Axes {
    axes: [Vec3; 15],
    len: usize,
}

impl Axes {
    fn push(&mut self, axis: Vec3) {
        if let Some(unit) = axis.unit() {
            self.axes[self.len] = unit;
            self.len += 1;
        }
    }

    fn of(a: &Solid, b: &Solid) -> Self {
        let mut axes = Self { axes: [Vec3::ZERO; 15], len: 0 };
        match (a.shape, b.shape) {
            (Shape::Box { .. }, Shape::Box { .. }) => {
                axes.axes[..3].copy_from_slice(&a.axes);
                axes.axes[3..6].copy_from_slice(&b.axes);
                axes.len = 6;
                for p in a.axes {
                    for q in b.axes {
                        axes.push(p.cross(q));
                    }
                }
            }
            (Shape::Box { .. }, Shape::Cylinder { .. }) => axes.of_box_and_cylinder(a, b),
            (Shape::Cylinder { .. }, Shape::Box { .. }) => axes.of_box_and_cylinder(b, a),
            (Shape::Cylinder { .. }, Shape::Cylinder { .. }) => {
                let (p, q, d) = (a.axes[2], b.axes[2], a.centre - b.centre);
                for axis in [p, q, p.cross(q), d, d - p * p.dot(d), d - q * q.dot(d)] {
                    axes.push(axis);
                }
            }
        }
        axes
    }

    fn of_box_and_cylinder(&mut self, cuboid: &Solid, cylinder: &Solid) {
        let half = cuboid.shape.half_m();
        let p = cuboid.local(cylinder.centre);
        let [x, y, z] = cuboid.axes;
        let nearest = cuboid.centre
            + x * p.x.clamp(-half.x, half.x)
            + y * p.y.clamp(-half.y, half.y)
            + z * p.z.clamp(-half.z, half.z);
        let (d, along) = (nearest - cylinder.centre, cylinder.axes[2]);
        for axis in
            [x, y, z, along, d - along * along.dot(d), d, along.cross(x), along.cross(y), along.cross(z)]
        {
            self.push(axis);
        }
    }

    fn iter(&self) -> impl Iterator<Item = Vec3> + '_ {
        self.axes[..self.len].iter().copied()
    }
}

/// How `a` overlaps `b`; `None` if they do not.
pub fn contact(a: &Solid, b: &Solid) -> Option<Contact> {
    if !a.near(b, 0.0) {
        return None;
    }
    let between = a.centre - b.centre;
    let mut best: Option<Contact> = None;
    for (index, axis) in Axes::of(a, b).iter().enumerate() {
        let along = axis.dot(between);
        let depth_m = a.reach(axis) + b.reach(axis) - along.abs();
        if depth_m <= 0.0 {
            return None;
        }
        // Where faces meet, products of edges give the same depth but for rounding: the faces come first.
        let gain = if index < 6 { 0.0 } else { 1e-6 };
        if best.is_none_or(|b| depth_m < b.depth_m - gain) {
            best = Some(Contact { normal: if along < 0.0 { -axis } else { axis }, depth_m });
        }
    }
    best
}

/// How far two solids are apart at least, in metres; negative where they overlap.
pub fn separation_m(a: &Solid, b: &Solid) -> f64 {
    let between = a.centre - b.centre;
    Axes::of(a, b)
        .iter()
        .map(|axis| axis.dot(between).abs() - a.reach(axis) - b.reach(axis))
        .fold(f64::NEG_INFINITY, f64::max)
}

/// The shifts of `a` along the unit vector `direction` at which it overlaps `b`, in metres; `None` if it passes by.
/// Overlaps of less than `graze_m` across the direction count as passing by.
pub fn sweep(a: &Solid, b: &Solid, direction: Vec3, graze_m: f64) -> Option<(f64, f64)> {
    let between = a.centre - b.centre;
    let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
    for axis in Axes::of(a, b).iter() {
        let (along, speed) = (axis.dot(between), axis.dot(direction));
        let reach = a.reach(axis) + b.reach(axis) - if speed.abs() < 0.5 { graze_m } else { 0.0 };
        if speed.abs() < 1e-9 {
            if along.abs() >= reach {
                return None;
            }
            continue;
        }
        let (from, to) = ((-reach - along) / speed, (reach - along) / speed);
        low = low.max(from.min(to));
        high = high.min(from.max(to));
        if low >= high {
            return None;
        }
    }
    Some((low, high))
}

/// The smallest shift in the plane of the table that takes `a` out of `b`: a unit direction and metres.
pub fn push_xy(a: &Solid, b: &Solid) -> Option<Contact> {
    let between = a.centre - b.centre;
    let mut best: Option<Contact> = None;
    for axis in Axes::of(a, b).iter() {
        let along = axis.dot(between);
        let depth_m = a.reach(axis) + b.reach(axis) - along.abs();
        let flat = axis.length_xy();
        if flat < 0.05 {
            continue;
        }
        let shift_m = depth_m / flat;
        if best.is_none_or(|b| shift_m < b.depth_m - 1e-6) {
            let outwards = if along < 0.0 { -axis } else { axis };
            best =
                Some(Contact { normal: vec3(outwards.x, outwards.y, 0.0) * (1.0 / flat), depth_m: shift_m });
        }
    }
    best
}

/// The middle of where two overlapping solids touch.
pub(crate) fn touch_point(a: &Solid, b: &Solid, contact: Contact) -> Vec3 {
    let margin_m = contact.depth_m + 5e-4;
    let (mut sum, mut count) = (Vec3::ZERO, 0.0);
    for (one, other) in [(a, b), (b, a)] {
        for corner in one.corners() {
            if other.contains(corner, margin_m) {
                sum += corner;
                count += 1.0;
            }
        }
    }
    if count > 0.0 {
        return sum * (1.0 / count);
    }
    // Two crossing edges: no corner is near.
    let deepest = |solid: &Solid, direction: Vec3| {
        let corners = solid.corners();
        corners
            .into_iter()
            .fold(solid.centre, |best, c| if c.dot(direction) > best.dot(direction) { c } else { best })
    };
    (deepest(a, -contact.normal) + deepest(b, contact.normal)) * 0.5
}
