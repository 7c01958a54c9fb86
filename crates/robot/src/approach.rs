use crate::limits::LEAD_S;
use crate::source::Moment;
use crate::{Event, Joint};

/// The share of its largest velocity at which a joint approaches.
const SHARE: f64 = 1.0 / 6.0;

/// The way from where an arm stands to where its actions begin: slow, so that people see where it goes and can stop it. A joint
/// that has come near follows the actions from then on, whatever the others do.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Approach {
    /// Each joint's goal so far, none once it has arrived. Empty before the first step.
    goals: Vec<Option<f64>>,
}

impl Approach {
    /// This step's goal on the way to `wanted`, one number a joint, and whether all joints have arrived: then it is `wanted`.
    pub(crate) fn towards(
        &mut self,
        mut wanted: Vec<f64>,
        moment: &Moment<'_>,
        events: &mut Vec<Event>,
    ) -> (Vec<f64>, bool) {
        let joints = &moment.robot.joints;
        if wanted.len() != joints.len() || wanted.iter().any(|number| !number.is_finite()) {
            // The limits refuse it, and say why.
            return (wanted, true);
        }
        if self.goals.is_empty() {
            self.goals = moment.observation.positions.iter().copied().map(Some).collect();
            events.extend(longest_way(joints, &moment.observation.positions, &wanted));
        }
        for ((goal, wanted), joint) in self.goals.iter_mut().zip(&mut wanted).zip(joints) {
            let Some(at) = goal else { continue };
            let left = *wanted - *at;
            if is_near(joint, left) {
                *goal = None;
                continue;
            }
            let most = joint.max_velocity * SHARE * moment.period.as_secs_f64();
            *at += left.clamp(-most, most);
            *wanted = *at;
        }
        (wanted, self.goals.iter().all(Option::is_none))
    }
}

/// Whether a joint gets there at once, at any speed.
fn is_near(joint: &Joint, distance: f64) -> bool {
    distance.abs() <= joint.max_velocity * LEAD_S
}

/// Of the joints that are not near, the one that takes longest.
fn longest_way(joints: &[Joint], positions: &[f64], wanted: &[f64]) -> Option<Event> {
    let ways =
        joints.iter().zip(positions.iter().zip(wanted)).map(|(joint, (at, to))| (joint, (to - at).abs()));
    let far = ways.filter(|(joint, distance)| !is_near(joint, *distance));
    let seconds = |(joint, distance): &(&Joint, f64)| distance / joint.max_velocity;
    let (joint, distance) = far.max_by(|a, b| seconds(a).total_cmp(&seconds(b)))?;
    Some(Event::Approaching { joint: joint.name.clone(), distance, unit: joint.unit })
}
