use super::{cross, dot, minus, single, unit};
use crate::geometry::Pose;
use crate::shape::Shape;

/// Edges of boxes are broken by at most this, so that they catch the light.
const BEVEL_M: f32 = 0.0012;
/// Sides of a cylinder.
const SIDES: usize = 24;

/// What a triangle belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Table,
    Body(usize),
    Arm,
}

/// Three corners, counterclockwise seen from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Triangle {
    pub(super) corners: [u32; 3],
    /// Index of a material.
    pub(super) material: u32,
    /// Its normals differ from corner to corner.
    pub(super) smooth: bool,
}

/// A colour and whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Material {
    /// sRGB.
    pub(super) color: [u8; 3],
    pub(super) tag: Tag,
}

/// Triangles in the world.
#[derive(Debug, Default)]
pub(super) struct Mesh {
    pub(super) positions: Vec<[f32; 3]>,
    pub(super) normals: Vec<[f32; 3]>,
    pub(super) triangles: Vec<Triangle>,
    pub(super) materials: Vec<Material>,
}

impl Mesh {
    pub(super) fn clear(&mut self) {
        self.positions.clear();
        self.normals.clear();
        self.triangles.clear();
        self.materials.clear();
    }

    pub(super) fn add(&mut self, shape: Shape, pose: Pose, color: [u8; 3], tag: Tag) {
        self.materials.push(Material { color, tag });
        let first = self.positions.len() as u32;
        let placed = Placed { origin: single(pose.position), axes: pose.rotation.axes().map(single) };
        match shape {
            Shape::Box { half_m } => self.add_box(first, &placed, single(half_m)),
            Shape::Cylinder { radius_m, half_height_m } => {
                self.add_cylinder(first, &placed, radius_m as f32, half_height_m as f32);
            }
        }
    }

    fn vertex(&mut self, placed: &Placed, position: [f32; 3], normal: [f32; 3]) {
        let turned = placed.turn(position);
        self.positions.push(std::array::from_fn(|k| placed.origin[k] + turned[k]));
        self.normals.push(placed.turn(normal));
    }

    /// Adds a triangle in whichever order looks outwards.
    fn face(&mut self, corners: [u32; 3], smooth: bool) {
        let [a, b, c] = corners.map(|i| self.positions[i as usize]);
        let outwards = corners.map(|i| self.normals[i as usize]);
        let outwards = std::array::from_fn(|k| outwards[0][k] + outwards[1][k] + outwards[2][k]);
        let flipped = dot(cross(minus(b, a), minus(c, a)), outwards) < 0.0;
        let corners = if flipped { [corners[0], corners[2], corners[1]] } else { corners };
        self.triangles.push(Triangle { corners, material: self.materials.len() as u32 - 1, smooth });
    }

    /// Every corner of the box is three vertices, one on each of its faces, drawn in by the bevel along the other two.
    fn add_box(&mut self, first: u32, placed: &Placed, half: [f32; 3]) {
        let bevel = BEVEL_M.min(0.2 * half[0].min(half[1]).min(half[2]));
        let sign = |corner: u32, axis: usize| if corner >> axis & 1 == 0 { -1.0 } else { 1.0 };
        for axis in 0..3 {
            for corner in 0..8 {
                let position = std::array::from_fn(|k| {
                    sign(corner, k) * (half[k] - if k == axis { 0.0 } else { bevel })
                });
                let normal = std::array::from_fn(|k| if k == axis { sign(corner, k) } else { 0.0 });
                self.vertex(placed, position, normal);
            }
        }
        let at = |axis: usize, corner: usize| first + 8 * axis as u32 + corner as u32;
        for axis in 0..3 {
            let (p, q) = (1 << ((axis + 1) % 3), 1 << ((axis + 2) % 3));
            for side in [0, 1 << axis] {
                self.face([at(axis, side), at(axis, side | p), at(axis, side | p | q)], false);
                self.face([at(axis, side), at(axis, side | p | q), at(axis, side | q)], false);
            }
            // The four edges along this axis lie between the faces of the other two.
            let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
            for edge in [0, p, q, p | q] {
                let end = edge | 1 << axis;
                self.face([at(u, edge), at(u, end), at(v, end)], true);
                self.face([at(u, edge), at(v, end), at(v, edge)], true);
            }
        }
        for corner in 0..8 {
            self.face([at(0, corner), at(1, corner), at(2, corner)], true);
        }
    }

    fn add_cylinder(&mut self, first: u32, placed: &Placed, radius: f32, half: f32) {
        for side in 0..SIDES {
            let angle = side as f32 * std::f32::consts::TAU / SIDES as f32;
            let (sin, cos) = angle.sin_cos();
            for z in [-half, half] {
                let rim = [radius * cos, radius * sin, z];
                self.vertex(placed, rim, [cos, sin, 0.0]);
                self.vertex(placed, rim, [0.0, 0.0, z.signum()]);
            }
        }
        let at = |side: usize, which: u32| first + 4 * (side % SIDES) as u32 + which;
        for side in 0..SIDES {
            self.face([at(side, 0), at(side + 1, 0), at(side + 1, 2)], true);
            self.face([at(side, 0), at(side + 1, 2), at(side, 2)], true);
            if (1..SIDES - 1).contains(&side) {
                self.face([at(0, 1), at(side, 1), at(side + 1, 1)], false);
                self.face([at(0, 3), at(side, 3), at(side + 1, 3)], false);
            }
        }
    }

    /// Normal of a triangle at a point of it.
    pub(super) fn normal_at(&self, triangle: &Triangle, point: [f32; 3]) -> [f32; 3] {
        let normals = triangle.corners.map(|i| self.normals[i as usize]);
        if !triangle.smooth {
            return normals[0];
        }
        let [a, b, c] = triangle.corners.map(|i| self.positions[i as usize]);
        let (ab, ac, ap) = (minus(b, a), minus(c, a), minus(point, a));
        let face = cross(ab, ac);
        let scale = 1.0 / dot(face, face).max(1e-20);
        let v = dot(cross(ap, ac), face) * scale;
        let w = dot(cross(ab, ap), face) * scale;
        unit(std::array::from_fn(|k| (1.0 - v - w) * normals[0][k] + v * normals[1][k] + w * normals[2][k]))
    }
}

struct Placed {
    origin: [f32; 3],
    axes: [[f32; 3]; 3],
}

impl Placed {
    fn turn(&self, v: [f32; 3]) -> [f32; 3] {
        let [x, y, z] = &self.axes;
        std::array::from_fn(|k| x[k] * v[0] + y[k] * v[1] + z[k] * v[2])
    }
}
