use proptest::prelude::*;

use super::*;
use crate::arm::ArmModel;
use crate::body::Body;
use crate::geometry::{Pose, Quat, vec3};
use crate::scene::Scene;
use crate::shape::{Shape, Solid};
use crate::tabletop::cubes_and_tray;

/// What a ray meets first: the slow reference. Distance along the ray, whose part along the view is one; whose it is, and
/// which of all primitives.
fn cast(world: &World, eye: Vec3, ray: Vec3) -> Option<(f64, Tag, usize)> {
    let bodies = world.bodies().iter().enumerate().flat_map(|(i, body)| {
        let tag = if i == TABLE { Tag::Table } else { Tag::Body(i) };
        body.solids().iter().map(move |s| (*s, tag))
    });
    let arm = world
        .arm()
        .parts
        .iter()
        .map(|part| (Solid::new(part.shape, world.frames().pose(part.link) * part.pose), Tag::Arm));
    let all = bodies.chain(arm).enumerate();
    let hits = all.filter_map(|(index, (solid, tag))| Some((enter(&solid, eye, ray)?, tag, index)));
    // What is at the near plane or around the eye is cut open, and left out of the comparison.
    let first = hits.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (first.0 > 2.0 * f64::from(NEAR_M)).then_some(first)
}

/// Where a ray enters a box or a cylinder.
fn enter(solid: &Solid, eye: Vec3, ray: Vec3) -> Option<f64> {
    let origin = solid.local(eye);
    let direction = solid.local(eye + ray) - origin;
    let slab = |o: f64, d: f64, half: f64| {
        let (a, b) = ((-half - o) / d, (half - o) / d);
        if d == 0.0 {
            if o.abs() <= half {
                (f64::NEG_INFINITY, f64::INFINITY)
            } else {
                (f64::INFINITY, f64::NEG_INFINITY)
            }
        } else {
            (a.min(b), a.max(b))
        }
    };
    let mut spans = Vec::new();
    match solid.shape {
        Shape::Box { half_m } => {
            spans.push(slab(origin.x, direction.x, half_m.x));
            spans.push(slab(origin.y, direction.y, half_m.y));
            spans.push(slab(origin.z, direction.z, half_m.z));
        }
        Shape::Cylinder { radius_m, half_height_m } => {
            spans.push(slab(origin.z, direction.z, half_height_m));
            let a = direction.x * direction.x + direction.y * direction.y;
            let b = origin.x * direction.x + origin.y * direction.y;
            let c = origin.x * origin.x + origin.y * origin.y - radius_m * radius_m;
            let root = (b * b - a * c).max(0.0).sqrt();
            if b * b < a * c {
                return None;
            }
            spans.push(((-b - root) / a, (-b + root) / a));
        }
    }
    let from = spans.iter().map(|s| s.0).fold(f64::NEG_INFINITY, f64::max);
    let to = spans.iter().map(|s| s.1).fold(f64::INFINITY, f64::min);
    (from < to && to > 0.0).then_some(from)
}

