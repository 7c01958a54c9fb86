//! What mends an error with this program: libraries say what is wrong, and know none of its commands.

use skillweld_drive::ConnectError;
use skillweld_robot::{Disagreement, DriveError, RobotError, Unit};
use skillweld_robot_so101::calibration::CalibrationError;
use skillweld_robot_so101::protocol::BusError;

/// For an arm whose torque may be on.
pub(crate) const RELEASE: &str = "`skillweld robot release --port PORT` turns torque off";

/// The command or the argument that mends an error, in words that go on its sentence; none if its text says it all.
pub(crate) fn of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<DriveError>() {
            return match error {
                DriveError::Disagreement(disagreement) => of_disagreement(disagreement),
                DriveError::Robot(error) => of_robot(error),
                DriveError::TorqueMayBeOn { .. } => Some(RELEASE.to_owned()),
                _ => None,
            };
        }
        let said = match (cause.downcast_ref(), cause.downcast_ref(), cause.downcast_ref()) {
            (Some(CalibrationError::Missing { .. } | CalibrationError::Content { .. }), ..) => {
                "`skillweld robot calibrate` does that"
            }
            (_, Some(BusError::Open { .. }), _) => "`skillweld robot find-port` finds the arm's port",
            (.., Some(ConnectError::Unreachable { .. })) => "`skillweld serve` is one",
            _ => {
                let disagreement = cause.downcast_ref().and_then(of_disagreement);
                return disagreement.or_else(|| cause.downcast_ref().and_then(of_robot));
            }
        };
        Some(said.to_owned())
    })
}

fn of_disagreement(disagreement: &Disagreement) -> Option<String> {
    match disagreement {
        Disagreement::Cameras { .. } => Some("--camera NAME=SOURCE adds one".to_owned()),
        Disagreement::Instruction => Some("--task TEXT does that".to_owned()),
        Disagreement::Units { found: found @ (Unit::Degrees | Unit::Centred), set, .. }
            if *set != Unit::Percent =>
        {
            Some(format!("--units {found} does that"))
        }
        _ => None,
    }
}

fn of_robot(error: &RobotError) -> Option<String> {
    matches!(error, RobotError::Connect(_))
        .then(|| "`skillweld robot --help` lists what finds, sets up and calibrates an arm".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy(error: impl std::error::Error + Send + Sync + 'static) -> Option<String> {
        of(&anyhow::Error::new(error).context("while something was done"))
    }

    #[test]
    fn errors_of_libraries_have_this_programs_remedies() {
        let units = |found, set| {
            let (joint, robot) = ("elbow_flex".to_owned(), "so101_follower".to_owned());
            DriveError::Disagreement(Disagreement::Units { who: "the policy", found, joint, robot, set })
        };
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(remedy(units(Unit::Centred, Unit::Degrees)), said("--units centred does that"));
        assert_eq!(remedy(units(Unit::Metres, Unit::Degrees)), None);
        assert_eq!(remedy(units(Unit::Degrees, Unit::Percent)), None);
        assert_eq!(remedy(Disagreement::Instruction), said("--task TEXT does that"));
        let open =
            BusError::Open { port: "/dev/ttyACM0".to_owned(), reason: "there is no such port".to_owned() };
        assert_eq!(remedy(open), said("`skillweld robot find-port` finds the arm's port"));
        let connect = DriveError::Robot(RobotError::Connect("no reply".to_owned()));
        assert!(remedy(connect).is_some_and(|text| text.contains("skillweld robot --help")));
        let (cause, error) = (Box::new(DriveError::Stopped), RobotError::Bus("silence".to_owned()));
        assert_eq!(remedy(DriveError::TorqueMayBeOn { cause, error }), said(RELEASE));
        assert_eq!(remedy(DriveError::Stopped), None);
    }
}
