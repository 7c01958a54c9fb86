use std::f64::consts::FRAC_PI_2;

use skillweld_robot_sim::{ArmModel, Camera, Jaws, Link, Scene, vec3};

/// Which arm stands on the table. All of them reach all layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Embodiment {
    /// The SO-101 as it is.
    #[default]
    So101,
    /// Upper and lower arm longer by 12 and 15 mm; the wrist camera on the other side, with a narrower view.
    Long,
    /// Two fingers that slide, joints that turn less far.
    Parallel,
}

impl Embodiment {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::So101, Self::Long, Self::Parallel];

    /// In lower case, for file names and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::So101 => "so101",
            Self::Long => "long",
            Self::Parallel => "parallel",
        }
    }

    pub(crate) fn arm(self) -> ArmModel {
        let mut arm = ArmModel::so101();
        match self {
            Self::So101 => arm,
            Self::Long => {
                (arm.name, arm.upper_arm_m, arm.lower_arm_m) = ("so101_long".into(), 0.128, 0.150);
                let mut arm = arm.dressed();
                // The camera's box and its bracket change sides, as the camera does.
                for part in &mut arm.parts {
                    if part.link == Link::Gripper && part.pose.position.y > 0.04 {
                        part.pose.position.y = -part.pose.position.y;
                    }
                }
                arm
            }
            Self::Parallel => {
                arm.name = "so101_parallel".into();
                arm.gripper.jaws = Jaws::Parallel { opening_m: 0.072, finger_m: 0.060 };
                (arm.joints[0].min_rad, arm.joints[0].max_rad) = (-FRAC_PI_2, FRAC_PI_2);
                (arm.joints[4].min_rad, arm.joints[4].max_rad) = (-2.4, 2.4);
                (arm.joints[5].min_rad, arm.joints[5].max_rad) = (0.0, 1.2);
                arm.dressed()
            }
        }
    }

    /// The camera on the gripper.
    pub(crate) fn wrist_camera(self, size: usize) -> Option<Camera> {
        let mut camera = Scene::tabletop(size, size).cameras.pop()?;
        if self == Self::Long {
            camera.eye = vec3(-0.073, -0.070, 0.004);
            camera.target = vec3(0.034, 0.002, 0.004);
            camera.up = vec3(0.0, -1.0, 0.0);
            camera.fov_y_rad = 1.10;
        }
        Some(camera)
    }
}
