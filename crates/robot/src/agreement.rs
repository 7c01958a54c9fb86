use crate::{ActionSpace, Description, Expectation, Prompt, Unit};

/// Why a source of actions cannot drive this robot. Nothing has moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// Actions that are not joint positions.
    #[error(
        "the policy's actions are {found}, {robot} is told joint positions: take a policy that was trained on joint positions"
    )]
    Space {
        /// What they are.
        found: &'static str,
        /// The kind of robot.
        robot: String,
    },
    /// Another number of joints.
    #[error(
        "{who} gives {found} numbers an action, {robot} has {} joints ({}): it was made for another robot",
        .joints.len(),
        .joints.join(", ")
    )]
    Joints {
        /// Who gives the actions: `the policy`, `the leader arm`.
        who: &'static str,
        /// Numbers of one action.
        found: usize,
        /// The kind of robot.
        robot: String,
        /// Its joints' names.
        joints: Vec<String>,
    },
    /// Another joint at the same place.
    #[error(
        "number {index} of {who}'s actions is {found}, of {robot} it is {joint}: it was made for another robot"
    )]
    Name {
        /// Who gives the actions.
        who: &'static str,
        /// Where, from 0.
        index: usize,
        /// The name there.
        found: String,
        /// The kind of robot.
        robot: String,
        /// The robot's joint there.
        joint: String,
    },
    /// Another unit.
    #[error("{who}'s actions are {found}, joint {joint} of {robot} is set to {set}: {}", mend(.found, .set))]
    Units {
        /// Who gives the actions.
        who: &'static str,
        /// Their unit.
        found: Unit,
        /// The joint.
        joint: String,
        /// The kind of robot.
        robot: String,
        /// The robot's unit.
        set: Unit,
    },
    /// A state of another length.
    #[error(
        "the policy wants a state of {wanted} numbers, {robot} has {joints} joints: it was made for another robot"
    )]
    State {
        /// Numbers of the state.
        wanted: usize,
        /// The kind of robot.
        robot: String,
        /// How many joints it has.
        joints: usize,
    },
    /// Too few cameras.
    #[error(
        "the policy wants {wanted} images, {robot} has {} cameras ({}): add cameras",
        .cameras.len(),
        .cameras.join(", ")
    )]
    Cameras {
        /// How many images.
        wanted: usize,
        /// The kind of robot.
        robot: String,
        /// Its cameras' names.
        cameras: Vec<String>,
    },
    /// No instruction.
    #[error("the policy wants an instruction: say what the robot is to do")]
    Instruction,
    /// The policy announces what cannot be.
    #[error("the policy announces {0}: its metadata are wrong")]
    Announcement(String),
}

/// What mends two units that differ: the arm's unit may be chosen only between those that cover the same joints.
fn mend(found: &Unit, set: &Unit) -> String {
    let choice = [Unit::Degrees, Unit::Centred];
    if choice.contains(found) && choice.contains(set) {
        format!("set the arm to {found}")
    } else {
        "it was made for another robot".to_owned()
    }
}

/// Checks that a policy and a robot mean the same by an action and by an observation, before anything moves.
///
/// More cameras than the policy wants are allowed: it gets the first.
///
/// # Errors
/// The first [`Disagreement`] found.
pub fn agree(policy: &Expectation, prompt: &Prompt, robot: &Description) -> Result<(), Disagreement> {
    const WHO: &str = "the policy";
    let kind = || robot.kind.clone();
    let found = match policy.space {
        ActionSpace::Positions => None,
        ActionSpace::Deltas => Some("joint movements"),
        ActionSpace::EndEffector => Some("movements of the hand"),
    };
    if let Some(found) = found {
        return Err(Disagreement::Space { found, robot: kind() });
    }
    let listed =
        [("names", policy.names.as_ref().map(Vec::len)), ("units", policy.units.as_ref().map(Vec::len))];
    for (what, length) in listed {
        if let Some(length) = length.filter(|length| *length != policy.action_dim) {
            let text = format!("{length} {what} for actions of {} numbers", policy.action_dim);
            return Err(Disagreement::Announcement(text));
        }
    }
    if policy.horizon == 0 {
        return Err(Disagreement::Announcement("chunks of no actions".to_owned()));
    }
    same_joints(WHO, policy.action_dim, policy.names.as_deref(), policy.units.as_deref(), robot)?;
    if let Some(wanted) = policy.state_dim.filter(|wanted| *wanted != robot.joints.len()) {
        return Err(Disagreement::State { wanted, robot: kind(), joints: robot.joints.len() });
    }
    if policy.images > robot.cameras.len() {
        let cameras = robot.cameras.iter().map(|camera| camera.name.clone()).collect();
        return Err(Disagreement::Cameras { wanted: policy.images, robot: kind(), cameras });
    }
    if policy.needs_instruction && prompt.instruction.as_ref().is_none_or(|text| text.trim().is_empty()) {
        return Err(Disagreement::Instruction);
    }
    Ok(())
}

