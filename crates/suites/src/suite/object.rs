//! Five different things and a basket: which one is said by its name.

use skillweld_robot_sim::{Background, Light, Random, Scene, Surface, vec3};

use crate::goal::Goal;
use crate::layout::{Layout, Places, Sector, UNTURNED_ROOM_M};
use crate::look;
use crate::suite::Suite;
use crate::task::Task;
use crate::things;

const SUITE: Suite = Suite::Object;
const STEPS: u32 = 160;

pub(super) const TASKS: &[Task] = &[
    Task {
        suite: SUITE,
        id: "object_can",
        instruction: "put the red can in the basket",
        rephrased: [
            "place the red can into the basket",
            "take the tin of tomatoes and drop it in the basket",
            "the round red thing with a metal lid should end up inside the beige box",
        ],
        goals: &[Goal::On { object: "can", support: "basket" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "object_milk",
        instruction: "put the white milk in the basket",
        rephrased: [
            "place the white milk carton into the basket",
            "take the carton with the black bottom and drop it in the basket",
            "the tall white and black pack should end up inside the beige box",
        ],
        goals: &[Goal::On { object: "milk", support: "basket" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "object_butter",
        instruction: "put the yellow butter in the basket",
        rephrased: [
            "place the yellow butter into the basket",
            "take the flat yellow brick and drop it in the basket",
            "what one spreads on bread should end up inside the beige box",
        ],
        goals: &[Goal::On { object: "butter", support: "basket" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "object_bottle",
        instruction: "put the green bottle in the basket",
        rephrased: [
            "place the green bottle into the basket",
            "take the bottle with the white cap and drop it in the basket",
            "the green thing with a neck should end up inside the beige box",
        ],
        goals: &[Goal::On { object: "bottle", support: "basket" }],
        step_limit: STEPS,
    },
    Task {
        suite: SUITE,
        id: "object_tea",
        instruction: "put the pink tea box in the basket",
        rephrased: [
            "place the pink box of tea into the basket",
            "take the pink cube and drop it in the basket",
            "the pack with the colour of raspberries should end up inside the beige box",
        ],
        goals: &[Goal::On { object: "tea", support: "basket" }],
        step_limit: STEPS,
    },
];

/// Bodies and zones, and what instructions call them.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("can", "red can"),
    ("milk", "white milk"),
    ("butter", "yellow butter"),
    ("bottle", "green bottle"),
    ("tea", "pink tea box"),
    ("basket", "basket"),
];

pub(super) fn layout(random: &mut Random) -> Option<Layout> {
    let mut places = Places::new(random);
    let basket = places.find(Sector { radius_m: [0.160, 0.215], angle_rad: [-0.90, 0.90] }, 0.058)?;
    let basket_yaw_rad = places.random.uniform(-0.5, 0.5) + basket[1].atan2(basket[0]);
    let mut found = [[0.0; 2]; 5];
    for place in &mut found {
        *place = places.find(Sector::between(-0.96, 0.96), UNTURNED_ROOM_M)?;
    }
    let [can, milk, butter, bottle, tea] = found;
    let size_m = vec3(0.100, 0.084, 0.022);
    let (basket, support) = things::tray("basket", basket, basket_yaw_rad, size_m, &[0.0], [226, 200, 152]);
    let bodies = vec![
        things::can("can", can, [206, 36, 40], [214, 216, 220]),
        things::carton("milk", milk, places.askew_rad(), [[30, 31, 36], [246, 246, 246]]),
        things::brick("butter", vec3(0.034, 0.046, 0.024), butter, places.askew_rad(), [250, 220, 60]),
        things::bottle("bottle", bottle, [30, 158, 70], [244, 244, 240]),
        things::brick("tea", vec3(0.034, 0.034, 0.034), tea, places.askew_rad(), [226, 70, 150]),
        basket,
    ];
    Some(Layout { bodies, supports: vec![support], zones: Vec::new(), taken: places.taken })
}

pub(super) fn look(size: usize) -> Scene {
    look::scene(
        size,
        Surface::Plain { color: [92, 122, 166] },
        Light { direction: vec3(-0.2, 0.6, 1.0), intensity: [0.98, 1.0, 1.04], ambient: 0.50 },
        Background { top: [66, 92, 84], horizon: [148, 186, 170], floor: [50, 62, 60] },
    )
}
