//! Overlap of boxes and cylinders, against points sampled in both.

use proptest::prelude::*;
use skillweld_robot_sim::{
    Pose, Quat, Random, Shape, Solid, Vec3, contact, push_xy, separation_m, sweep, vec3,
};

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        prop::array::uniform3(0.01..0.06f64).prop_map(|[x, y, z]| Shape::cuboid(x, y, z)),
        (0.01..0.05f64, 0.01..0.05f64).prop_map(|(r, h)| Shape::cylinder(r, h)),
    ]
}

fn pose() -> impl Strategy<Value = Pose> {
    (prop::array::uniform3(-0.06..0.06f64), prop::array::uniform3(-1.0..1.0f64), -3.0..3.0f64)
        .prop_filter_map("an axis", |(p, a, angle)| {
            let axis = vec3(a[0], a[1], a[2]).unit()?;
            Some(Pose { position: vec3(p[0], p[1], p[2]), rotation: Quat::about(axis, angle) })
        })
}

fn solid() -> impl Strategy<Value = Solid> {
    (shape(), pose()).prop_map(|(shape, pose)| Solid::new(shape, pose))
}

fn cuboid() -> impl Strategy<Value = Solid> {
    (prop::array::uniform3(0.01..0.06f64), pose())
        .prop_map(|([x, y, z], pose)| Solid::new(Shape::cuboid(x, y, z), pose))
}

fn shifted(solid: &Solid, by: Vec3) -> Solid {
    let [x, y, z] = solid.axes;
    let rotation = rotation_of(x, y, z);
    Solid::new(solid.shape, Pose { position: solid.centre + by, rotation })
}

/// The rotation with these columns.
fn rotation_of(x: Vec3, y: Vec3, _z: Vec3) -> Quat {
    let first = Quat::between(Vec3::X, x);
    let turned = first.rotate(Vec3::Y);
    Quat::about(x, turned.cross(y).dot(x).atan2(turned.dot(y))) * first
}

/// A point of the first that is inside of the second, if one of many random ones is.
fn common_point(a: &Solid, b: &Solid, seed: u64) -> Option<Vec3> {
    let mut random = Random::new(seed);
    let half = a.shape.half_m();
    (0..3000).find_map(|_| {
        let [x, y, z] = a.axes;
        let mut share = || random.uniform(-1.0, 1.0);
        let p = a.centre + x * (half.x * share()) + y * (half.y * share()) + z * (half.z * share());
        (a.contains(p, 0.0) && b.contains(p, 0.0)).then_some(p)
    })
}

/// Two of those for which the candidate axes are exact: boxes anyhow, or anything that stands.
fn exact() -> impl Strategy<Value = (Solid, Solid)> {
    let standing = || {
        (shape(), prop::array::uniform3(-0.06..0.06f64), -3.0..3.0f64)
            .prop_map(|(shape, [x, y, z], yaw)| Solid::new(shape, Pose::at(x, y, z).turned(Vec3::Z, yaw)))
    };
    prop_oneof![(cuboid(), cuboid()), (standing(), standing())]
}

proptest! {
    /// A common point means contact, however they are turned.
    #[test]
    fn contact_misses_nothing(a in solid(), b in solid(), seed: u64) {
        let found = contact(&a, &b);
        prop_assert!(found.is_some() || common_point(&a, &b, seed).is_none());
        prop_assert!(found.is_none() || separation_m(&a, &b) < 0.0);
    }

    #[test]
    fn the_normal_leads_out((a, b) in exact()) {
        prop_assert_eq!(contact(&a, &b).is_some(), separation_m(&a, &b) < 0.0);
        if let Some(found) = contact(&a, &b) {
            let out = shifted(&a, found.normal * (found.depth_m + 1e-9));
            prop_assert!(contact(&out, &b).is_none(), "{found:?}");
            prop_assert!((separation_m(&a, &b) + found.depth_m).abs() < 2e-6);
        }
    }

    /// For boxes the answer is exact: half of the way out, they still share a point of their surfaces' corners or edges.
    #[test]
    fn boxes_in_contact_share_a_point(a in cuboid(), b in cuboid(), seed: u64) {
        if let Some(found) = contact(&a, &b) {
            prop_assume!(found.depth_m > 0.01);
            prop_assert!(common_point(&a, &b, seed).is_some() || common_point(&b, &a, seed).is_some(), "{found:?}");
        }
    }

    #[test]
    fn a_sweep_overlaps_inside_of_its_interval_only(a in cuboid(), b in cuboid(), d in prop::array::uniform3(-1.0..1.0f64)) {
        let Some(direction) = vec3(d[0], d[1], d[2]).unit() else { return Ok(()) };
        let at = |t: f64| contact(&shifted(&a, direction * t), &b).is_some();
        match sweep(&a, &b, direction, 0.0) {
            Some((low, high)) => {
                prop_assert!(!at(low - 1e-6) && !at(high + 1e-6));
                prop_assert!(at(0.5 * (low + high)) || high - low < 1e-9);
                prop_assert!(at(low + 0.01 * (high - low)) || high - low < 1e-6);
            }
            None => for k in -100..=100 {
                prop_assert!(!at(f64::from(k) * 0.004));
            }
        }
    }

    #[test]
    fn a_push_in_the_plane_parts_them((a, b) in exact()) {
        prop_assume!(contact(&a, &b).is_some());
        let push = push_xy(&a, &b).unwrap();
        prop_assert!(push.normal.z == 0.0 && (push.normal.length() - 1.0).abs() < 1e-9);
        prop_assert!(contact(&shifted(&a, push.normal * (push.depth_m + 1e-9)), &b).is_none());
    }
}

#[test]
fn faces_that_meet_push_along_the_face() {
    let a = Solid::new(Shape::cuboid(0.02, 0.02, 0.02), Pose::at(0.0, 0.039, 0.0));
    let b = Solid::new(Shape::cuboid(0.02, 0.02, 0.02), Pose::IDENTITY);
    let found = contact(&a, &b).unwrap();
    assert_eq!(found.normal, Vec3::Y);
    assert!((found.depth_m - 0.001).abs() < 1e-12);
    let standing = Solid::new(Shape::cylinder(0.02, 0.05), Pose::at(0.03, 0.03, 0.0));
    // From the edge of the box at (20, 20) to the axis at (30, 30) it is 10√2 mm.
    let found = contact(&standing, &b).unwrap();
    assert!((found.depth_m - (0.02 - 0.01 * 2f64.sqrt())).abs() < 1e-12);
}
