/// What went wrong between a program and a robot. Texts name the joint, the camera or the cable, and the remedy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RobotError {
    /// Called before `connect` or after `stop`.
    #[error("the robot is not connected")]
    NotConnected,
    /// The robot cannot be opened, or is not the one that was described: nothing has moved.
    #[error("{0}")]
    Connect(String),
    /// The connection is lost: what follows will fail until `connect` succeeds.
    #[error("{0}")]
    Disconnected(String),
    /// One exchange failed, a later one may succeed.
    #[error("{0}")]
    Bus(String),
    /// A servo reports that it protects itself: overload, heat, voltage.
    #[error("{joint}: {fault}")]
    Fault {
        /// The joint that reports it.
        joint: String,
        /// What it reports, and what to do.
        fault: String,
    },
    /// A camera gives no images.
    #[error("camera {camera}: {problem}")]
    Camera {
        /// The camera's name.
        camera: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A command that must not be sent: NaN, too few numbers, a position that the robot cannot take.
    #[error("{0}")]
    Command(String),
}
