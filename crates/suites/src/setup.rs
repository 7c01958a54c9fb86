use std::f64::consts::FRAC_PI_2;

use skillweld_robot_sim::{ArmModel, GRIPPER, JOINTS, Random, Scene, ToolTarget, vec3};

use crate::controller::{OPEN_M, reach};
use crate::env::EnvOptions;
use crate::error::SuiteError;
use crate::layout::{Layout, PAN_M};
use crate::task::Task;

/// Everything that an episode begins with, before there is a world: what perturbations change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setup {
    pub(crate) scene: Scene,
    pub(crate) layout: Layout,
    pub(crate) arm: ArmModel,
    pub(crate) joints: [f64; JOINTS],
    pub(crate) instruction: String,
}

impl Setup {
    pub(crate) fn new(task: &Task, options: &EnvOptions) -> Result<Self, SuiteError> {
        let seed = options.split.seed(options.index);
        let layout = Layout::of(task.suite, seed)?;
        let mut scene = task.suite.look(options.image_size);
        scene.cameras.extend(options.embodiment.wrist_camera(options.image_size));
        let arm = options.embodiment.arm();
        // Above the near edge of the reach, a centimetre this way or that, the gripper open and pointing down.
        let mut random = Random::new(!seed);
        let mut jitter = || random.uniform(-0.01, 0.01);
        let position = vec3(PAN_M + 0.145 + jitter(), jitter(), 0.105 + jitter());
        let target = ToolTarget { position, pitch_rad: FRAC_PI_2, roll_rad: 0.0 };
        let mut joints =
            reach(&arm, &target, &arm.rest()).ok_or_else(|| SuiteError::Start { arm: arm.name.clone() })?;
        joints[GRIPPER] = arm.gripper.position_for(OPEN_M, &arm.joints[GRIPPER]);
        let instruction = task.instruction.to_owned();
        let mut setup = Self { scene, layout, arm, joints, instruction };
        if let Some(perturbation) = &options.perturbation {
            perturbation.apply(task, &mut setup)?;
        }
        setup.scene.table.marks = setup.layout.zones.iter().map(|zone| zone.mark).collect();
        Ok(setup)
    }
}
