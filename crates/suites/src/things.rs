//! The things on the table. The first part of a thing is what the fingers close on.

use skillweld_robot_sim::{Body, Motion, Part, Pose, Shape, Vec3, vec3};

use crate::layout::{Place, Support, above};

/// Edge of the cubes.
pub(crate) const CUBE_M: f64 = 0.036;
/// How far a drawer comes out.
pub(crate) const TRAVEL_M: f64 = 0.055;
/// Half the outer size of a cabinet along its drawer's way, across it, and its height.
pub(crate) const CABINET_M: [f64; 3] = [0.036, 0.036, 0.052];
/// From the middle of a closed drawer to the middle of its handle.
pub(crate) const HANDLE_M: f64 = 0.057;

fn part(shape: Shape, pose: Pose, color: [u8; 3]) -> Part {
    Part { shape, pose, color }
}

fn slab(centre: [f64; 3], half: [f64; 3], color: [u8; 3]) -> Part {
    part(Shape::cuboid(half[0], half[1], half[2]), Pose::at(centre[0], centre[1], centre[2]), color)
}

fn standing(place: Place, height_m: f64, yaw_rad: f64) -> Pose {
    Pose { position: above(place, 0.5 * height_m), ..Pose::IDENTITY }.turned(Vec3::Z, yaw_rad)
}

pub(crate) fn cube(name: &str, place: Place, yaw_rad: f64, on_m: f64, color: [u8; 3]) -> Body {
    let mut pose = standing(place, CUBE_M, yaw_rad);
    pose.position.z += on_m;
    Body::block(name, vec3(CUBE_M, CUBE_M, CUBE_M), color, pose)
}

pub(crate) fn brick(name: &str, size_m: Vec3, place: Place, yaw_rad: f64, color: [u8; 3]) -> Body {
    Body::block(name, size_m, color, standing(place, size_m.z, yaw_rad))
}

pub(crate) fn disc(name: &str, radius_m: f64, height_m: f64, place: Place, color: [u8; 3]) -> Body {
    Body::cylinder(name, radius_m, height_m, color, standing(place, height_m, 0.0))
}

/// A cylinder of 17 mm radius and 44 mm height with a lid of another colour.
pub(crate) fn can(name: &str, place: Place, color: [u8; 3], lid: [u8; 3]) -> Body {
    let parts = vec![
        part(Shape::cylinder(0.017, 0.020), Pose::at(0.0, 0.0, -0.002), color),
        part(Shape::cylinder(0.015, 0.002), Pose::at(0.0, 0.0, 0.020), lid),
    ];
    Body::new(name, parts, standing(place, 0.044, 0.0))
}

/// A bottle of 17 mm radius with a neck, 52 mm high.
pub(crate) fn bottle(name: &str, place: Place, color: [u8; 3], cap: [u8; 3]) -> Body {
    let parts = vec![
        part(Shape::cylinder(0.017, 0.016), Pose::at(0.0, 0.0, -0.010), color),
        part(Shape::cylinder(0.009, 0.006), Pose::at(0.0, 0.0, 0.012), color),
        part(Shape::cylinder(0.010, 0.004), Pose::at(0.0, 0.0, 0.022), cap),
    ];
    Body::new(name, parts, standing(place, 0.052, 0.0))
}

/// A carton of two colours, 34 × 34 × 52 mm.
pub(crate) fn carton(name: &str, place: Place, yaw_rad: f64, colors: [[u8; 3]; 2]) -> Body {
    let parts = vec![
        slab([0.0, 0.0, -0.008], [0.017, 0.017, 0.018], colors[0]),
        slab([0.0, 0.0, 0.018], [0.017, 0.017, 0.008], colors[1]),
    ];
    Body::new(name, parts, standing(place, 0.052, yaw_rad))
}

/// A round plate of 42 mm radius, 5 mm high, too heavy to be moved, and where things are put on it.
pub(crate) fn plate(place: Place, colors: [[u8; 3]; 2]) -> (Body, Support) {
    let parts = vec![
        part(Shape::cylinder(0.042, 0.0020), Pose::at(0.0, 0.0, -0.0005), colors[0]),
        part(Shape::cylinder(0.030, 0.0025), Pose::IDENTITY, colors[1]),
    ];
    let body = Body::new("plate", parts, standing(place, 0.005, 0.0)).moving(Motion::Fixed);
    (body, Support { name: "plate", spots: vec![vec3(0.0, 0.0, 0.0025)], half_m: [0.036, 0.036] })
}

