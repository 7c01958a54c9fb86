use crate::{Camera, Description, Observation, Robot, RobotError};

/// An arm with cameras that its driver does not know: their frames follow the arm's own.
pub struct WithCameras<R> {
    arm: R,
    cameras: Vec<Box<dyn Camera>>,
    description: Description,
}

impl<R: Robot> WithCameras<R> {
    /// The cameras are opened and closed with the arm.
    ///
    /// # Errors
    /// [`RobotError::Camera`] if two cameras have the same name.
    pub fn new(arm: R, cameras: Vec<Box<dyn Camera>>) -> Result<Self, RobotError> {
        let mut description = arm.describe().clone();
        for camera in &cameras {
            let stream = camera.stream();
            if description.cameras.iter().any(|other| other.name == stream.name) {
                let problem = "there are two of this name: give each its own".to_owned();
                return Err(RobotError::Camera { camera: stream.name.clone(), problem });
            }
            description.cameras.push(stream.clone());
        }
        Ok(Self { arm, cameras, description })
    }

    fn close_cameras(&mut self) {
        self.cameras.iter_mut().for_each(|camera| camera.close());
    }
}

impl<R: Robot> Robot for WithCameras<R> {
    fn describe(&self) -> &Description {
        &self.description
    }

    /// Torque comes on last, when all cameras give images.
    fn connect(&mut self) -> Result<(), RobotError> {
        let opened = self.cameras.iter_mut().try_for_each(|camera| camera.open());
        let connected = opened.and_then(|()| self.arm.connect());
        if connected.is_err() {
            self.close_cameras();
        }
        connected
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        let mut observation = self.arm.observe()?;
        for camera in &mut self.cameras {
            observation.frames.push(camera.latest()?);
        }
        Ok(observation)
    }

    fn act(&mut self, positions: &[f64]) -> Result<(), RobotError> {
        self.arm.act(positions)
    }

    /// Holding needs no camera: an arm holds although one has failed.
    fn hold(&mut self) -> Result<(), RobotError> {
        self.arm.hold()
    }

    fn stop(&mut self) -> Result<(), RobotError> {
        let stopped = self.arm.stop();
        self.close_cameras();
        stopped
    }
}
