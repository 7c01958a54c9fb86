//! Convex polygons in the plane of the table: where one body carries another.

use crate::shape::Solid;

/// A point of the plane: x, y in metres.
pub(super) type Point = [f64; 2];

/// Corners this close to the lowest or the highest one belong to the face.
const FACE_M: f64 = 5e-4;

fn cross(a: Point, b: Point, c: Point) -> f64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// The lowest (`side` −1) or the highest (`side` 1) face of a solid: its convex outline, counterclockwise.
pub(super) fn footprint(solid: &Solid, side: f64) -> Vec<Point> {
    let corners = solid.corners();
    let extreme = corners.iter().map(|c| side * c.z).fold(f64::NEG_INFINITY, f64::max);
    hull(corners.iter().filter(|c| side * c.z >= extreme - FACE_M).map(|c| [c.x, c.y]).collect())
}

/// The convex hull, counterclockwise, without points on its edges (Andrew's monotone chain).
pub(super) fn hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup_by(|a, b| (a[0] - b[0]).abs() < 1e-9 && (a[1] - b[1]).abs() < 1e-9);
    if points.len() < 3 {
        return points;
    }
    let mut outline: Vec<Point> = Vec::with_capacity(points.len() + 1);
    for way in 0..2 {
        let start = outline.len();
        for &point in &points {
            while outline.len() >= start + 2
                && cross(outline[outline.len() - 2], outline[outline.len() - 1], point) <= 1e-14
            {
                outline.pop();
            }
            outline.push(point);
        }
        outline.pop();
        if way == 0 {
            points.reverse();
        }
    }
    outline
}

/// The part of a convex polygon, or of a line or a point, inside a convex polygon (Sutherland and Hodgman). If the
/// second is only a line or a point, the part of that inside the first.
pub(super) fn clipped(polygon: &[Point], window: &[Point]) -> Vec<Point> {
    if window.len() < 3 {
        return if polygon.len() < 3 { polygon.to_vec() } else { clipped(window, polygon) };
    }
    let mut points = polygon.to_vec();
    for (i, &a) in window.iter().enumerate() {
        let b = window[(i + 1) % window.len()];
        let mut kept = Vec::with_capacity(points.len() + 2);
        for (k, &p) in points.iter().enumerate() {
            let q = points[(k + 1) % points.len()];
            let (dp, dq) = (cross(a, b, p), cross(a, b, q));
            if dp >= 0.0 {
                kept.push(p);
            }
            if (dp > 0.0 && dq < 0.0) || (dp < 0.0 && dq > 0.0) {
                let t = dp / (dp - dq);
                kept.push([p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])]);
            }
        }
        points = kept;
    }
    points
}

/// The point of a convex polygon nearest to `point`: itself if it is inside; `None` for no polygon.
pub(super) fn nearest_on(polygon: &[Point], point: Point) -> Option<Point> {
    let edges = || (0..polygon.len()).map(|i| (polygon[i], polygon[(i + 1) % polygon.len()]));
    if polygon.len() >= 3 && edges().all(|(a, b)| cross(a, b, point) >= 0.0) {
        return Some(point);
    }
    let distance = |p: &Point| (p[0] - point[0]).hypot(p[1] - point[1]);
    let on_edge = |(a, b): (Point, Point)| {
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = dx * dx + dy * dy;
        let t = if length > 0.0 { ((point[0] - a[0]) * dx + (point[1] - a[1]) * dy) / length } else { 0.0 };
        let t = t.clamp(0.0, 1.0);
        [a[0] + t * dx, a[1] + t * dy]
    };
    edges().map(on_edge).min_by(|p, q| distance(p).total_cmp(&distance(q)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Vec<Point>> {
        prop::collection::vec(prop::array::uniform2(-1.0..1.0f64), 3..12)
    }

    fn inside(polygon: &[Point], p: Point) -> bool {
        nearest_on(polygon, p) == Some(p)
    }

    proptest! {
        /// A point is in the hull if some triangle of the points contains it: the slow reference.
        #[test]
        fn hull_is_the_union_of_all_triangles(points in points(), p in prop::array::uniform2(-1.0..1.0)) {
            let outline = hull(points.clone());
            let mut found = false;
            for a in &points { for b in &points { for c in &points {
                let signs = [cross(*a, *b, p), cross(*b, *c, p), cross(*c, *a, p)];
                found |= signs.iter().all(|s| *s > 0.0);
            }}}
            let edge = (0..outline.len()).any(|i| cross(outline[i], outline[(i + 1) % outline.len()], p).abs() < 1e-9);
            prop_assume!(!edge && outline.len() >= 3);
            prop_assert_eq!(inside(&outline, p), found);
        }

        #[test]
        fn clipping_is_intersection(a in points(), b in points(), p in prop::array::uniform2(-1.0..1.0)) {
            let (a, b) = (hull(a), hull(b));
            prop_assume!(a.len() >= 3 && b.len() >= 3);
            let both = hull(clipped(&a, &b));
            let near_edge = |o: &[Point]| (0..o.len()).any(|i| cross(o[i], o[(i + 1) % o.len()], p).abs() < 1e-6);
            prop_assume!(!near_edge(&a) && !near_edge(&b) && !near_edge(&both));
            prop_assert_eq!(both.len() >= 3 && inside(&both, p), inside(&a, p) && inside(&b, p));
        }

        /// Against the corners and 200 points of every edge: no sample is nearer, and one is nearly as near.
        #[test]
        fn nearest_is_nearest(a in points(), p in prop::array::uniform2(-2.0..2.0)) {
            let a = hull(a);
            prop_assume!(a.len() >= 3 && !inside(&a, p));
            let distance = |q: Point| (q[0] - p[0]).hypot(q[1] - p[1]);
            let found = distance(nearest_on(&a, p).unwrap());
            let mut best = f64::INFINITY;
            for i in 0..a.len() {
                let (q, r) = (a[i], a[(i + 1) % a.len()]);
                for k in 0..=200 {
                    let t = f64::from(k) / 200.0;
                    best = best.min(distance([q[0] + t * (r[0] - q[0]), q[1] + t * (r[1] - q[1])]));
                }
            }
            // Samples are at most 2√2/200 apart.
            prop_assert!(found <= best + 1e-12 && best <= found + 0.0142);
        }
    }
}
