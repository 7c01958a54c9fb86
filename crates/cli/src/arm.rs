//! Which robot a command drives, and how it is reached.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use skillweld_camera::{CameraSpec, parse_size};
use skillweld_robot::{BodyUnit, Robot, WithCameras};
use skillweld_robot_sim::{Clock, SimArm, SimOptions};
use skillweld_robot_so101::calibration::{Calibration, Role, find, root};
use skillweld_robot_so101::guard::GuardianCommand;
use skillweld_robot_so101::{ArmOptions, FollowerOptions, So101Follower, So101Leader};

/// Rows and columns: both cameras are drawn well within a control period.
const SIM_IMAGES: (usize, usize) = (240, 320);
/// The arm's name, where none is given.
const ARM: &str = "arm";

/// The robot.
#[derive(clap::Args)]
#[command(next_help_heading = "Robot")]
pub(crate) struct RobotArguments {
    /// What is driven.
    #[arg(long, value_enum, default_value_t)]
    robot: Kind,
    /// The arm's serial port; `skillweld robot find-port` finds it.
    #[arg(long, value_name = "PORT", required_if_eq("robot", "so101"))]
    port: Option<String>,
    /// The arm's name: that of its calibration file, which is LeRobot's [default: arm].
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// What positions of the joints before the gripper mean: `degrees` from the middle of each joint's range, or `centred`, −100 … 100
    /// over it; the gripper is 0 … 100.
    #[arg(long, value_name = "UNIT", default_value = "degrees", value_parser = body_unit)]
    units: BodyUnit,
    /// A camera: NAME=pattern, NAME=dir:FOLDER, NAME=http://HOST/PATH or NAME=v4l2:/dev/video0, then :WIDTHxHEIGHT and @FPS
    /// (not after http://) as needed. In the order in which the policy was trained with them. The simulated arm has `front` and `wrist`.
    #[arg(long = "camera", value_name = "NAME=SOURCE")]
    cameras: Vec<String>,
    /// The fastest that any joint of the arm turns, in degrees a second. Without load an STS3215 does 270.
    #[arg(long, value_name = "DEG_S", default_value_t = 120.0)]
    max_velocity: f64,
    /// Where the simulated cubes lie [default: 0].
    #[arg(long, value_name = "N")]
    sim_seed: Option<u64>,
    /// Size of the simulated cameras' images [default: 320x240].
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    sim_images: Option<(usize, usize)>,
}

/// `--robot`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A simulated SO-101 on a table with cubes
    #[default]
    Sim,
    /// An SO-100 or SO-101 on a serial port
    So101,
}

/// `degrees` or `centred`.
pub(crate) fn body_unit(text: &str) -> Result<BodyUnit> {
    let all = [BodyUnit::Degrees, BodyUnit::Centred];
    let named = all.into_iter().find(|body| body.unit().name() == text);
    named.context("write degrees, from the middle of each joint's range, or centred, -100 to 100 over it")
}

impl RobotArguments {
    /// Refuses what would have no effect: whoever names a port means an arm.
    pub(crate) fn check(&self) -> Result<()> {
        let simulated = self.robot == Kind::Sim;
        ensure!(!(simulated && self.port.is_some()), "--port is an arm's: add --robot so101");
        ensure!(!(simulated && self.id.is_some()), "--id is an arm's: add --robot so101");
        ensure!(simulated || self.sim_seed.is_none(), "--sim-seed is for --robot sim");
        ensure!(simulated || self.sim_images.is_none(), "--sim-images is for --robot sim");
        Ok(())
    }

    /// The robot, not connected yet.
    pub(crate) fn robot(&self) -> Result<Box<dyn Robot>> {
        let cameras = self.cameras.iter().map(|text| CameraSpec::parse(text)?.camera());
        let cameras = cameras.collect::<Result<Vec<_>, _>>()?;
        let arm: Box<dyn Robot> = match self.robot {
            Kind::Sim => Box::new(SimArm::new(&self.sim())?),
            Kind::So101 => Box::new(self.follower()?),
        };
        if cameras.is_empty() {
            return Ok(arm);
        }
        Ok(Box::new(WithCameras::new(arm, cameras)?))
    }

    /// The units that a leader arm has to have.
    pub(crate) fn units(&self) -> BodyUnit {
        self.units
    }

    fn sim(&self) -> SimOptions {
        let (height, width) = self.sim_images.unwrap_or(SIM_IMAGES);
        let units = self.units;
        let (seed, max_velocity_deg_s) = (self.sim_seed.unwrap_or_default(), self.max_velocity);
        SimOptions { units, clock: Clock::Live, height, width, seed, max_velocity_deg_s }
    }

    fn follower(&self) -> Result<So101Follower> {
        let port = self.port.clone().context("--port is missing")?;
        let arm = options(&port, self.id.as_deref().unwrap_or(ARM), Role::Follower, self.units)?;
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let arguments = ["robot", "guard", "--port", &port].map(Into::into).to_vec();
        let guardian = Some(GuardianCommand { program, arguments });
        Ok(So101Follower::new(FollowerOptions { arm, max_velocity_deg_s: self.max_velocity, guardian })?)
    }
}

/// A leader arm, if one is named.
#[derive(clap::Args)]
#[command(next_help_heading = "Leader arm")]
pub(crate) struct LeaderArguments {
    /// The serial port of an arm that is moved by hand.
    #[arg(long, value_name = "PORT")]
    leader_port: Option<String>,
    /// The leader's name: that of its calibration file.
    #[arg(long, value_name = "NAME", default_value = "leader", requires = "leader_port")]
    leader_id: String,
}

impl LeaderArguments {
    /// The leader in the follower's units, not connected yet.
    pub(crate) fn leader(&self, units: BodyUnit) -> Result<Option<So101Leader>> {
        let Some(port) = &self.leader_port else { return Ok(None) };
        Ok(Some(So101Leader::new(options(port, &self.leader_id, Role::Leader, units)?)?))
    }
}

/// An arm with its calibration, which LeRobot may have made.
fn options(port: &str, id: &str, role: Role, units: BodyUnit) -> Result<ArmOptions> {
    let path = calibration_path(id, role)?;
    let calibration = Calibration::load(&path)?;
    Ok(ArmOptions { port: port.to_owned(), id: id.to_owned(), calibration, body: units })
}

fn calibration_path(id: &str, role: Role) -> Result<PathBuf> {
    Ok(find(&root(|name| std::env::var_os(name)), role, id)?)
}

/// Rows and columns.
fn size(text: &str) -> Result<(usize, usize)> {
    parse_size(text).context("write WIDTHxHEIGHT, such as 640x480")
}
