use crate::{Camera, Description, Frame, Observation, Robot, RobotError};

/// An arm with cameras that its driver does not know: their frames follow the arm's own.
pub struct WithCameras<R> {
    arm: R,
    cameras: Vec<Opened>,
    description: Description,
}

/// A camera, and what it gave last: an image of a moment ago is better than none, and its age tells.
struct Opened {
    camera: Box<dyn Camera>,
    last: Option<Frame>,
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
        let cameras = cameras.into_iter().map(|camera| Opened { camera, last: None }).collect();
        Ok(Self { arm, cameras, description })
    }

    fn close_cameras(&mut self) {
        for Opened { camera, last } in &mut self.cameras {
            camera.close();
            *last = None;
        }
    }
}

impl<R: Robot> Robot for WithCameras<R> {
    fn describe(&self) -> &Description {
        &self.description
    }

    /// Torque comes on last, when all cameras give images.
    fn connect(&mut self) -> Result<(), RobotError> {
        let opened = self.cameras.iter_mut().try_for_each(|opened| opened.camera.open());
        let connected = opened.and_then(|()| self.arm.connect());
        if connected.is_err() {
            self.close_cameras();
        }
        connected
    }

    fn observe(&mut self) -> Result<Observation, RobotError> {
        let mut observation = self.arm.observe()?;
        for Opened { camera, last } in &mut self.cameras {
            let frame = match (camera.latest(), last.clone()) {
                (Ok(frame), _) => frame,
                (Err(error), Some(frame)) => {
                    observation.problems.push(error);
                    frame
                }
                (Err(error), None) => return Err(error),
            };
            observation.frames.push(frame.clone());
            *last = Some(frame);
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
