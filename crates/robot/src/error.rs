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
    /// Something of the arm is not as it must be to go on: a servo that protects itself against overload, heat, voltage.
    #[error("{joint}: {fault}")]
    Fault {
        /// The joint that reports it, or the part of the driver.
        joint: String,
        /// What it reports, and what to do.
        fault: String,
    },
    /// A joint has let go by itself, as after its supply failed for a moment. What it was set to is lost: nothing may be sent
    /// until `connect` has set it up anew.
    #[error("{joint}: {problem}")]
    LetGo {
        /// The joint that is limp.
        joint: String,
        /// What is known of it, and what to do.
        problem: String,
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