fn world(seed: u64) -> World {
    let mut random = Random::new(seed);
    let mut bodies = cubes_and_tray(seed % 100);
    let axis = vec3(random.normal(), random.normal(), random.normal()).unit().unwrap_or(Vec3::Z);
    let tilted =
        Pose { position: vec3(0.3, 0.1, 0.15), rotation: Quat::about(axis, random.uniform(0.0, 3.0)) };
    bodies.push(Body::cylinder("can", 0.03, 0.1, [200, 200, 20], tilted));
    let mut world = World::new(ArmModel::so101(), Scene::tabletop(56, 42), bodies).expect("a sound world");
    let arm = ArmModel::so101();
    let joints = std::array::from_fn(|j| {
        let (min, max) = (arm.joints[j].min_rad, arm.joints[j].max_rad);
        if j == 1 || j == 2 { random.uniform(-0.8, 0.3) } else { random.uniform(min, max) }
    });
    world.set_joints(&joints);
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// At pixel centres where eight neighbours of the ray, three millimetres aside, meet the same primitive at a like
    /// distance, the picture shows that thing at that distance. Facets and broken edges cost up to
    /// 0.03 · (1 − cos(π/24)) + 1.2 = 1.5 mm across, seen at the slant that the neighbours allow, which is 6 : 3.
    #[test]
    fn triangles_show_what_rays_meet(seed: u64) {
        let world = world(seed);
        let mut renderer = Renderer::new();
        renderer.gather(&world);
        let (mut compared, mut things) = (0, 0);
        for camera in &world.scene.cameras {
            let view = View::new(camera, &world, 1);
            renderer.draw(&view);
            let wide = |v: [f32; 3]| vec3(f64::from(v[0]), f64::from(v[1]), f64::from(v[2]));
            let (eye, right, down) = (wide(view.eye), wide(view.right), wide(view.down));
            for row in 0..camera.height {
                for column in 0..camera.width {
                    let ray = wide(view.ray(column, row));
                    let Some((distance, tag, index)) = cast(&world, eye, ray) else { continue };
                    let calm = (0..8).all(|k| {
                        let (sin, cos) = (f64::from(k) * std::f64::consts::FRAC_PI_4).sin_cos();
                        let aside = ray + (right * cos + down * sin) * (0.003 / distance);
                        cast(&world, eye, aside).is_some_and(|(d, _, i)| i == index && (d - distance).abs() < 0.006)
                    });
                    if !calm {
                        continue;
                    }
                    let at = row * camera.width + column;
                    prop_assert!(renderer.layer.triangle[at] != NOTHING, "nothing at {column}, {row}");
                    let triangle = renderer.mesh.triangles[renderer.layer.triangle[at] as usize];
                    let seen = renderer.mesh.materials[triangle.material as usize].tag;
                    let depth = 1.0 / f64::from(renderer.layer.nearness[at]);
                    prop_assert_eq!(seen, tag, "at {}, {}", column, row);
                    prop_assert!((depth - distance).abs() < 0.005, "{depth} for {distance} at {column}, {row}");
                    compared += 1;
                    things += usize::from(tag != Tag::Table);
                }
            }
        }
        prop_assert!(compared > 500 && things > 20, "only {compared} pixels were compared, {things} beside the table");
    }
}

#[test]
fn the_same_state_gives_the_same_bytes_and_noise_is_seeded() {
    let mut world = world(5);
    let plain = Renderer::new().render(&world).unwrap();
    let mut used = Renderer::new();
    used.render(&self::world(6)).unwrap();
    assert!(used.render(&world).unwrap() == plain, "what was drawn before leaves no trace");
    world.scene.noise = 6.0;
    let noisy = used.render(&world).unwrap();
    assert!(noisy == used.render(&world).unwrap() && noisy != plain);
    let differences: Vec<f64> =
        noisy[0].rgb.iter().zip(&plain[0].rgb).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
    let count = differences.len() as f64;
    let sigma = (differences.iter().map(|d| d * d).sum::<f64>() / count).sqrt();
    // 7056 numbers: the estimate is within 5/√(2 · 7056) = 4 % of the truth; bright sky is clipped a little.
    assert!((5.0..6.3).contains(&sigma), "{sigma}");
    world.scene.noise_seed = 1;
    assert!(used.render(&world).unwrap() != noisy);
}

#[test]
fn the_number_of_threads_does_not_show() {
    let mut world = world(7);
    world.scene.cameras[0].width = 640;
    world.scene.cameras[0].height = 481;
    let with = |threads: usize| {
        let mut renderer = Renderer::new();
        renderer.threads = threads;
        renderer.render(&world).unwrap()
    };
    assert!(with(1) == with(3));
}

