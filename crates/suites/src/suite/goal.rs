//! One scene, different things to do in it.

use skillweld_robot_sim::{Background, Light, Mark, Random, Scene, Surface, vec3};

use crate::goal::Goal;
use crate::layout::{GRASP_ROOM_M, Layout, Places, Support, Zone, distance_m};
use crate::look;
use crate::suite::Suite;
use crate::task::Task;
use crate::things;

const SUITE: Suite = Suite::Goal;
const STEPS: u32 = 160;
const DISC_M: [f64; 2] = [0.021, 0.024];

pub(super) const TASKS: &[Task] = &[
    Task {
        suite: SUITE,
        id: "goal_open",
        instruction: "open the drawer",
        rephrased: [
            "pull the drawer open",
            "slide the drawer out of the cabinet",
            "make the inside of the little cupboard accessible",
        ],
        goals: &[Goal::Open { drawer: "drawer" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "goal_plate",
        instruction: "put the red cube on the plate",
        rephrased: [
            "place the red cube on the plate",
            "take the red block and set it on the yellow dish",
            "serve what is red on what is round and yellow",
        ],
        goals: &[Goal::On { object: "cube", support: "plate" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "goal_cabinet",
        instruction: "put the red cube on top of the cabinet",
        rephrased: [
            "place the red cube on the cabinet",
            "take the red block and set it on the roof of the drawer",
            "the highest thing here should have something red on it",
        ],
        goals: &[Goal::On { object: "cube", support: "cabinet" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "goal_stack",
        instruction: "stack the red cube on the blue disc",
        rephrased: [
            "place the red cube on the blue disc",
            "take the red block and pile it on the blue puck",
            "build a tower of blue below and red above",
        ],
        goals: &[Goal::On { object: "cube", support: "disc" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "goal_push",
        instruction: "push the blue disc into the green zone",
        rephrased: [
            "slide the blue disc into the green zone",
            "shove the blue puck over the table until it is on the green square",
            "cover the green patch with what is round and blue, without lifting it",
        ],
        goals: &[Goal::Within { object: "disc", zone: "zone" }],
        step_limit: STEPS,
    },
];

/// Bodies and zones, and what instructions call them.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("cube", "red cube"),
    ("disc", "blue disc"),
    ("plate", "plate"),
    ("zone", "green zone"),
    ("cabinet", "cabinet"),
    ("drawer", "drawer"),
];

pub(super) fn layout(random: &mut Random) -> Option<Layout> {
    let mut places = Places::new(random);
    let (cabinet, supports) =
        super::cabinet_at_a_side(&mut places, [[150, 106, 70], [246, 240, 228], [52, 56, 64]]);
    let beside = |out_to_rad| super::beside_the_cabinet(cabinet[0].pose().position.y, out_to_rad);
    // What is wide keeps further from the picture's edge.
    let (free, inner) = (beside(0.96), beside(0.80));
    let disc = places.find(free, GRASP_ROOM_M)?;
    // The zone is a push of 8 to 12 cm away, to a side, and nothing stands in between.
    let zone = places.find(inner, 0.030)?;
    let push_m = distance_m(disc, zone);
    if !(0.080..0.120).contains(&push_m) || (disc[0] - zone[0]).abs() > 0.030 {
        return None;
    }
    let along = |share: f64| [disc[0] + share * (zone[0] - disc[0]), disc[1] + share * (zone[1] - disc[1])];
    // Behind the disc the closed fingers come down.
    let behind = along(-0.045 / push_m);
    if !places.taken[..places.taken.len() - 2].iter().all(|(p, r)| distance_m(*p, behind) > r + 0.018) {
        return None;
    }
    places.taken.extend([(along(0.5), 0.034), (behind, 0.018)]);
    let plate = places.find(inner, 0.042)?;
    let cube = places.find(free, GRASP_ROOM_M)?;
    let (plate, on_plate) = things::plate(plate, [[244, 196, 44], [250, 226, 130]]);
    let top_m = 0.5 * DISC_M[1];
    let on_disc = Support { name: "disc", spots: vec![vec3(0.0, 0.0, top_m)], half_m: [DISC_M[0]; 2] };
    let mut bodies = vec![
        things::cube("cube", cube, places.askew_rad(), 0.0, [208, 34, 38]),
        things::disc("disc", DISC_M[0], DISC_M[1], disc, [34, 70, 204]),
        plate,
    ];
    bodies.extend(cabinet);
    let mark =
        Mark { centre_m: zone, half_m: [0.032, 0.032], yaw_rad: places.askew_rad(), color: [44, 168, 84] };
    let mut all = vec![on_plate, on_disc];
    all.extend(supports);
    let zones = vec![Zone { name: "zone", mark }];
    Some(Layout { bodies, supports: all, zones, taken: places.taken })
}

pub(super) fn look(size: usize) -> Scene {
    look::scene(
        size,
        Surface::Checker { colors: [[232, 236, 240], [196, 208, 222]], size_m: 0.055 },
        Light { direction: vec3(0.5, 0.3, 1.0), intensity: [0.94, 0.96, 1.0], ambient: 0.46 },
        Background { top: [214, 150, 148], horizon: [246, 222, 210], floor: [150, 112, 112] },
    )
}
