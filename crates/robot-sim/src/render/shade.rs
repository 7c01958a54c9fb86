use super::mesh::{Mesh, Tag};
use super::raster::Layer;
use super::{Image, NOTHING, View, cross, dot, single, unit};
use crate::geometry::Vec3;
use crate::scene::{Mark, Scene, Surface};

/// The shadow map covers a disc around the workspace.
const SHADOW_CENTRE_M: [f32; 3] = [0.17, 0.0, 0.10];
const SHADOW_RADIUS_M: f32 = 0.42;
const SHADOW_PIXELS: usize = 512;
/// Squares of this many pixels know the highest thing in and around them.
const BLOCK: usize = 16;
const BLOCKS: usize = SHADOW_PIXELS / BLOCK;
/// A surface is not in its own shadow: it is lifted by this along its normal, and by this towards the light.
const LIFT_M: f32 = 0.0015;
const BIAS_M: f32 = 0.0012;
/// Strength of the highlights on printed plastic.
const GLOSS: f32 = 0.10;

/// What the light sees.
#[derive(Debug, Default)]
pub(super) struct ShadowMap {
    layer: Layer,
    /// For each block, nothing in it or in its eight neighbours is higher than this.
    ceiling: Vec<f32>,
    right: [f32; 3],
    down: [f32; 3],
    light: [f32; 3],
}

impl ShadowMap {
    pub(super) fn draw(&mut self, mesh: &Mesh, direction: Vec3) {
        self.light = unit(single(direction));
        let side = if self.light[0].abs() < 0.9 { [1.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0] };
        self.right = unit(cross(side, self.light));
        // The map is seen from the light: x right, y down, the view goes against the light.
        self.down = cross(self.right, self.light);
        self.layer.clear(SHADOW_PIXELS, SHADOW_PIXELS);
        for (index, triangle) in mesh.triangles.iter().enumerate() {
            // The table receives shadows and casts none that anyone sees.
            if mesh.materials[triangle.material as usize].tag == Tag::Table {
                continue;
            }
            let corners = triangle.corners.map(|c| self.place(mesh.positions[c as usize]));
            self.layer.fill(corners, index as u32);
        }
        self.raise_ceiling();
    }

    fn raise_ceiling(&mut self) {
        let mut highest = [f32::NEG_INFINITY; BLOCKS * BLOCKS];
        for (row, pixels) in self.layer.nearness.chunks_exact(SHADOW_PIXELS).enumerate() {
            for (column, block) in pixels.chunks_exact(BLOCK).enumerate() {
                let slot = &mut highest[row / BLOCK * BLOCKS + column];
                *slot = block.iter().fold(*slot, |best, &h| if h > best { h } else { best });
            }
        }
        let around = |at: usize| at.saturating_sub(1)..(at + 2).min(BLOCKS);
        let block = |at: usize| {
            let rows = around(at / BLOCKS).flat_map(|r| around(at % BLOCKS).map(move |c| r * BLOCKS + c));
            rows.map(|neighbour| highest[neighbour]).fold(f32::NEG_INFINITY, f32::max)
        };
        self.ceiling.clear();
        self.ceiling.extend((0..BLOCKS * BLOCKS).map(block));
    }

    /// Column, row and height towards the light.
    fn place(&self, p: [f32; 3]) -> [f32; 3] {
        let scale = 0.5 * SHADOW_PIXELS as f32 / SHADOW_RADIUS_M;
        let d = super::minus(p, SHADOW_CENTRE_M);
        let middle = 0.5 * SHADOW_PIXELS as f32;
        [middle + scale * dot(self.right, d), middle + scale * dot(self.down, d), dot(self.light, d)]
    }

    /// How much of the light reaches a point, 0 … 1: the mean over a square of three pixels of the map, exact at its rim.
    fn lit(&self, point: [f32; 3], normal: [f32; 3]) -> f32 {
        let [x, y, height] = self.place(std::array::from_fn(|k| point[k] + LIFT_M * normal[k]));
        let (x, y) = (x - 1.5, y - 1.5);
        let last = (SHADOW_PIXELS - 4) as f32;
        if !(x >= 0.0 && y >= 0.0 && x < last && y < last) {
            return 1.0;
        }
        let (column, row) = (x as usize, y as usize);
        if self.ceiling[row / BLOCK * BLOCKS + column / BLOCK] <= height + BIAS_M {
            return 1.0;
        }
        let (right, down) = (x - column as f32, y - row as f32);
        let (across, along) = ([1.0 - right, 1.0, 1.0, right], [1.0 - down, 1.0, 1.0, down]);
        let mut free = 0.0;
        for (r, weight) in along.into_iter().enumerate() {
            let first = (row + r) * SHADOW_PIXELS + column;
            for (there, share) in self.layer.nearness[first..first + 4].iter().zip(across) {
                free += if *there > height + BIAS_M { 0.0 } else { weight * share };
            }
        }
        free / 9.0
    }
}