/// A heavy open box, and where things are put in it.
pub(crate) fn tray(
    name: &'static str,
    place: Place,
    yaw_rad: f64,
    size_m: Vec3,
    spots_x_m: &[f64],
    color: [u8; 3],
) -> (Body, Support) {
    const WALL_M: f64 = 0.004;
    let body = Body::tray(name, size_m, WALL_M, color, standing(place, size_m.z, yaw_rad));
    let floor_m = WALL_M - 0.5 * size_m.z;
    let spots = spots_x_m.iter().map(|&x| vec3(x, 0.0, floor_m)).collect();
    let half_m = [0.5 * size_m.x - WALL_M, 0.5 * size_m.y - WALL_M];
    (body.moving(Motion::Fixed), Support { name, spots, half_m })
}

/// A pedestal with a flat top, too heavy to be moved.
pub(crate) fn pedestal(name: &str, place: Place, yaw_rad: f64, size_m: Vec3, color: [u8; 3]) -> Body {
    brick(name, size_m, place, yaw_rad, color).moving(Motion::Fixed)
}

/// A heavy cabinet `cabinet` and its `drawer`, which opens along `yaw_rad`; what is put on the one and into the other.
pub(crate) fn cabinet(
    place: Place,
    yaw_rad: f64,
    wood: [u8; 3],
    front: [u8; 3],
    handle: [u8; 3],
) -> ([Body; 2], [Support; 2]) {
    let [x, y, height] = CABINET_M;
    let (wall, half) = (0.002, 0.5 * height);
    let shell = vec![
        slab([0.0, 0.0, half - wall], [x, y, wall], wood),
        slab([0.0, y - wall, -wall], [x, wall, half - wall], wood),
        slab([0.0, wall - y, -wall], [x, wall, half - wall], wood),
        slab([wall - x, 0.0, -wall], [wall, y - 2.0 * wall, half - wall], wood),
    ];
    let body = Body::new("cabinet", shell, standing(place, height, yaw_rad)).moving(Motion::Fixed);
    // A box with a millimetre of air around it, 67 mm long. Its frame is 20 mm above the table, in the cabinet's middle.
    let (long, wide, low, middle) = (0.0335, y - 2.0 * wall - 0.001, 0.018, 0.0025);
    let parts = vec![
        slab([middle, 0.0, 0.0005 - low], [long, wide, 0.0015], front),
        slab([middle, wide - 0.0015, 0.0], [long, 0.0015, low], front),
        slab([middle, 0.0015 - wide, 0.0], [long, 0.0015, low], front),
        slab([middle + 0.0015 - long, 0.0, 0.0], [0.0015, wide - 0.003, low], front),
        slab([x + 0.0025, 0.0, 0.0045], [0.002, y, 0.0215], front),
        slab([HANDLE_M, 0.0, 0.008], [0.0165, 0.006, 0.008], handle),
    ];
    let (sin, cos) = yaw_rad.sin_cos();
    let motion = Motion::Slides { axis: vec3(cos, sin, 0.0), travel_m: TRAVEL_M };
    let pose = Pose { position: above(place, 0.020), ..Pose::IDENTITY }.turned(Vec3::Z, yaw_rad);
    let drawer = Body::new("drawer", parts, pose).moving(motion);
    let on = Support { name: "cabinet", spots: vec![vec3(0.0, 0.0, half)], half_m: [x, y] };
    // The middle of what comes out of the cabinet.
    let spot = vec3(x - 0.5 * TRAVEL_M, 0.0, 0.002 - low);
    let into = Support { name: "drawer", spots: vec![spot], half_m: [long, wide] };
    ([body, drawer], [on, into])
}

/// The thing after a turn of the whole table: at another place, turned, its drawer opening another way.
pub(crate) fn turned(body: &Body, angle_rad: f64, place: impl Fn(Place) -> Place) -> Body {
    let pose = body.pose();
    let [x, y] = place([pose.position.x, pose.position.y]);
    let turn = Pose::IDENTITY.turned(Vec3::Z, angle_rad).rotation;
    let moved = Pose { position: vec3(x, y, pose.position.z), rotation: turn * pose.rotation };
    let motion = match body.motion {
        Motion::Slides { axis, travel_m } => {
            let axis = turn.rotate(axis);
            // Products of rotations are level and of length one but for rounding.
            Motion::Slides { axis: vec3(axis.x, axis.y, 0.0).unit().unwrap_or(Vec3::X), travel_m }
        }
        motion => motion,
    };
    Body::new(body.name.clone(), body.parts.clone(), moved).moving(motion)
}
