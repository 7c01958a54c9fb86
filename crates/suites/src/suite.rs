//! The four suites, one file each: tasks, layouts, looks.

mod goal;
mod long;
mod object;
mod spatial;

use skillweld_robot_sim::{Body, Random, Scene};

use crate::layout::{Layout, PAN_M, Places, Sector, Support};
use crate::task::Task;
use crate::things;

/// Tasks that share one distribution of scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// Five identical cubes in different places: which one goes on the plate.
    Spatial,
    /// Five different things: which one goes into the basket.
    Object,
    /// One scene with a drawer, a plate, a zone, a cube and a disc: what to do in it.
    Goal,
    /// A drawer, a tray, a can and a cube: two things to do, one after the other.
    Long,
}

impl Suite {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Spatial, Self::Object, Self::Goal, Self::Long];

    /// In lower case, for file names and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spatial => "spatial",
            Self::Object => "object",
            Self::Goal => "goal",
            Self::Long => "long",
        }
    }

    /// At least five tasks. Each has the same layouts for the same seeds.
    pub fn tasks(self) -> &'static [Task] {
        match self {
            Self::Spatial => spatial::TASKS,
            Self::Object => object::TASKS,
            Self::Goal => goal::TASKS,
            Self::Long => long::TASKS,
        }
    }

    /// Bodies and zones, and what instructions call them.
    pub(crate) fn names(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Spatial => spatial::NAMES,
            Self::Object => object::NAMES,
            Self::Goal => goal::NAMES,
            Self::Long => long::NAMES,
        }
    }

    /// Where everything is, or `None` where this attempt finds no room.
    pub(crate) fn attempt(self, random: &mut Random) -> Option<Layout> {
        match self {
            Self::Spatial => spatial::layout(random),
            Self::Object => object::layout(random),
            Self::Goal => goal::layout(random),
            Self::Long => long::layout(random),
        }
    }

    /// Table, light and background, with both cameras of `size` × `size` pixels.
    pub(crate) fn look(self, size: usize) -> Scene {
        match self {
            Self::Spatial => spatial::look(size),
            Self::Object => object::look(size),
            Self::Goal => goal::look(size),
            Self::Long => long::look(size),
        }
    }
}

/// A cabinet to the left or to the right whose drawer opens towards the middle; takes room for it and for its open drawer. Fingers that
/// have not turned close on its handle. Colours of wood, front and handle.
fn cabinet_at_a_side(places: &mut Places<'_>, colors: [[u8; 3]; 3]) -> ([Body; 2], [Support; 2]) {
    let side = if places.random.uniform(0.0, 1.0) < 0.5 { -1.0 } else { 1.0 };
    let (out_m, aside_m) = (places.random.uniform(0.140, 0.165), places.random.uniform(0.146, 0.158));
    let place = [PAN_M + out_m, side * aside_m];
    let yaw_rad = places.askew_rad() - side * std::f64::consts::FRAC_PI_2;
    let (sin, cos) = yaw_rad.sin_cos();
    let along = |way_m: f64| [place[0] + way_m * cos, place[1] + way_m * sin];
    places.taken.extend([
        (place, 0.052),
        (along(0.055), 0.042),
        (along(0.095), 0.040),
        (along(0.120), 0.026),
    ]);
    let [wood, front, handle] = colors;
    things::cabinet(place, yaw_rad, wood, front, handle)
}

/// The part of the table that such a cabinet, at `y_m`, leaves, out to an angle on the other side.
fn beside_the_cabinet(y_m: f64, out_to_rad: f64) -> Sector {
    if y_m > 0.0 { Sector::between(-out_to_rad, 0.45) } else { Sector::between(-0.45, out_to_rad) }
}