/// From linear light to sRGB bytes, and back.
#[derive(Debug)]
pub(super) struct Encoder {
    bytes: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        let encode = |linear: f64| {
            let s =
                if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 };
            (255.0 * s).round() as u8
        };
        Self { bytes: (0..4096).map(|i| encode(f64::from(i) / 4095.0)).collect() }
    }
}

impl Encoder {
    fn byte(&self, linear: f32) -> u8 {
        self.bytes[(linear.clamp(0.0, 1.0) * 4095.0 + 0.5) as usize]
    }
}

fn linear(color: [u8; 3]) -> [f32; 3] {
    color.map(|byte| {
        let s = f32::from(byte) / 255.0;
        if s <= 0.040_45 { s / 12.92 } else { ((s + 0.055) / 1.055).powf(2.4) }
    })
}

/// Everything that decides a pixel's colour.
pub(super) struct Shading<'a> {
    mesh: &'a Mesh,
    shadow: &'a ShadowMap,
    view: &'a View,
    colors: Vec<[f32; 3]>,
    surface: &'a Surface,
    surface_colors: [[f32; 3]; 2],
    /// The topmost first.
    marks: Vec<(Mark, [f32; 3])>,
    sun: [f32; 3],
    ambient: f32,
    sky: [[f32; 3]; 3],
}

impl<'a> Shading<'a> {
    pub(super) fn new(scene: &'a Scene, mesh: &'a Mesh, shadow: &'a ShadowMap, view: &'a View) -> Self {
        let surface_colors = match scene.table.surface {
            Surface::Plain { color } => [color; 2],
            Surface::Checker { colors, .. } | Surface::Wood { colors, .. } => colors,
        };
        let sky = &scene.background;
        Self {
            mesh,
            shadow,
            view,
            colors: mesh.materials.iter().map(|m| linear(m.color)).collect(),
            surface: &scene.table.surface,
            surface_colors: surface_colors.map(linear),
            marks: scene.table.marks.iter().rev().map(|mark| (*mark, linear(mark.color))).collect(),
            sun: scene.light.intensity.map(|x| 0.75 * x as f32),
            ambient: scene.light.ambient as f32,
            sky: [sky.top, sky.horizon, sky.floor].map(linear),
        }
    }

    /// Shades all pixels, each thread some rows of them: every pixel is computed alone, so their number does not show.
    pub(super) fn picture(
        &self,
        layer: &Layer,
        samples: usize,
        encoder: &Encoder,
        image: &mut Image,
        threads: usize,
    ) {
        let rows = image.height.div_ceil(threads.max(1)).max(1);
        let bands = image.rgb.chunks_mut(rows * image.width * 3).enumerate();
        if threads <= 1 {
            bands.for_each(|(band, rgb)| self.rows(layer, samples, encoder, band * rows, rgb));
            return;
        }
        std::thread::scope(|scope| {
            for (band, rgb) in bands {
                scope.spawn(move || self.rows(layer, samples, encoder, band * rows, rgb));
            }
        });
    }

    /// Shades rows from `first` on, and averages `samples` × `samples` pixels for each of theirs.
    fn rows(&self, layer: &Layer, samples: usize, encoder: &Encoder, first: usize, rgb: &mut [u8]) {
        let share = 1.0 / (samples * samples) as f32;
        let width = layer.width / samples;
        for (pixel, rgb) in rgb.chunks_exact_mut(3).enumerate() {
            let (column, row) = (pixel % width * samples, (first + pixel / width) * samples);
            let mut sum = [0f32; 3];
            for r in row..row + samples {
                for c in column..column + samples {
                    let color = self.pixel(layer, c, r);
                    sum = std::array::from_fn(|k| sum[k] + color[k]);
                }
            }
            for (byte, value) in rgb.iter_mut().zip(sum) {
                *byte = encoder.byte(value * share);
            }
        }
    }

