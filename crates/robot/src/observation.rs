use std::sync::Arc;
use std::time::Instant;

use crate::RobotError;

/// Longest side of an image that is taken or kept, in pixels: an 8K camera's is 7680.
pub const MAX_SIDE: usize = 8192;

/// A camera of a robot: what every frame of one name looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraStream {
    /// For example `front` or `wrist`; in datasets `observation.images.front`.
    pub name: String,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// One image of a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// height × width × 3 bytes, RGB, shared by everyone who looks at it.
    pub rgb: Arc<[u8]>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// When the light fell in, as well as the driver knows; what tells a stale frame from a fresh one.
    pub captured: Instant,
}

/// What a robot saw and felt at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// When the joints were read.
    pub captured: Instant,
    /// One position a joint, in the order and the units of the description's joints.
    pub positions: Vec<f64>,
    /// The latest frame of each camera, in the order of the description's cameras.
    pub frames: Vec<Frame>,
    /// What failed while the joints were read all the same: a servo that is too hot, a camera whose last frame stands here once
    /// more. Empty if all is well.
    pub problems: Vec<RobotError>,
}
