use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::CalibrationError;

/// Which of two arms: the one that is moved, or the one that a hand moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// LeRobot: a robot.
    Follower,
    /// LeRobot: a teleoperator.
    Leader,
}

impl Role {
    /// Folders below the root: the one that LeRobot writes to now, then those that it wrote to before.
    const fn folders(self) -> [&'static str; 3] {
        match self {
            Self::Follower => ["robots/so_follower", "robots/so101_follower", "robots/so100_follower"],
            Self::Leader => {
                ["teleoperators/so_leader", "teleoperators/so101_leader", "teleoperators/so100_leader"]
            }
        }
    }
}

/// The folder of LeRobot's calibrations: `$HF_LEROBOT_CALIBRATION`, else `calibration` in `$HF_LEROBOT_HOME`, else in
/// `lerobot` in `$HF_HOME`, else in `$XDG_CACHE_HOME/huggingface/lerobot`, else in `~/.cache/huggingface/lerobot`; `~` is
/// the home folder in all of them. `variable` looks up the environment: `|name| std::env::var_os(name)`.
pub fn root(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
    let folder = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty()).map(PathBuf::from)?;
        Some(value.strip_prefix("~").map(|rest| home.join(rest)).unwrap_or(value))
    };
    if let Some(calibration) = folder("HF_LEROBOT_CALIBRATION") {
        return calibration;
    }
    let hub = || {
        folder("HF_HOME").unwrap_or_else(|| {
            folder("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("huggingface")
        })
    };
    folder("HF_LEROBOT_HOME").unwrap_or_else(|| hub().join("lerobot")).join("calibration")
}

/// Where an arm's calibration is written to.
///
/// # Errors
/// [`CalibrationError::Name`] if the arm's name is no file name.
pub fn path(root: &Path, role: Role, id: &str) -> Result<PathBuf, CalibrationError> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty() || id.starts_with('.') || !id.chars().all(plain) {
        return Err(CalibrationError::Name(id.into()));
    }
    Ok(root.join(role.folders()[0]).join(format!("{id}.json")))
}

/// Where an arm's calibration is: the first of the folders that has it.
///
/// # Errors
/// [`CalibrationError::Missing`] with all places, and [`CalibrationError::Name`].
pub fn find(root: &Path, role: Role, id: &str) -> Result<PathBuf, CalibrationError> {
    path(root, role, id)?;
    let looked: Vec<PathBuf> =
        role.folders().iter().map(|folder| root.join(folder).join(format!("{id}.json"))).collect();
    match looked.iter().find(|path| path.is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(CalibrationError::Missing { id: id.into(), looked }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn root_of(variables: &[(&str, &str)]) -> PathBuf {
        root(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_root_is_lerobots() {
        let home = ("HOME", "/home/ada");
        assert_eq!(root_of(&[home]), Path::new("/home/ada/.cache/huggingface/lerobot/calibration"));
        assert_eq!(
            root_of(&[home, ("XDG_CACHE_HOME", "/c")]),
            Path::new("/c/huggingface/lerobot/calibration")
        );
        assert_eq!(root_of(&[home, ("HF_HOME", "/hf")]), Path::new("/hf/lerobot/calibration"));
        let lerobot = ("HF_LEROBOT_HOME", "~/le");
        assert_eq!(root_of(&[home, ("HF_HOME", "/hf"), lerobot]), Path::new("/home/ada/le/calibration"));
        assert_eq!(root_of(&[home, lerobot, ("HF_LEROBOT_CALIBRATION", "/cal")]), Path::new("/cal"));
        assert_eq!(
            root_of(&[home, lerobot, ("HF_LEROBOT_CALIBRATION", "")]),
            Path::new("/home/ada/le/calibration")
        );
    }

    #[test]
    fn newer_folders_come_first() {
        let root = tempfile::tempdir().unwrap();
        let missing = find(root.path(), Role::Leader, "arm").unwrap_err().to_string();
        assert!(missing.contains("teleoperators/so_leader/arm.json"), "{missing}");
        assert!(missing.contains("teleoperators/so101_leader/arm.json"), "{missing}");
        assert!(missing.ends_with("; calibrate the arm"), "{missing}");
        for folder in ["robots/so100_follower", "robots/so101_follower", "robots/so_follower"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            let file = root.path().join(folder).join("arm.json");
            fs::write(&file, "").unwrap();
            assert_eq!(find(root.path(), Role::Follower, "arm").unwrap(), file);
        }
        assert_eq!(
            path(root.path(), Role::Follower, "arm").unwrap(),
            root.path().join("robots/so_follower/arm.json")
        );
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for name in ["", "..", "../arm", "a/b", ".hidden", "a\0b"] {
            let error = path(Path::new("/"), Role::Follower, name).unwrap_err();
            assert!(matches!(error, CalibrationError::Name(_)), "{error}");
        }
        assert!(path(Path::new("/"), Role::Follower, "my_arm-2.b").is_ok());
    }
}