    fn pixel(&self, layer: &Layer, column: usize, row: usize) -> [f32; 3] {
        let at = row * layer.width + column;
        let ray = self.view.ray(column, row);
        let owner = layer.triangle[at];
        if owner == NOTHING {
            return self.sky(unit(ray)[2]);
        }
        let triangle = &self.mesh.triangles[owner as usize];
        let distance = 1.0 / layer.nearness[at];
        let point: [f32; 3] = std::array::from_fn(|k| self.view.eye[k] + distance * ray[k]);
        let normal = self.mesh.normal_at(triangle, point);
        let tag = self.mesh.materials[triangle.material as usize].tag;
        let top = tag == Tag::Table && normal[2] > 0.9;
        let base = if top { self.table(point[0], point[1]) } else { self.colors[triangle.material as usize] };
        let facing = dot(normal, self.shadow.light);
        let lit = if facing > 0.0 { self.shadow.lit(point, normal) } else { 0.0 };
        let direct = facing.max(0.0) * lit;
        let to_eye = unit(ray.map(|x| -x));
        let shine = if top || direct == 0.0 { 0.0 } else { GLOSS * lit * self.highlight(normal, to_eye) };
        // Light from everywhere is bluish from above, warm from the table below, and a little comes from the eye's side.
        let up = 0.5 + 0.5 * normal[2];
        let front = 0.34 * dot(normal, to_eye).max(0.0);
        let around = [0.98 - 0.04 * up, 0.94 + 0.04 * up, 0.86 + 0.18 * up]
            .map(|tint| self.ambient * (tint * (0.40 + 0.48 * up) + front));
        std::array::from_fn(|k| base[k] * (around[k] + self.sun[k] * direct) + self.sun[k] * shine)
    }

    /// How much of the light a glossy surface throws to the eye.
    fn highlight(&self, normal: [f32; 3], to_eye: [f32; 3]) -> f32 {
        let half = unit(std::array::from_fn(|k| to_eye[k] + self.shadow.light[k]));
        let mut shine = dot(normal, half).max(0.0);
        for _ in 0..5 {
            shine *= shine;
        }
        shine
    }

    /// The background in a direction with this height, −1 … 1.
    fn sky(&self, height: f32) -> [f32; 3] {
        let [top, horizon, floor] = &self.sky;
        let (other, share) = if height > 0.0 { (top, height * 1.6) } else { (floor, height * -4.0) };
        let share = share.min(1.0);
        std::array::from_fn(|k| horizon[k] + share * (other[k] - horizon[k]))
    }

    fn table(&self, x: f32, y: f32) -> [f32; 3] {
        let point = [f64::from(x), f64::from(y)];
        if let Some((_, color)) = self.marks.iter().find(|(mark, _)| mark.contains(point)) {
            return *color;
        }
        let [light, dark] = &self.surface_colors;
        let mix = |share: f32| std::array::from_fn(|k| light[k] + share * (dark[k] - light[k]));
        match *self.surface {
            Surface::Plain { .. } => *light,
            Surface::Checker { size_m, .. } => {
                let cell = |v: f32| (v / size_m as f32).floor() as i64;
                if (cell(x) + cell(y)).rem_euclid(2) == 0 { *light } else { *dark }
            }
            Surface::Wood { size_m, .. } => {
                let across = x / size_m as f32;
                let board = floor(across);
                let tone = lattice(board as i32, 7);
                let grain = noise(x * 260.0, y * 6.0 + 31.0 * tone);
                let seam = (across - board - 0.5).abs() * 2.0;
                let seam = ((seam - 0.975) * 40.0).clamp(0.0, 1.0);
                mix(0.15 + 0.35 * tone + 0.42 * grain * grain + 0.55 * seam)
            }
        }
    }
}

/// A random number in 0 … 1 for each point of a grid.
fn lattice(x: i32, y: i32) -> f32 {
    let mut h = (x as u32).wrapping_mul(0x85eb_ca6b) ^ (y as u32).wrapping_mul(0xc2b2_ae35);
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    ((h ^ (h >> 15)) >> 8) as f32 / 16_777_216.0
}

/// The next integer below, without the call that `f32::floor` is where the processor is not known.
fn floor(x: f32) -> f32 {
    let whole = x as i32 as f32;
    if whole > x { whole - 1.0 } else { whole }
}

/// The grid's numbers, smoothly in between.
fn noise(x: f32, y: f32) -> f32 {
    let (column, row) = (floor(x), floor(y));
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (smooth(x - column), smooth(y - row));
    let (c, r) = (column as i32, row as i32);
    // Far away the cast ends at the last integer.
    let (right, below) = (c.wrapping_add(1), r.wrapping_add(1));
    let upper = lattice(c, r) * (1.0 - u) + lattice(right, r) * u;
    let lower = lattice(c, below) * (1.0 - u) + lattice(right, below) * u;
    upper * (1.0 - v) + lower * v
}
