/// The triangle of a pixel in which there is none.
pub(super) const NOTHING: u32 = u32::MAX;

/// For each pixel the nearest triangle, and its nearness: larger is nearer.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) nearness: Vec<f32>,
    pub(super) triangle: Vec<u32>,
}

impl Layer {
    pub(super) fn clear(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.nearness.clear();
        self.nearness.resize(width * height, f32::NEG_INFINITY);
        self.triangle.clear();
        self.triangle.resize(width * height, NOTHING);
    }

    /// Draws a triangle whose corners are column, row and nearness, which is affine on the screen, if it faces us. Corners
    /// that run counterclockwise for the eye have a negative area, as rows grow downwards.
    pub(super) fn fill(&mut self, corners: [[f32; 3]; 3], triangle: u32) {
        let [a, b, c] = corners.map(|p| p.map(f64::from));
        let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        if area >= 0.0 || !area.is_finite() {
            return;
        }
        let highest = a[1].min(b[1]).min(c[1]);
        let lowest = a[1].max(b[1]).max(c[1]);
        let leftmost = a[0].min(b[0]).min(c[0]);
        let rightmost = a[0].max(b[0]).max(c[0]);
        // Pixel centres are at halves.
        let first_row = (highest - 0.5).ceil().max(0.0) as usize;
        let end_row = ((lowest - 0.5).floor() + 1.0).clamp(0.0, self.height as f64) as usize;
        let per_column = ((b[2] - a[2]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[2] - a[2])) / area;
        let per_row = ((b[0] - a[0]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[0] - a[0])) / area;
        let edges =
            [(a, b), (b, c), (c, a)].map(|(p, q)| (p[1] - q[1], q[0] - p[0], p[0] * q[1] - q[0] * p[1]));
        for row in first_row..end_row {
            let y = row as f64 + 0.5;
            let (mut from, mut to) = (leftmost, rightmost);
            // Inside is where `x·dx + y·dy + offset ≤ 0` for all edges. Neighbours share an edge with opposite signs,
            // to the bit, and so the bound: no pixel falls between them.
            for (dx, dy, offset) in edges {
                let rest = dy * y + offset;
                if dx > 0.0 {
                    to = to.min(-rest / dx);
                } else if dx < 0.0 {
                    from = from.max(-rest / dx);
                } else if rest > 0.0 {
                    to = f64::NEG_INFINITY;
                }
            }
            let first = (from - 0.5).ceil().max(0.0);
            let end = ((to - 0.5).floor() + 1.0).min(self.width as f64);
            if first >= end {
                continue;
            }
            let (first, end) = (first as usize, end as usize);
            let start = a[2] + per_row * (y - a[1]) + per_column * (first as f64 + 0.5 - a[0]);
            let (start, per_column) = (start as f32, per_column as f32);
            let span = row * self.width + first..row * self.width + end;
            let pixels = self.nearness[span.clone()].iter_mut().zip(&mut self.triangle[span]);
            for (step, (nearness, owner)) in pixels.enumerate() {
                let here = start + per_column * step as f32;
                if here > *nearness {
                    (*nearness, *owner) = (here, triangle);
                }
            }
        }
    }
}

/// The part of a triangle beyond the near plane: up to four corners, and how many.
pub(super) fn clip_near(corners: [[f32; 3]; 3], near: f32) -> ([[f32; 3]; 4], usize) {
    let (mut kept, mut len) = ([[0.0; 3]; 4], 0);
    for k in 0..3 {
        let (p, q) = (corners[k], corners[(k + 1) % 3]);
        if p[2] >= near {
            kept[len] = p;
            len += 1;
        }
        if (p[2] >= near) != (q[2] >= near) {
            let t = (near - p[2]) / (q[2] - p[2]);
            kept[len] = [p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]), near];
            len += 1;
        }
    }
    (kept, len)
}
