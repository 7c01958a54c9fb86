use skillweld_robot::{BodyUnit, RobotError};

use crate::calibration::{Calibration, Role};
use crate::joints::{IDS, JOINTS, label, labels};
use crate::protocol::{BAUD, Bus, BusError, Retries};
use crate::registers::{FIRMWARE_MAJOR, FIRMWARE_MINOR, MODEL_NUMBER};

/// Opens the bus, each time that the arm is connected.
pub type Opener = Box<dyn FnMut() -> Result<Bus, BusError> + Send>;

/// Which arm, and in which units.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmOptions {
    /// The serial port, for example `/dev/ttyACM0`.
    pub port: String,
    /// The arm's name: that of its calibration file.
    pub id: String,
    /// What the file says.
    pub calibration: Calibration,
    /// Units of the five joints before the gripper.
    pub body: BodyUnit,
}

impl ArmOptions {
    /// Opens the port that the options name.
    pub(crate) fn opener(&self) -> Opener {
        let port = self.port.clone();
        Box::new(move || Bus::open(&port, BAUD))
    }

    /// The calibration is data that came from somewhere: what divides by its ranges needs them checked.
    pub(crate) fn check(&self) -> Result<(), RobotError> {
        self.calibration
            .check()
            .map_err(|problem| RobotError::Connect(format!("the calibration of {:?}: {problem}", self.id)))
    }

    /// Whether this is the arm that is meant: all servos there, of the right model, of one firmware, calibrated as the file
    /// says. Changes nothing.
    pub(crate) fn verify(&self, bus: &mut Bus, role: Role) -> Result<(), RobotError> {
        self.all_there(bus)?;
        same_firmware(bus)?;
        let motors = Calibration::read_from(bus).map_err(connect)?;
        let differing = self.calibration.differing(&motors);
        if differing.is_empty() {
            return Ok(());
        }
        let role = match role {
            Role::Follower => "follower",
            Role::Leader => "leader",
        };
        Err(RobotError::Connect(format!(
            "the motors of {} at {} are calibrated otherwise than the file of the {role} {:?} says: write the file's \
             calibration to the motors, or calibrate the arm anew",
            differing.join(", "),
            self.port,
            self.id
        )))
    }

    fn all_there(&self, bus: &mut Bus) -> Result<(), RobotError> {
        let mut missing = Vec::new();
        for id in IDS {
            match bus.ping(id) {
                Ok(()) => {
                    let model = bus.read(id, &MODEL_NUMBER).map_err(connect)?;
                    if !MODELS.contains(&model) {
                        let what = label(id);
                        return Err(RobotError::Connect(format!(
                            "{what} is a servo of model {model}, and not an STS3215 (777): is this the arm's port?"
                        )));
                    }
                }
                Err(error) if error.is_lost() => return Err(error.into()),
                Err(_) => missing.push(id),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let strangers = strangers(bus)?;
        let mut text = format!("no reply from {} at {}", labels(&missing), self.port);
        if strangers.is_empty() {
            text += ": check the power supply and the cables between the servos";
        } else {
            let answering = labels(&strangers);
            text += &format!(", but {answering} answers, which no joint is: set it up with its joint's id");
        }
        Err(RobotError::Connect(text))
    }
}

/// STS3215 and its stronger sister STS3250, which has the same memory.
pub(crate) const MODELS: [i32; 2] = [777, 2825];

/// Ids that somebody may have given to a servo by mistake.
const STRANGERS: std::ops::RangeInclusive<u8> = 0..=20;

/// Servos that answer and are no joints. Only asked when one is missing, for it takes a tenth of a second.
fn strangers(bus: &mut Bus) -> Result<Vec<u8>, RobotError> {
    let before = bus.set_retries(Retries::PROBE);
    let mut found = Vec::new();
    for id in STRANGERS.filter(|id| !IDS.contains(id)) {
        match bus.ping(id) {
            Ok(()) => found.push(id),
            Err(error) if error.is_lost() => return Err(error.into()),
            Err(_) => {}
        }
    }
    bus.set_retries(before);
    Ok(found)
}

fn same_firmware(bus: &mut Bus) -> Result<(), RobotError> {
    let mut versions = Vec::new();
    for id in IDS {
        let major = bus.read(id, &FIRMWARE_MAJOR).map_err(connect)?;
        versions.push((major, bus.read(id, &FIRMWARE_MINOR).map_err(connect)?));
    }
    if versions.iter().all(|version| *version == versions[0]) {
        return Ok(());
    }
    let list: Vec<String> = JOINTS
        .iter()
        .zip(versions)
        .map(|(joint, (major, minor))| format!("{} {major}.{minor}", joint.name))
        .collect();
    Err(RobotError::Connect(format!(
        "the servos have different firmware ({}): bring them to one version with Feetech's debugging program",
        list.join(", ")
    )))
}

/// What fails while connecting is an arm that cannot be connected, unless its cable is out.
pub(crate) fn connect(error: BusError) -> RobotError {
    if error.is_lost() { error.into() } else { RobotError::Connect(error.to_string()) }
}
