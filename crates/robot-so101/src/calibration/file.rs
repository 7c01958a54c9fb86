use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use super::{Calibration, MAX_OFFSET, MAX_TICKS, MotorCalibration};
use crate::joints::JOINTS;

/// Why a calibration cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// No file at any of the places where LeRobot or we would have put it.
    #[error(
        "there is no calibration of {id:?}; looked for {}; calibrate the arm",
        .looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Missing {
        /// The arm's name.
        id: String,
        /// Where.
        looked: Vec<PathBuf>,
    },
    /// A name that is no file name.
    #[error("{0:?} cannot be an arm's name: use letters, digits, `-`, `_` and `.`")]
    Name(String),
    /// The system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not a calibration of this arm.
    #[error("{}: {problem}; calibrate the arm anew", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and with which motor.
        problem: String,
    },
}

impl Calibration {
    /// Reads a file of LeRobot's or ours.
    ///
    /// # Errors
    /// [`CalibrationError::Io`] and [`CalibrationError::Content`].
    pub fn load(path: &Path) -> Result<Self, CalibrationError> {
        let text = fs::read_to_string(path).map_err(io("read", path))?;
        Self::parse(&text).map_err(|problem| CalibrationError::Content { path: path.into(), problem })
    }

    /// Reads a file's text. The motors may stand in any order, but must be those of the arm.
    ///
    /// # Errors
    /// What is wrong, and with which motor.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let Value::Object(motors) = value else { return Err("not an object of motors".into()) };
        let is_ours = |name: &str| JOINTS.iter().any(|joint| joint.name == name);
        if let Some(stranger) = motors.keys().find(|name| !is_ours(name)) {
            return Err(format!("{stranger:?} is no motor of an SO-101 arm"));
        }
        let mut read = Vec::new();
        for joint in JOINTS {
            let entry = motors.get(joint.name).and_then(Value::as_object);
            let entry = entry.ok_or_else(|| format!("the motor {:?} is missing", joint.name))?;
            let motor = motor(entry).map_err(|problem| format!("{}: {problem}", joint.name))?;
            read.push(motor);
        }
        let motors = <[MotorCalibration; 6]>::try_from(read).map_err(|_| "not six motors")?;
        let calibration = Self { motors };
        calibration.check()?;
        Ok(calibration)
    }

    /// Whether the numbers can be an arm's.
    ///
    /// # Errors
    /// What is wrong, and with which motor.
    pub fn check(&self) -> Result<(), String> {
        for (i, (motor, joint)) in self.motors.iter().zip(JOINTS).enumerate() {
            let name = joint.name;
            if let Some(twin) = self.motors[..i].iter().position(|other| other.id == motor.id) {
                return Err(format!("{} and {name} have the same id {}", JOINTS[twin].name, motor.id));
            }
            if motor.id != joint.id {
                return Err(format!("{name} has id {}, and not {}", motor.id, joint.id));
            }
            if motor.drive_mode > 1 {
                return Err(format!("{name}: drive_mode is {}, and not 0 or 1", motor.drive_mode));
            }
            if motor.homing_offset.unsigned_abs() > MAX_OFFSET.unsigned_abs() {
                let offset = motor.homing_offset;
                return Err(format!(
                    "{name}: homing_offset {offset} is outside −{MAX_OFFSET} … {MAX_OFFSET}"
                ));
            }
            let (min, max) = (motor.range_min, motor.range_max);
            if min < 0 || max > MAX_TICKS || min >= max {
                return Err(format!(
                    "{name}: the range {min} … {max} is not one within 0 … {MAX_TICKS}, the lower end first"
                ));
            }
        }
        Ok(())
    }

    /// The file's text, as LeRobot writes it: indented by four, without a line's end at the end.
    pub fn to_json(&self) -> String {
        let mut text = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
        let motors: Map<String, Value> = JOINTS
            .iter()
            .zip(&self.motors)
            .filter_map(|(joint, motor)| Some((joint.name.to_owned(), serde_json::to_value(motor).ok()?)))
            .collect();
        // Numbers under names, into memory: nothing in this can fail.
        let _ = motors.serialize(&mut serializer);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Writes the file, with the folders above it: it holds the old calibration or the new one, never a part.
    ///
    /// # Errors
    /// [`CalibrationError::Content`] if the numbers cannot be an arm's, [`CalibrationError::Io`]; what was there is then
    /// untouched.
    pub fn save(&self, path: &Path) -> Result<(), CalibrationError> {
        self.check().map_err(|problem| CalibrationError::Content { path: path.into(), problem })?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(io("make", folder))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.partial"));
        let written = File::create(&partial)
            .and_then(|mut file| file.write_all(self.to_json().as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, path))
            // The new name is on the disk when its folder is.
            .and_then(|()| File::open(folder)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written.map_err(io("write", path))
    }
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CalibrationError {
    let path = path.to_owned();
    move |source| CalibrationError::Io { action, path, source }
}

fn motor(entry: &Map<String, Value>) -> Result<MotorCalibration, String> {
    const FIELDS: [&str; 5] = ["id", "drive_mode", "homing_offset", "range_min", "range_max"];
    if let Some(stranger) = entry.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Err(format!("{stranger:?} is not a field of a motor's calibration"));
    }
    let number = |field: &str| -> Result<i32, String> {
        let value = entry.get(field).ok_or_else(|| format!("{field:?} is missing"))?;
        let number = value.as_i64().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| format!("{field} is {value}, and not a whole number"))
    };
    let byte = |field: &str| {
        let number = number(field)?;
        u8::try_from(number).map_err(|_| format!("{field} is {number}"))
    };
    Ok(MotorCalibration {
        id: byte("id")?,
        drive_mode: byte("drive_mode")?,
        homing_offset: number("homing_offset")?,
        range_min: number("range_min")?,
        range_max: number("range_max")?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `json.dumps(…, indent=4)` writes what LeRobot saves.
    const FILE: &str = r#"{
    "shoulder_pan": {
        "id": 1,
        "drive_mode": 0,
        "homing_offset": -709,
        "range_min": 43,
        "range_max": 1335
    },
    "shoulder_lift": {
        "id": 2,
        "drive_mode": 0,
        "homing_offset": 1104,
        "range_min": 825,
        "range_max": 3217
    },
    "elbow_flex": {
        "id": 3,
        "drive_mode": 0,
        "homing_offset": -1220,
        "range_min": 884,
        "range_max": 3098
    },
    "wrist_flex": {
        "id": 4,
        "drive_mode": 0,
        "homing_offset": -2047,
        "range_min": 877,
        "range_max": 3198
    },
    "wrist_roll": {
        "id": 5,
        "drive_mode": 0,
        "homing_offset": 2047,
        "range_min": 0,
        "range_max": 4095
    },
    "gripper": {
        "id": 6,
        "drive_mode": 1,
        "homing_offset": 0,
        "range_min": 2020,
        "range_max": 3522
    }
}"#;

    #[test]
    fn lerobots_file_comes_back_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("robots/so_follower/arm.json");
        let calibration = Calibration::parse(FILE).unwrap();
        assert_eq!(calibration.motors[0].homing_offset, -709);
        calibration.save(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), FILE);
        assert_eq!(Calibration::load(&path).unwrap(), calibration);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, expected) in [
            ("\"gripper\"", "\"hand\"", "\"hand\" is no motor of an SO-101 arm"),
            ("\"id\": 4", "\"id\": 3", "elbow_flex and wrist_flex have the same id 3"),
            ("\"id\": 4", "\"id\": 7", "wrist_flex has id 7, and not 4"),
            ("\"range_min\": 43", "\"range_min\": 1335", "shoulder_pan: the range 1335 … 1335"),
            ("4095", "4096", "wrist_roll: the range 0 … 4096"),
            ("-709", "-2048", "shoulder_pan: homing_offset -2048 is outside"),
            ("-709", "-2147483648", "shoulder_pan: homing_offset -2147483648 is outside"),
            ("\"drive_mode\": 1", "\"drive_mode\": 2", "gripper: drive_mode is 2"),
            ("-709", "\"-709\"", "shoulder_pan: homing_offset is \"-709\", and not a whole number"),
            ("-709", "0.5", "shoulder_pan: homing_offset is 0.5"),
            ("\"range_max\": 1335", "\"range\": 1335", "shoulder_pan: \"range\" is not a field"),
            ("\"id\": 1,", "", "shoulder_pan: \"id\" is missing"),
            ("}\n}", "}", "not JSON"),
        ] {
            let problem = Calibration::parse(&FILE.replacen(from, to, 1)).unwrap_err();
            assert!(problem.contains(expected), "{problem} / {expected}");
        }
        assert_eq!(Calibration::parse("{}").unwrap_err(), "the motor \"shoulder_pan\" is missing");
        assert_eq!(Calibration::parse("[]").unwrap_err(), "not an object of motors");
    }

    #[test]
    fn the_old_file_stands_if_the_new_one_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arm.json");
        let calibration = Calibration::parse(FILE).unwrap();
        calibration.save(&path).unwrap();
        let mut worse = calibration;
        worse.motors[2].range_max = 5000;
        assert!(matches!(worse.save(&path), Err(CalibrationError::Content { .. })));
        // A folder in the partial file's place.
        fs::create_dir(folder.path().join(".arm.json.partial")).unwrap();
        let error = calibration.save(&path).unwrap_err();
        assert!(error.to_string().contains("arm.json"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), FILE);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"a-z0-9_ .-]{0,200}") {
            let _ = Calibration::parse(&text);
        }

        #[test]
        fn any_valid_calibration_comes_back(
            numbers in proptest::collection::vec((0..2_u8, -2047..=2047_i32, 0..4095_i32, 1..4096_i32), 6),
        ) {
            let mut motors = Calibration::parse(FILE).unwrap().motors;
            for (motor, (drive_mode, offset, min, width)) in motors.iter_mut().zip(numbers) {
                *motor = MotorCalibration {
                    drive_mode,
                    homing_offset: offset,
                    range_min: min,
                    range_max: (min + width).min(MAX_TICKS),
                    ..*motor
                };
            }
            let calibration = Calibration { motors };
            prop_assert_eq!(Calibration::parse(&calibration.to_json()), Ok(calibration));
        }
    }
}
