use crate::{CameraStream, Joint, Observation, RobotError};

/// What a robot is made of, known before it is connected.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The kind of robot, for example `so101_follower`.
    pub kind: String,
    /// The numbers of a state and of an action, in this order.
    pub joints: Vec<Joint>,
    /// The images of an observation, in this order.
    pub cameras: Vec<CameraStream>,
}

/// An arm, real or simulated. One thread calls it; none of the calls may block for longer than a few control periods.
///
/// Torque comes on with [`connect`](Self::connect) and goes off with [`stop`](Self::stop) at the latest; a driver that is
/// dropped while it is connected turns torque off as well as it can.
pub trait Robot: Send {
    /// Joints, units, limits and cameras. The same before and after connecting.
    fn describe(&self) -> &Description;

    /// Opens the connection, checks that this is the robot described, turns torque on where the arm stands.
    ///
    /// # Errors
    /// [`RobotError`] that names what is missing or differs, and what mends it. Torque is off then.
    fn connect(&mut self) -> Result<(), RobotError>;

    /// Reads all joints, and takes the latest frame of each camera. Whatever else fails stands in
    /// [`Observation::problems`], at every observation for as long as it lasts.
    ///
    /// # Errors
    /// [`RobotError`] that names the joint, the camera or the cable, if the joints cannot be read or an image never came.
    fn observe(&mut self) -> Result<Observation, RobotError>;

    /// Sends one goal position a joint, in the units of the description. Safety limits have been applied by the caller;
    /// a driver refuses what its registers cannot hold.
    ///
    /// # Errors
    /// [`RobotError`] that names the joint or the cable.
    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError>;

    /// Makes where the arm stands its goal: it stays there, with torque.
    ///
    /// # Errors
    /// [`RobotError`] that names the joint or the cable.
    fn hold(&mut self) -> Result<(), RobotError> {
        let here = self.observe()?.positions;
        self.act(&here)
    }

    /// Turns torque off and closes the connection. May be called at any time, and more than once.
    ///
    /// # Errors
    /// [`RobotError`] if torque may still be on, with what to do then.
    fn stop(&mut self) -> Result<(), RobotError>;
}

/// A robot that is chosen at run time.
impl<R: Robot + ?Sized> Robot for Box<R> {
    fn describe(&self) -> &Description {
        (**self).describe()
    }

    fn connect(&mut self) -> Result<(), RobotError> {
        (**self).connect()
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        (**self).observe()
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        (**self).act(positions)
    }

    fn hold(&mut self) -> Result<(), RobotError> {
        (**self).hold()
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        (**self).stop()
    }
}
