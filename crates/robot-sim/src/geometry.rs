//! Vectors, rotations and poses in f64. Right-handed; metres and radians; z points up.

use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// A point or a direction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vec3 {
    /// Forward, seen from the arm.
    pub x: f64,
    /// To the left.
    pub y: f64,
    /// Up.
    pub z: f64,
}

/// A short way to write a [`Vec3`].
pub const fn vec3(x: f64, y: f64, z: f64) -> Vec3 {
    Vec3 { x, y, z }
}

impl Vec3 {
    /// The origin.
    pub const ZERO: Self = vec3(0.0, 0.0, 0.0);
    /// One metre forward.
    pub const X: Self = vec3(1.0, 0.0, 0.0);
    /// One metre to the left.
    pub const Y: Self = vec3(0.0, 1.0, 0.0);
    /// One metre up.
    pub const Z: Self = vec3(0.0, 0.0, 1.0);

    /// Scalar product.
    pub fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    /// Vector product.
    pub fn cross(self, other: Self) -> Self {
        vec3(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )
    }

    /// Euclidean length.
    pub fn length(self) -> f64 {
        self.dot(self).sqrt()
    }

    /// Length of the part in the plane of the table.
    pub fn length_xy(self) -> f64 {
        self.x.hypot(self.y)
    }

    /// The same direction with length one; `None` where there is no direction.
    pub fn unit(self) -> Option<Self> {
        let length = self.length();
        (length > 1e-9).then(|| self * (1.0 / length))
    }

    /// Whether all three numbers are finite.
    pub fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite() && self.z.is_finite()
    }
}

impl Add for Vec3 {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        vec3(self.x + other.x, self.y + other.y, self.z + other.z)
    }
}

impl AddAssign for Vec3 {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Vec3 {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        vec3(self.x - other.x, self.y - other.y, self.z - other.z)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    fn neg(self) -> Self {
        vec3(-self.x, -self.y, -self.z)
    }
}

impl Mul<f64> for Vec3 {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        vec3(self.x * factor, self.y * factor, self.z * factor)
    }
}

/// A rotation as a unit quaternion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quat {
    /// Cosine of half the angle.
    pub w: f64,
    /// Axis times the sine of half the angle.
    pub v: Vec3,
}

impl Quat {
    /// No rotation.
    pub const IDENTITY: Self = Self { w: 1.0, v: Vec3::ZERO };

    /// A turn by `angle_rad` about `axis`, which has length one.
    pub fn about(axis: Vec3, angle_rad: f64) -> Self {
        let (sin, cos) = (0.5 * angle_rad).sin_cos();
        Self { w: cos, v: axis * sin }
    }

    /// The shortest turn that takes the unit vector `from` to the unit vector `to`.
    pub fn between(from: Vec3, to: Vec3) -> Self {
        let axis = from.cross(to);
        match axis.unit() {
            Some(unit) => Self::about(unit, axis.length().atan2(from.dot(to))),
            None if from.dot(to) > 0.0 => Self::IDENTITY,
            None => {
                let side = if from.x.abs() < 0.9 { Vec3::X } else { Vec3::Y };
                let perpendicular = from.cross(side).unit().unwrap_or(Vec3::Z);
                Self::about(perpendicular, std::f64::consts::PI)
            }
        }
    }

    /// The inverse rotation.
    pub fn inverse(self) -> Self {
        Self { w: self.w, v: -self.v }
    }

    /// The vector after the rotation.
    pub fn rotate(self, vector: Vec3) -> Vec3 {
        let t = self.v.cross(vector) * 2.0;
        vector + t * self.w + self.v.cross(t)
    }

    /// Where the three axes go: the columns of the rotation matrix.
    pub fn axes(self) -> [Vec3; 3] {
        [self.rotate(Vec3::X), self.rotate(Vec3::Y), self.rotate(Vec3::Z)]
    }

    /// The angle of the turn in 0 … π.
    pub fn angle_rad(self) -> f64 {
        2.0 * self.v.length().atan2(self.w.abs())
    }

