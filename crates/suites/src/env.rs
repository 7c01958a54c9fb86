use skillweld_robot_sim::{Image, Renderer, STEPS_PER_S, Vec3, World};

use crate::controller::{self, ACTIONS, CONTROL_HZ};
use crate::embodiment::Embodiment;
use crate::error::SuiteError;
use crate::goal::HOLD_STEPS;
use crate::layout::{Support, Zone};
use crate::perturbation::Perturbation;
use crate::setup::Setup;
use crate::split::Split;
use crate::task::Task;

/// Numbers of the state: position, turn, fingers.
pub const STATES: usize = 8;

/// Simulation steps in a control step.
const SUBSTEPS: u32 = STEPS_PER_S / CONTROL_HZ;

/// Which episode of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvOptions {
    /// What the layout is for.
    pub split: Split,
    /// Which layout of the split.
    pub index: u32,
    /// Rows and columns of both pictures.
    pub image_size: usize,
    /// What is unlike training.
    pub perturbation: Option<Perturbation>,
    /// Which arm.
    pub embodiment: Embodiment,
}

impl Default for EnvOptions {
    fn default() -> Self {
        Self {
            split: Split::Training,
            index: 0,
            image_size: 96,
            perturbation: None,
            embodiment: Embodiment::So101,
        }
    }
}

/// What a policy sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The front picture, then the wrist picture: `image_size` × `image_size`, RGB.
    pub images: Vec<Image>,
    /// Tool point x, y, z in metres; its turn from straight down as axis times angle in radians; both fingers, half the
    /// opening and minus that, in metres.
    pub state: [f32; STATES],
}

/// How an episode stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    /// All goals have held for [`HOLD_STEPS`](crate::HOLD_STEPS) control steps.
    pub success: bool,
    /// Control steps so far.
    pub steps: u32,
}

/// One episode of a task.
#[derive(Debug)]
pub struct Env {
    task: &'static Task,
    instruction: String,
    world: World,
    renderer: Renderer,
    supports: Vec<Support>,
    zones: Vec<Zone>,
    steps: u32,
    /// For so many steps all goals have held.
    holding: u32,
    /// Where every body was a step ago.
    before: Vec<Vec3>,
}

impl Env {
    /// The beginning of an episode.
    ///
    /// # Errors
    /// [`SuiteError::Sim`] for impossible picture sizes; [`SuiteError::Layout`] where a seed has no room for its things.
    pub fn new(task: &'static Task, options: &EnvOptions) -> Result<Self, SuiteError> {
        Self::begin(task, Setup::new(task, options)?)
    }

    pub(crate) fn begin(task: &'static Task, setup: Setup) -> Result<Self, SuiteError> {
        let Setup { scene, layout, arm, joints, instruction } = setup;
        let mut world = World::new(arm, scene, layout.bodies)?;
        world.set_joints(&joints);
        // Things find what they stand on.
        world.step();
        let before = world.bodies().iter().map(|b| b.pose().position).collect();
        Ok(Self {
            task,
            instruction,
            world,
            renderer: Renderer::new(),
            supports: layout.supports,
            zones: layout.zones,
            steps: 0,
            holding: 0,
            before,
        })
    }

    /// What is to be done.
    pub fn task(&self) -> &'static Task {
        self.task
    }

    /// What the policy is told: the task's instruction, or a perturbed one.
    pub fn instruction(&self) -> &str {
        &self.instruction
    }

    /// The whole truth, for experts and tests.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The state alone: as in [`Observation`], without drawing anything.
    pub fn state(&self) -> [f32; STATES] {
        controller::state(&self.world)
    }

    /// Draws both pictures and reads the state.
    ///
    /// # Errors
    /// [`SuiteError::Sim`], which a scene that [`new`](Self::new) took does not give.
    pub fn observe(&mut self) -> Result<Observation, SuiteError> {
        Ok(Observation { images: self.renderer.render(&self.world)?, state: self.state() })
    }

    /// One control step of 1/20 s. Numbers beyond −1 … 1 are clipped, and so is what the arm does not reach.
    ///
    /// # Errors
    /// [`SuiteError::Action`] for NaN and infinity; nothing has moved then.
    pub fn step(&mut self, action: &[f64; ACTIONS]) -> Result<Status, SuiteError> {
        let action = controller::checked(action)?;
        self.before.clear();
        self.before.extend(self.world.bodies().iter().map(|b| b.pose().position));
        let (start, goals) = (*self.world.joints(), controller::goals(&self.world, &action));
        for substep in 1..=SUBSTEPS {
            // The goals move on evenly, but the gripper's, and stand still for the last third: servos lag behind.
            let share = (1.5 * f64::from(substep) / f64::from(SUBSTEPS)).min(1.0);
            let mut wanted: [f64; 6] = std::array::from_fn(|j| start[j] + share * (goals[j] - start[j]));
            wanted[skillweld_robot_sim::GRIPPER] = goals[skillweld_robot_sim::GRIPPER];
            self.world.set_goals(&wanted);
            self.world.step();
        }
        self.steps += 1;
        let holds = self.task.goals.iter().all(|goal| goal.holds(self));
        self.holding = if holds { self.holding + 1 } else { 0 };
        Ok(self.status())
    }

    /// How the episode stands.
    pub fn status(&self) -> Status {
        Status { success: self.holding >= HOLD_STEPS, steps: self.steps }
    }

    pub(crate) fn support(&self, name: &str) -> Option<&Support> {
        self.supports.iter().find(|support| support.name == name)
    }

    pub(crate) fn zone(&self, name: &str) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.name == name)
    }

    /// How far a body went in the last control step, in metres.
    pub(crate) fn moved_m(&self, body: usize) -> f64 {
        (self.world.bodies()[body].pose().position - self.before[body]).length()
    }
}
