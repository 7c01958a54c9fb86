//! Five identical cubes and a plate. Which one is said by its place: furthest to the left or right, on the pedestal, on the
//! mat, beside the plate.

use skillweld_robot_sim::{Background, Light, Mark, Random, Scene, Surface, vec3};

use crate::goal::Goal;
use crate::layout::{GRASP_ROOM_M, Layout, Place, Places, Sector, Zone, distance_m, polar};
use crate::look;
use crate::suite::Suite;
use crate::task::Task;
use crate::things;

const CUBE: [u8; 3] = [52, 60, 150];
const BOX_M: f64 = 0.020;
const SUITE: Suite = Suite::Spatial;
const STEPS: u32 = 160;

pub(super) const TASKS: &[Task] = &[
    Task {
        suite: SUITE,
        id: "spatial_left",
        instruction: "put the left cube on the plate",
        rephrased: [
            "place the leftmost cube on the plate",
            "take the cube that is furthest to the left and set it on the round dish",
            "the dish should carry the block that has all the others to its right",
        ],
        goals: &[Goal::On { object: "left_cube", support: "plate" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "spatial_right",
        instruction: "put the right cube on the plate",
        rephrased: [
            "place the rightmost cube on the plate",
            "take the cube that is furthest to the right and set it on the round dish",
            "the dish should carry the block that has all the others to its left",
        ],
        goals: &[Goal::On { object: "right_cube", support: "plate" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "spatial_box",
        instruction: "put the cube from the box on the plate",
        rephrased: [
            "place the cube that is on the box on the plate",
            "take the cube off the white box and set it on the round dish",
            "the block that stands higher than the others belongs on the dish",
        ],
        goals: &[Goal::On { object: "box_cube", support: "plate" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "spatial_mat",
        instruction: "put the cube from the mat on the plate",
        rephrased: [
            "place the cube that is on the mat on the plate",
            "take the cube from the green mat and set it on the round dish",
            "the block with a patch of green around it belongs on the dish",
        ],
        goals: &[Goal::On { object: "mat_cube", support: "plate" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "spatial_near",
        instruction: "put the cube next to the plate on the plate",
        rephrased: [
            "place the cube beside the plate on the plate",
            "take the cube closest to the round dish and set it on it",
            "the block that is already near the dish belongs on it",
        ],
        goals: &[Goal::On { object: "near_cube", support: "plate" }],
        step_limit: STEPS,
    },
];

/// Bodies and zones, and what instructions call them.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("left_cube", "left cube"),
    ("right_cube", "right cube"),
    ("box_cube", "cube from the box"),
    ("mat_cube", "cube from the mat"),
    ("near_cube", "cube next to the plate"),
    ("plate", "plate"),
    ("box", "box"),
    ("mat", "mat"),
];

pub(super) fn layout(random: &mut Random) -> Option<Layout> {
    let mut places = Places::new(random);
    let plate = places.find(Sector { radius_m: [0.150, 0.225], angle_rad: [-0.45, 0.45] }, 0.042)?;
    // Its cube is two or three centimetres from the plate's rim; all others are further away than that.
    let from = places.random.uniform(0.0, std::f64::consts::TAU);
    let near_m = places.random.uniform(0.080, 0.088);
    let near = [plate[0] + near_m * from.cos(), plate[1] + near_m * from.sin()];
    let middle = Sector::between(-0.62, 0.62);
    if !within(middle, near) || !places.is_free(near, GRASP_ROOM_M) {
        return None;
    }
    places.taken.push((near, GRASP_ROOM_M));
    places.taken[0].1 = 0.080;
    let pedestal = places.find(middle, GRASP_ROOM_M)?;
    let mat = places.find(middle, GRASP_ROOM_M + 0.004)?;
    let left = places.find(Sector::between(-0.96, -0.64), GRASP_ROOM_M)?;
    let right = places.find(Sector::between(0.64, 0.96), GRASP_ROOM_M)?;
    let others = [near, pedestal, mat];
    if others.iter().any(|p| p[1] < left[1] + 0.030 || p[1] > right[1] - 0.030) {
        return None;
    }
    let mat_yaw_rad = places.askew_rad();
    let box_yaw_rad = places.askew_rad();
    let mut bodies = Vec::new();
    for (name, place, on_m) in [
        ("left_cube", left, 0.0),
        ("right_cube", right, 0.0),
        ("box_cube", pedestal, BOX_M),
        ("mat_cube", mat, 0.0),
        ("near_cube", near, 0.0),
    ] {
        let yaw_rad = places.askew_rad();
        bodies.push(things::cube(name, place, yaw_rad, on_m, CUBE));
    }
    let size_m = vec3(0.052, 0.052, BOX_M);
    bodies.push(things::pedestal("box", pedestal, box_yaw_rad, size_m, [238, 238, 232]));
    let (plate, support) = things::plate(plate, [[214, 72, 62], [242, 222, 214]]);
    bodies.push(plate);
    let mark = Mark { centre_m: mat, half_m: [0.034, 0.034], yaw_rad: mat_yaw_rad, color: [52, 158, 92] };
    let zones = vec![Zone { name: "mat", mark }];
    Some(Layout { bodies, supports: vec![support], zones, taken: places.taken })
}

fn within(sector: Sector, place: Place) -> bool {
    let (forward, aside) = (place[0] - crate::layout::PAN_M, place[1]);
    let [near, far] = sector.radius_m;
    let radius = distance_m(place, polar(0.0, 0.0));
    (near..=far).contains(&radius)
        && (sector.angle_rad[0]..=sector.angle_rad[1]).contains(&aside.atan2(forward))
}

pub(super) fn look(size: usize) -> Scene {
    look::scene(
        size,
        Surface::Wood { colors: [[226, 196, 154], [202, 166, 122]], size_m: 0.11 },
        Light { direction: vec3(0.35, -0.45, 1.0), intensity: [1.0, 0.97, 0.91], ambient: 0.42 },
        Background { top: [112, 164, 222], horizon: [238, 242, 246], floor: [186, 192, 202] },
    )
}
