//! Something to play with: three cubes and a tray.

use crate::body::Body;
use crate::geometry::{Pose, Vec3, vec3};
use crate::random::Random;

/// Edge of the cubes.
const CUBE_M: f64 = 0.025;

/// Cubes `red_cube`, `green_cube` and `blue_cube` of 25 mm in front of the arm, where it reaches them from above, and an open
/// `tray` to its left. The seed decides places and directions.
pub fn cubes_and_tray(seed: u64) -> Vec<Body> {
    let mut random = Random::new(seed);
    let tray_pose = Pose::at(0.150, 0.180, 0.011).turned(Vec3::Z, random.uniform(0.9, 1.2));
    let tray = Body::tray("tray", vec3(0.110, 0.090, 0.022), 0.004, [236, 238, 240], tray_pose);
    let mut cubes: Vec<Body> = Vec::new();
    for (name, color) in
        [("red_cube", [214, 48, 49]), ("green_cube", [46, 160, 87]), ("blue_cube", [41, 98, 214])]
    {
        // Two cubes are apart by more than the fingers are wide. Three of them leave room for every fourth.
        let place = loop {
            let (angle, radius) = (random.uniform(-0.95, 0.30), random.uniform(0.165, 0.225));
            let place = vec3(0.0388 + radius * angle.cos(), radius * angle.sin(), 0.5 * CUBE_M);
            if cubes.iter().all(|cube| (cube.pose().position - place).length() > 0.062) {
                break place;
            }
        };
        let pose = Pose::at(place.x, place.y, place.z).turned(Vec3::Z, random.uniform(-0.7, 0.7));
        cubes.push(Body::block(name, vec3(CUBE_M, CUBE_M, CUBE_M), color, pose));
    }
    cubes.push(tray);
    cubes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arm::ArmModel;
    use crate::scene::Scene;
    use crate::world::World;

    #[test]
    fn every_cube_of_every_seed_is_in_reach_and_touches_nothing() {
        let arm = ArmModel::so101();
        for seed in 0..300 {
            let bodies = cubes_and_tray(seed);
            for cube in &bodies[..3] {
                let (place, yaw) = (cube.pose().position, cube.pose().yaw_rad());
                for height_m in [0.0, 0.045] {
                    let target = arm.from_above(place + Vec3::Z * height_m, yaw, CUBE_M);
                    assert!(arm.inverse(&target, &arm.rest()).is_ok(), "{} of seed {seed}", cube.name);
                }
            }
            let world = World::new(arm.clone(), Scene::tabletop(8, 8), bodies).unwrap();
            assert!(world.penetration_m() < 1e-9, "seed {seed}");
        }
    }
}
