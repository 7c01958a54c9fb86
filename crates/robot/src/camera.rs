use crate::{CameraStream, Frame, RobotError};

/// A source of images: what a driver, a file or a network gives, in RGB and of one size.
///
/// Whatever takes long (opening, waiting, decoding) happens in [`open`](Self::open) or on a thread of the camera's own, so
/// that a control loop may ask for [`latest`](Self::latest) in every period.
pub trait Camera: Send {
    /// Name and size of every frame. The same before and after opening.
    fn stream(&self) -> &CameraStream;

    /// Opens the source, and waits until it has given a frame or the source's time limit has passed.
    ///
    /// # Errors
    /// [`RobotError::Camera`] that names the camera and says what to do.
    fn open(&mut self) -> Result<(), RobotError>;

    /// The latest frame, of the stream's size. Never blocks longer than a few milliseconds once the camera is open; the same
    /// frame may come twice, [`Frame::captured`] tells.
    ///
    /// # Errors
    /// [`RobotError::Camera`] that names the camera: it is not open, or its latest frame is too old to act on.
    fn latest(&mut self) -> Result<Frame, RobotError>;

    /// Closes the source and ends its threads. May be called at any time, and more than once.
    fn close(&mut self);
}