    /// Length one again, after many products.
    pub fn normalized(self) -> Self {
        let length = (self.w * self.w + self.v.dot(self.v)).sqrt();
        if length > 0.0 { Self { w: self.w / length, v: self.v * (1.0 / length) } } else { Self::IDENTITY }
    }
}

impl Mul for Quat {
    type Output = Self;
    /// First `other`, then `self`.
    fn mul(self, other: Self) -> Self {
        Self {
            w: self.w * other.w - self.v.dot(other.v),
            v: other.v * self.w + self.v * other.w + self.v.cross(other.v),
        }
    }
}

/// Where a frame stands in another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// The frame's origin.
    pub position: Vec3,
    /// The frame's orientation.
    pub rotation: Quat,
}

impl Pose {
    /// The frame itself.
    pub const IDENTITY: Self = Self { position: Vec3::ZERO, rotation: Quat::IDENTITY };

    /// A shift without a turn.
    pub const fn at(x: f64, y: f64, z: f64) -> Self {
        Self { position: vec3(x, y, z), rotation: Quat::IDENTITY }
    }

    /// The same place, turned by `angle_rad` about the frame's own `axis`.
    pub fn turned(self, axis: Vec3, angle_rad: f64) -> Self {
        Self { position: self.position, rotation: self.rotation * Quat::about(axis, angle_rad) }
    }

    /// A point of the frame, seen from outside.
    pub fn apply(self, point: Vec3) -> Vec3 {
        self.position + self.rotation.rotate(point)
    }

    /// The outside, seen from the frame.
    pub fn inverse(self) -> Self {
        let rotation = self.rotation.inverse();
        Self { position: -rotation.rotate(self.position), rotation }
    }

    /// Turn about the vertical of the frame's x axis, in −π … π.
    pub fn yaw_rad(self) -> f64 {
        let forward = self.rotation.rotate(Vec3::X);
        forward.y.atan2(forward.x)
    }
}

impl Mul for Pose {
    type Output = Self;
    /// `other` is a frame inside of `self`.
    fn mul(self, other: Self) -> Self {
        Self { position: self.apply(other.position), rotation: (self.rotation * other.rotation).normalized() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pose() -> impl Strategy<Value = Pose> {
        (prop::array::uniform3(-1.0..1.0), prop::array::uniform3(-1.0..1.0f64), -3.0..3.0).prop_filter_map(
            "an axis",
            |(p, a, angle)| {
                let axis = vec3(a[0], a[1], a[2]).unit()?;
                Some(Pose { position: vec3(p[0], p[1], p[2]), rotation: Quat::about(axis, angle) })
            },
        )
    }

    proptest! {
        /// A few roundings of numbers near one: 1e-12 leaves a factor of a thousand.
        #[test]
        fn poses_are_a_group(a in pose(), b in pose(), p in prop::array::uniform3(-1.0..1.0)) {
            let p = vec3(p[0], p[1], p[2]);
            prop_assert!(((a * b).apply(p) - a.apply(b.apply(p))).length() < 1e-12);
            prop_assert!((a.inverse().apply(a.apply(p)) - p).length() < 1e-12);
            prop_assert!((a.rotation.rotate(p).length() - p.length()).abs() < 1e-12);
            let [x, y, z] = a.rotation.axes();
            prop_assert!((x.cross(y) - z).length() < 1e-12);
        }

        #[test]
        fn between_takes_one_to_the_other(a in pose(), b in pose()) {
            let (from, to) = (a.rotation.rotate(Vec3::X), b.rotation.rotate(Vec3::Z));
            let turn = Quat::between(from, to);
            prop_assert!((turn.rotate(from) - to).length() < 1e-9);
            prop_assert!((turn.angle_rad() - from.dot(to).clamp(-1.0, 1.0).acos()).abs() < 1e-6);
            prop_assert!((Quat::between(from, -from).rotate(from) + from).length() < 1e-9);
        }
    }
}
