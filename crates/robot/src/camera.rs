use crate::{CameraStream, Frame, RobotError};

/// One camera, whatever it is made of: a capture thread, a simulator, a file.
pub trait Camera: Send {
    /// Name and size of its frames. The same before and after opening.
    fn stream(&self) -> &CameraStream;

    /// Starts capturing, and waits for the first frame.
    ///
    /// # Errors
    /// [`RobotError::Camera`] that names the camera and what mends it.
    fn open(&mut self) -> Result<(), RobotError>;

    /// The latest frame; never blocks longer than a few ms once open. The same frame again if no newer one has come:
    /// its `captured` tells.
    ///
    /// # Errors
    /// [`RobotError::Camera`] before `open`, and if no frames come any more.
    fn latest(&mut self) -> Result<Frame, RobotError>;

    /// Stops capturing. May be called at any time, and more than once.
    fn close(&mut self);
}
