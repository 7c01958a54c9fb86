//! Two things to do, one after the other.

use skillweld_robot_sim::{Background, Light, Random, Scene, Surface, vec3};

use crate::goal::Goal;
use crate::layout::{Layout, Places, Sector, Support, UNTURNED_ROOM_M};
use crate::look;
use crate::suite::Suite;
use crate::task::Task;
use crate::things;

const SUITE: Suite = Suite::Long;
const STEPS: u32 = 320;
const OPEN: Goal = Goal::Open { drawer: "drawer" };

pub(super) const TASKS: &[Task] = &[
    Task {
        suite: SUITE,
        id: "long_can_drawer",
        instruction: "open the drawer and put the red can in it",
        rephrased: [
            "pull the drawer open and place the red can inside",
            "slide out the drawer, then drop the red tin into it",
            "store what is round and red in the cupboard, which has to be opened first",
        ],
        goals: &[OPEN, Goal::On { object: "can", support: "drawer" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "long_cube_drawer",
        instruction: "open the drawer and put the blue cube in it",
        rephrased: [
            "pull the drawer open and place the blue cube inside",
            "slide out the drawer, then drop the blue block into it",
            "store what is square and blue in the cupboard, which has to be opened first",
        ],
        goals: &[OPEN, Goal::On { object: "cube", support: "drawer" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "long_both_tray",
        instruction: "put the red can and the blue cube in the tray",
        rephrased: [
            "place both the red can and the blue cube in the tray",
            "collect the tin and the block in the white tray",
            "nothing that is small and coloured should be left on the table",
        ],
        goals: &[Goal::On { object: "can", support: "tray" }, Goal::On { object: "cube", support: "tray" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "long_stack_open",
        instruction: "stack the red can on the blue cube and open the drawer",
        rephrased: [
            "place the red can on the blue cube and pull the drawer open",
            "pile the tin on the block, then slide out the drawer",
            "build a tower of blue below and red above, and make the cupboard accessible",
        ],
        goals: &[Goal::On { object: "can", support: "cube" }, OPEN],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "long_can_tray_open",
        instruction: "put the red can in the tray and open the drawer",
        rephrased: [
            "place the red can in the tray and pull the drawer open",
            "drop the tin into the white tray, then slide out the drawer",
            "what is round and red belongs in the tray, and the cupboard should be accessible",
        ],
        goals: &[Goal::On { object: "can", support: "tray" }, OPEN],
        step_limit: STEPS,
    },
];

/// Bodies and zones, and what instructions call them.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("can", "red can"),
    ("cube", "blue cube"),
    ("tray", "tray"),
    ("cabinet", "cabinet"),
    ("drawer", "drawer"),
];

pub(super) fn layout(random: &mut Random) -> Option<Layout> {
    let mut places = Places::new(random);
    let (cabinet, supports) =
        super::cabinet_at_a_side(&mut places, [[206, 208, 212], [58, 176, 128], [30, 32, 36]]);
    let beside = |out_to_rad| super::beside_the_cabinet(cabinet[0].pose().position.y, out_to_rad);
    // What is wide keeps further from the picture's edge.
    let (free, inner) = (beside(0.96), beside(0.80));
    let tray = places.find(Sector { radius_m: [0.165, 0.215], ..inner }, 0.066)?;
    let tray_yaw_rad = tray[1].atan2(tray[0]) + places.random.uniform(-0.4, 0.4);
    let can = places.find(free, UNTURNED_ROOM_M)?;
    let cube = places.find(free, UNTURNED_ROOM_M)?;
    let (tray, in_tray) = things::tray(
        "tray",
        tray,
        tray_yaw_rad,
        vec3(0.124, 0.080, 0.020),
        &[-0.032, 0.032],
        [244, 244, 246],
    );
    let top_m = 0.5 * things::CUBE_M;
    let on_cube = Support { name: "cube", spots: vec![vec3(0.0, 0.0, top_m)], half_m: [top_m; 2] };
    let mut bodies = vec![
        things::can("can", can, [222, 44, 44], [230, 230, 232]),
        things::cube("cube", cube, places.askew_rad(), 0.0, [58, 128, 246]),
        tray,
    ];
    bodies.extend(cabinet);
    let mut all = vec![in_tray, on_cube];
    all.extend(supports);
    Some(Layout { bodies, supports: all, zones: Vec::new(), taken: places.taken })
}

pub(super) fn look(size: usize) -> Scene {
    look::scene(
        size,
        Surface::Wood { colors: [[126, 84, 54], [88, 56, 36]], size_m: 0.07 },
        Light { direction: vec3(-0.3, -0.5, 1.0), intensity: [1.08, 0.98, 0.82], ambient: 0.46 },
        Background { top: [28, 34, 62], horizon: [74, 84, 124], floor: [30, 28, 36] },
    )
}
