//! Pictures of a world, made on the CPU: the same bytes for the same state, whatever the number of threads.
//!
//! Everything becomes triangles once; a shadow map is drawn from the light, each camera draws which triangle is nearest
//! in every pixel, and then every pixel is shaded once.

mod mesh;
mod raster;
mod shade;
#[cfg(test)]
mod tests;

use std::time::Instant;

use skillweld_robot::Frame;

use crate::error::SimError;
use crate::geometry::{Pose, Vec3};
use crate::random::Random;
use crate::scene::{Camera, Mount};
use crate::world::{TABLE, World};

use mesh::{Mesh, Tag};
use raster::{Layer, NOTHING, clip_near};
use shade::{Encoder, Shading, ShadowMap};

/// Smaller pictures are shaded on the caller's thread: many of them are drawn side by side in evaluations.
const PIXELS_FOR_THREADS: usize = 200_000;

/// Nearer than this nothing is seen, in metres.
const NEAR_M: f32 = 0.008;

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// height × width × 3 bytes, sRGB.
    pub rgb: Vec<u8>,
}

impl Image {
    /// As a robot's camera gives it.
    pub fn into_frame(self, captured: Instant) -> Frame {
        Frame { rgb: self.rgb.into(), height: self.height, width: self.width, captured }
    }
}

/// Draws worlds; keeps its buffers from picture to picture, and nothing else.
#[derive(Debug)]
pub struct Renderer {
    mesh: Mesh,
    layer: Layer,
    shadow: ShadowMap,
    encoder: Encoder,
    on_screen: Vec<[f32; 3]>,
    /// For large pictures.
    threads: usize,
}

impl Default for Renderer {
    fn default() -> Self {
        Self::new()
    }
}

impl Renderer {
    /// With empty buffers; pictures of 200,000 pixels and more are shaded on up to four threads.
    pub fn new() -> Self {
        Self {
            mesh: Mesh::default(),
            layer: Layer::default(),
            shadow: ShadowMap::default(),
            encoder: Encoder::default(),
            on_screen: Vec::new(),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
        }
    }

    /// One picture of each camera of the scene, in their order.
    ///
    /// # Errors
    /// [`SimError::Invalid`] if the scene was changed into one that cannot be seen.
    pub fn render(&mut self, world: &World) -> Result<Vec<Image>, SimError> {
        world.scene.check()?;
        self.gather(world);
        self.shadow.draw(&self.mesh, world.scene.light.direction);
        let scene = &world.scene;
        let cameras = scene.cameras.iter().enumerate();
        let pictures = cameras
            .map(|(index, camera)| {
                let view = View::new(camera, world, scene.samples);
                self.draw(&view);
                let shading = Shading::new(scene, &self.mesh, &self.shadow, &view);
                let mut image = Image {
                    width: camera.width,
                    height: camera.height,
                    rgb: vec![0; camera.width * camera.height * 3],
                };
                let threads = if view.width * view.height < PIXELS_FOR_THREADS { 1 } else { self.threads };
                shading.picture(&self.layer, scene.samples, &self.encoder, &mut image, threads);
                if scene.noise > 0.0 {
                    let stream =
                        scene.noise_seed ^ world.steps().wrapping_mul(0x9e37_79b9) ^ ((index as u64) << 56);
                    add_noise(&mut image, scene.noise, stream);
                }
                image
            })
            .collect();
        Ok(pictures)
    }

    /// Where a point lies in the picture of a camera of the scene: column, row, and metres along the view; the middle of
    /// the first pixel is 0.5, 0.5. `None` for what is behind the camera or beside the picture, or where there is no such
    /// camera. What stands in between is not looked at.
    pub fn locate(world: &World, camera: usize, point: Vec3) -> Option<[f64; 3]> {
        let camera = world.scene.cameras.get(camera)?;
        let view = View::new(camera, world, 1);
        let seen = view.to_camera(single(point));
        if seen[2] < NEAR_M {
            return None;
        }
        let [column, row, _] = view.project(seen).map(f64::from);
        let inside =
            (0.0..camera.width as f64).contains(&column) && (0.0..camera.height as f64).contains(&row);
        inside.then_some([column, row, f64::from(seen[2])])
    }