/// Checks number, names and units of what someone gives as actions against a robot's joints.
pub(crate) fn same_joints(
    who: &'static str,
    count: usize,
    names: Option<&[String]>,
    units: Option<&[Unit]>,
    robot: &Description,
) -> Result<(), Disagreement> {
    if count != robot.joints.len() {
        let joints = robot.joints.iter().map(|joint| joint.name.clone()).collect();
        return Err(Disagreement::Joints { who, found: count, robot: robot.kind.clone(), joints });
    }
    let plain = |name: &str| name.strip_suffix(".pos").unwrap_or(name).to_owned();
    for (index, (joint, found)) in robot.joints.iter().zip(names.unwrap_or_default()).enumerate() {
        if plain(found) != plain(&joint.name) {
            let (robot, joint, found) = (robot.kind.clone(), joint.name.clone(), found.clone());
            return Err(Disagreement::Name { who, index, found, robot, joint });
        }
    }
    for (joint, found) in robot.joints.iter().zip(units.unwrap_or_default()) {
        if *found != joint.unit {
            let (robot, name) = (robot.kind.clone(), joint.name.clone());
            return Err(Disagreement::Units { who, found: *found, joint: name, robot, set: joint.unit });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CameraStream, Joint};

    fn arm() -> Description {
        let joint =
            |name: &str, unit| Joint { name: name.to_owned(), unit, min: -1.0, max: 1.0, max_velocity: 1.0 };
        Description {
            kind: "so101_follower".to_owned(),
            joints: vec![joint("elbow_flex", Unit::Centred), joint("gripper", Unit::Percent)],
            cameras: vec![CameraStream { name: "front".to_owned(), height: 2, width: 2 }],
        }
    }

    fn policy() -> Expectation {
        Expectation {
            action_dim: 2,
            space: ActionSpace::Positions,
            names: Some(vec!["elbow_flex.pos".to_owned(), "gripper".to_owned()]),
            units: Some(vec![Unit::Centred, Unit::Percent]),
            state_dim: Some(2),
            images: 1,
            horizon: 8,
            needs_instruction: true,
        }
    }

    fn said(change: impl FnOnce(&mut Expectation)) -> String {
        let mut policy = policy();
        change(&mut policy);
        let prompt = Prompt { instruction: Some("pick up the cube".to_owned()), task: None };
        agree(&policy, &prompt, &arm()).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn who_agrees_is_let_through() {
        assert_eq!(said(|_| ()), "");
        assert_eq!(said(|policy| (policy.names, policy.units, policy.state_dim) = (None, None, None)), "");
        assert_eq!(said(|policy| policy.images = 0), "");
    }

    #[test]
    fn who_disagrees_is_told_what_mends_it() {
        let check = |change: fn(&mut Expectation), text: &str| assert_eq!(said(change), text);
        check(
            |policy| policy.units = Some(vec![Unit::Degrees, Unit::Percent]),
            "the policy's actions are degrees, joint elbow_flex of so101_follower is set to centred: set the arm to degrees",
        );
        check(
            |policy| policy.units = Some(vec![Unit::Centred, Unit::Metres]),
            "the policy's actions are metres, joint gripper of so101_follower is set to percent: it was made for another robot",
        );
        check(
            |policy| (policy.action_dim, policy.names, policy.units) = (7, None, None),
            "the policy gives 7 numbers an action, so101_follower has 2 joints (elbow_flex, gripper): it was made for another \
             robot",
        );
        check(
            |policy| policy.names = Some(vec!["gripper.pos".to_owned(), "elbow_flex.pos".to_owned()]),
            "number 0 of the policy's actions is gripper.pos, of so101_follower it is elbow_flex: it was made for another robot",
        );
        check(
            |policy| policy.state_dim = Some(8),
            "the policy wants a state of 8 numbers, so101_follower has 2 joints: it was made for another robot",
        );
        check(
            |policy| policy.images = 2,
            "the policy wants 2 images, so101_follower has 1 cameras (front): add cameras",
        );
        check(
            |policy| policy.units = Some(vec![Unit::Centred]),
            "the policy announces 1 units for actions of 2 numbers: its metadata are wrong",
        );
        check(
            |policy| policy.horizon = 0,
            "the policy announces chunks of no actions: its metadata are wrong",
        );
        assert!(said(|policy| policy.space = ActionSpace::EndEffector).contains("movements of the hand"));
        assert!(said(|policy| policy.space = ActionSpace::Deltas).contains("joint positions"));
    }

    #[test]
    fn an_instruction_is_wanted() {
        for instruction in [None, Some("  ".to_owned())] {
            let prompt = Prompt { instruction, task: None };
            assert_eq!(agree(&policy(), &prompt, &arm()), Err(Disagreement::Instruction));
            assert_eq!(agree(&Expectation { needs_instruction: false, ..policy() }, &prompt, &arm()), Ok(()));
        }
    }
}