#[test]
fn every_knob_changes_the_picture() {
    let knobs: [fn(&mut Scene); 13] = [
        |s| s.light.direction = vec3(-1.0, 0.3, 1.0),
        |s| s.light.intensity[0] = 0.3,
        |s| s.light.ambient = 0.9,
        |s| s.background.top = [9, 9, 9],
        |s| s.table.surface = crate::scene::Surface::Plain { color: [90, 120, 90] },
        |s| s.table.surface = crate::scene::Surface::Checker { colors: [[0; 3], [255; 3]], size_m: 0.05 },
        |s| s.cameras[0].eye = vec3(0.7, 0.2, 0.5),
        |s| s.cameras[0].fov_y_rad = 1.0,
        |s| s.cameras[0].target.y = 0.1,
        |s| s.cameras[0].up = vec3(0.3, 0.0, 1.0),
        |s| s.background.horizon = [9, 9, 9],
        |s| s.samples = 2,
        |s| {
            let (centre_m, half_m) = ([0.2, 0.0], [0.6, 0.6]);
            s.table.marks.push(crate::scene::Mark { centre_m, half_m, yaw_rad: 0.4, color: [20, 160, 60] });
        },
    ];
    let mut world = world(5);
    // A little sky in the picture.
    world.scene.cameras[0].target.z = 0.3;
    let plain = world.scene.clone();
    let mut renderer = Renderer::new();
    let before = renderer.render(&world).unwrap();
    for (index, knob) in knobs.into_iter().enumerate() {
        world.scene = plain.clone();
        knob(&mut world.scene);
        assert!(renderer.render(&world).unwrap()[0] != before[0], "knob {index}");
    }
}

/// A cube under a light from straight above: the table beside it is in the sun, and under a floating one it is not.
#[test]
fn bodies_throw_shadows() {
    let mut scene = Scene::tabletop(64, 64);
    scene.cameras.truncate(1);
    scene.light.direction = Vec3::Z;
    scene.table.surface = crate::scene::Surface::Plain { color: [200; 3] };
    scene.cameras[0].eye = vec3(0.3, -0.3, 0.15);
    scene.cameras[0].target = vec3(0.3, 0.0, 0.0);
    let cube = Body::block("cube", vec3(0.06, 0.06, 0.06), [200, 0, 0], Pose::at(0.3, 0.0, 0.3));
    let world = World::new(ArmModel::so101(), scene.clone(), vec![cube]).unwrap();
    let shaded = Renderer::new().render(&world).unwrap();
    let bare = Renderer::new().render(&World::new(ArmModel::so101(), scene, Vec::new()).unwrap()).unwrap();
    let middle = (32 * 64 + 32) * 3;
    assert!(f64::from(shaded[0].rgb[middle]) < 0.8 * f64::from(bare[0].rgb[middle]));
    let corner = (60 * 64 + 4) * 3;
    assert_eq!(shaded[0].rgb[corner..corner + 3], bare[0].rgb[corner..corner + 3]);
}

/// Along the view, a pixel aside, behind, beside, and in a camera that is not there.
#[test]
fn points_are_located_where_the_camera_draws_them() {
    let mut world = world(0);
    let camera = &mut world.scene.cameras[0];
    (camera.eye, camera.target, camera.up) = (vec3(0.5, 0.0, 0.2), vec3(0.0, 0.0, 0.2), Vec3::Z);
    (camera.width, camera.height, camera.fov_y_rad) = (80, 60, std::f64::consts::FRAC_PI_2);
    let at = |x, y, z| Renderer::locate(&world, 0, vec3(x, y, z));
    let near = |found: Option<[f64; 3]>, expected: [f64; 3]| {
        let found = found.unwrap();
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?} for {expected:?}");
    };
    near(at(0.1, 0.0, 0.2), [40.0, 30.0, 0.4]);
    // A focal length of half the height: 30 pixels for as far aside as away. Looking along -x, right is +y.
    near(at(0.1, 0.04, 0.24), [43.0, 27.0, 0.4]);
    assert_eq!(at(0.6, 0.0, 0.2), None, "behind");
    assert_eq!(at(0.1, 0.0, 0.7), None, "above the picture");
    assert_eq!(Renderer::locate(&world, 9, Vec3::ZERO), None);
}