    /// All triangles of a world.
    fn gather(&mut self, world: &World) {
        self.mesh.clear();
        for (index, body) in world.bodies().iter().enumerate() {
            let tag = if index == TABLE { Tag::Table } else { Tag::Body(index) };
            for part in &body.parts {
                self.mesh.add(part.shape, body.pose() * part.pose, part.color, tag);
            }
        }
        for part in &world.arm().parts {
            self.mesh.add(part.shape, world.frames().pose(part.link) * part.pose, part.color, Tag::Arm);
        }
    }

    /// Which triangle is nearest in each pixel, and one over its distance.
    fn draw(&mut self, view: &View) {
        self.layer.clear(view.width, view.height);
        self.on_screen.clear();
        self.on_screen.extend(self.mesh.positions.iter().map(|&p| view.to_camera(p)));
        for (index, triangle) in self.mesh.triangles.iter().enumerate() {
            let corners = triangle.corners.map(|c| self.on_screen[c as usize]);
            if corners.iter().all(|c| c[2] >= NEAR_M) {
                self.layer.fill(corners.map(|c| view.project(c)), index as u32);
            } else {
                let (polygon, len) = clip_near(corners, NEAR_M);
                for k in 2..len {
                    let fan = [polygon[0], polygon[k - 1], polygon[k]];
                    self.layer.fill(fan.map(|c| view.project(c)), index as u32);
                }
            }
        }
    }
}

/// A camera at work: where it is, and which way its pixels look.
struct View {
    eye: [f32; 3],
    right: [f32; 3],
    down: [f32; 3],
    forward: [f32; 3],
    focal: f32,
    width: usize,
    height: usize,
}

impl View {
    /// `samples` pixels for each pixel of the picture along both sides.
    fn new(camera: &Camera, world: &World, samples: usize) -> Self {
        let mount = match camera.mount {
            Mount::World => Pose::IDENTITY,
            Mount::Gripper => world.tool(),
        };
        let (eye, target) = (mount.apply(camera.eye), mount.apply(camera.target));
        let forward = (target - eye).unit().unwrap_or(Vec3::X);
        let right = forward.cross(mount.rotation.rotate(camera.up)).unit().unwrap_or(Vec3::Y);
        let (width, height) = (camera.width * samples, camera.height * samples);
        Self {
            eye: single(eye),
            right: single(right),
            down: single(forward.cross(right)),
            forward: single(forward),
            focal: (0.5 * height as f64 / (0.5 * camera.fov_y_rad).tan()) as f32,
            width,
            height,
        }
    }

    /// x right, y down, z forward, in metres.
    fn to_camera(&self, p: [f32; 3]) -> [f32; 3] {
        let d = minus(p, self.eye);
        [dot(self.right, d), dot(self.down, d), dot(self.forward, d)]
    }

    /// Column, row and one over the distance along the view.
    fn project(&self, p: [f32; 3]) -> [f32; 3] {
        let inverse = 1.0 / p[2];
        let scale = self.focal * inverse;
        [0.5 * self.width as f32 + scale * p[0], 0.5 * self.height as f32 + scale * p[1], inverse]
    }

    /// Where a pixel's centre looks: the length along the view is one.
    fn ray(&self, column: usize, row: usize) -> [f32; 3] {
        let x = (column as f32 + 0.5 - 0.5 * self.width as f32) / self.focal;
        let y = (row as f32 + 0.5 - 0.5 * self.height as f32) / self.focal;
        std::array::from_fn(|k| self.forward[k] + x * self.right[k] + y * self.down[k])
    }
}

/// Gaussian enough: the sum of four uniform numbers.
fn add_noise(image: &mut Image, sigma: f64, stream: u64) {
    let mut random = Random::new(stream);
    for value in &mut image.rgb {
        let bits = random.bits();
        let sum: u64 = (0..4).map(|k| bits >> (16 * k) & 0xffff).sum();
        // The sum of four uniform numbers in 0 … 1 has mean 2 and variance 1/3.
        let normal = (sum as f64 / 65_535.0 - 2.0) * 3f64.sqrt();
        *value = (f64::from(*value) + sigma * normal).round().clamp(0.0, 255.0) as u8;
    }
}

fn single(v: Vec3) -> [f32; 3] {
    [v.x as f32, v.y as f32, v.z as f32]
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn minus(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn cross(a: [f32; 3], b: [f32; 3]) -> [f32; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn unit(a: [f32; 3]) -> [f32; 3] {
    let scale = 1.0 / dot(a, a).sqrt().max(1e-12);
    a.map(|x| x * scale)
}
