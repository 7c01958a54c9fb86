use super::error::ObservationError;
use super::{finite, image};
use crate::array::Array;
use crate::options::Limits;
use crate::policy::Image;
use crate::value::Value;

/// The keys that a family of clients sends. A key with slashes may also lie in maps: `images/cam_high` is the key `cam_high` of
/// the map `images`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySet {
    /// Who sends these keys.
    pub name: &'static str,
    /// Images in the order in which a policy takes them.
    pub images: &'static [&'static str],
    /// Parts of the state, joined in this order.
    pub state: &'static [&'static str],
    /// The instruction.
    pub prompt: &'static str,
    /// The parts that an action is answered in, where the protocol has such, and how many numbers each has: `None` is as many as
    /// the part of the state in the same place. Without parts an action is one vector.
    pub actions: &'static [(&'static str, Option<usize>)],
}

/// An action's parts: their names, and how many numbers each has.
pub(crate) type Parts = Vec<(&'static str, usize)>;

/// Every set of keys that is understood. Images may be uint8 or floats from 0 to 1, height × width × 3 or 3 × height × width; states
/// arrays of any dtype, lists or single numbers.
pub const KEY_SETS: &[KeySet] = &[
    KeySet {
        name: "LIBERO",
        images: &["observation/image", "observation/wrist_image"],
        state: &["observation/state"],
        prompt: "prompt",
        actions: &[],
    },
    KeySet {
        name: "DROID",
        images: &["observation/exterior_image_1_left", "observation/wrist_image_left"],
        state: &["observation/joint_position", "observation/gripper_position"],
        prompt: "prompt",
        actions: &[],
    },
    KeySet {
        name: "ALOHA",
        // Policies of three cameras know no low one.
        images: &["images/cam_high", "images/cam_left_wrist", "images/cam_right_wrist", "images/cam_low"],
        state: &["state"],
        prompt: "prompt",
        actions: &[],
    },
    KeySet {
        name: "plain",
        images: &["image_0", "image_1", "image_2", "image_3"],
        state: &["state"],
        prompt: "prompt",
        actions: &[],
    },
    KeySet {
        name: "StarVLA",
        images: &["image/0", "image/1", "image/2", "image/3"],
        state: &["state"],
        prompt: "lang",
        actions: &[],
    },
    // RoboTwin's own observations, as its `get_obs` gives them.
    KeySet {
        name: "RoboTwin",
        images: &[
            "observation/head_camera/rgb",
            "observation/left_camera/rgb",
            "observation/right_camera/rgb",
            "observation/front_camera/rgb",
        ],
        state: &["joint_action/vector"],
        prompt: "instruction",
        actions: &[],
    },
    // XPolicyLab's Observation Data Format v1.0.
    KeySet {
        name: "XPolicyLab, two arms",
        images: &[
            "vision/cam_head/color",
            "vision/cam_left_wrist/color",
            "vision/cam_right_wrist/color",
            "vision/cam_third_view/color",
        ],
        state: &[
            "state/left_arm_joint_state",
            "state/left_ee_joint_state",
            "state/right_arm_joint_state",
            "state/right_ee_joint_state",
        ],
        prompt: "instruction",
        actions: &[
            ("left_arm_joint_state", None),
            ("left_ee_joint_state", None),
            ("right_arm_joint_state", None),
            ("right_ee_joint_state", None),
        ],
    },
    KeySet {
        name: "XPolicyLab, one arm",
        images: &["vision/cam_head/color", "vision/cam_wrist/color", "vision/cam_third_view/color"],
        state: &["state/arm_joint_state", "state/ee_joint_state"],
        prompt: "instruction",
        actions: &[("arm_joint_state", None), ("ee_joint_state", None)],
    },
    // GR00T's, by data configuration; the prompt is found before.
    #[cfg(feature = "zmq")]
    KeySet {
        name: "GR00T, LIBERO",
        images: &["video/image", "video/wrist_image"],
        state: &[
            "state/x",
            "state/y",
            "state/z",
            "state/roll",
            "state/pitch",
            "state/yaw",
            // Two fingers.
            "state/gripper",
        ],
        prompt: "prompt",
        actions: &[
            ("x", Some(1)),
            ("y", Some(1)),
            ("z", Some(1)),
            ("roll", Some(1)),
            ("pitch", Some(1)),
            ("yaw", Some(1)),
            ("gripper", Some(1)),
        ],
    },
    #[cfg(feature = "zmq")]
    KeySet {
        name: "GR00T, DROID",
        images: &["video/exterior_image_1_left", "video/wrist_image_left"],
        state: &["state/joint_position", "state/gripper_position"],
        prompt: "prompt",
        actions: &[("joint_position", Some(7)), ("gripper_position", Some(1))],
    },
    #[cfg(feature = "zmq")]
    KeySet {
        name: "GR00T, SO-100",
        images: &["video/front", "video/wrist"],
        state: &["state/single_arm", "state/gripper"],
        prompt: "prompt",
        actions: &[("single_arm", Some(5)), ("gripper", Some(1))],
    },
];

impl KeySet {
    /// The set of which most keys are there; of several, the first.
    pub(crate) fn of(request: &Value) -> Result<&'static Self, ObservationError> {
        let Value::Map(entries) = request else {
            return Err(ObservationError::NoMap { found: request.describe() });
        };
        let matching = |set: &Self| {
            let distinct = set.images.iter().chain(set.state).chain([&set.prompt]);
            distinct.filter(|key| find(request, key).is_some()).count()
        };
        // `prompt` alone belongs to nobody; `max_by_key` takes the last of several.
        let best = KEY_SETS.iter().rev().max_by_key(|set| matching(set));
        let own = |set: &&Self| set.images.iter().chain(set.state).any(|key| find(request, key).is_some());
        best.filter(own).ok_or_else(|| ObservationError::NoKeySet {
            found: entries.iter().take(12).map(|(key, _)| key.chars().take(60).collect()).collect(),
            sets: described(),
        })
    }

    /// Whether a key of the outermost map belongs to this set.
    pub(crate) fn knows(&self, key: &str) -> bool {
        let mut all = self.images.iter().chain(self.state).chain([&self.prompt]);
        all.any(|known| *known == key || known.split_once('/').is_some_and(|(map, _)| map == key))
    }

    pub(crate) fn images(
        &self,
        request: &Value,
        wanted: usize,
        limits: &Limits,
    ) -> Result<Vec<Image>, ObservationError> {
        let offered = self.images.len();
        if wanted > offered {
            return Err(ObservationError::Images { set: self.name, wanted, offered });
        }
        self.images[..wanted]
            .iter()
            .map(|&key| match find(request, key) {
                Some(value) => image::read(key, value, limits),
                None => Err(ObservationError::MissingKey { key: key.into(), expected: "an image" }),
            })
            .collect()
    }

    pub(crate) fn state(&self, request: &Value, dim: usize) -> Result<Vec<f32>, ObservationError> {
        let mut state = Vec::with_capacity(dim);
        let wrong_length = |found| {
            let keys = self.state.join(", ");
            Err(ObservationError::StateLength { keys, expected: dim, found })
        };
        for &key in self.state {
            let expected = "the robot's state, a vector of numbers";
            let Some(value) = find(request, key) else {
                return Err(ObservationError::MissingKey { key: key.into(), expected });
            };
            // Before anything is converted: an array of millions is as easily sent as one of eight.
            let length = length(value);
            let one_dimension = !matches!(value, Value::Array(array) if dimensions(array) > 1);
            if one_dimension && state.len() + length > dim {
                return wrong_length(state.len() + length);
            }
            let part = vector(value).ok_or_else(|| ObservationError::kind(key, expected, value))?;
            finite(key, &part)?;
            state.extend(part);
        }
        if state.len() != dim {
            return wrong_length(state.len());
        }
        Ok(state)
    }

    /// The parts of an action of `dim` numbers, the observation's state having those that it has.
    pub(crate) fn parts(&self, request: &Value, dim: usize) -> Result<Parts, ObservationError> {
        let width = |(index, &(name, width)): (usize, &(&'static str, Option<usize>))| {
            let as_state = || self.state.get(index).and_then(|key| find(request, key)).map_or(0, length);
            (name, width.unwrap_or_else(as_state))
        };
        let parts: Parts = self.actions.iter().enumerate().map(width).collect();
        let found = parts.iter().map(|(_, width)| width).sum();
        if parts.is_empty() || found == dim {
            return Ok(parts);
        }
        let parts =
            parts.iter().map(|(name, width)| format!("{name} {width}")).collect::<Vec<_>>().join(", ");
        Err(ObservationError::ActionLength { set: self.name, parts, found, dim })
    }
}

/// `a/b` as it is, or as `b` of the map (or, if `b` is a number, list) `a`; `b` may have slashes again.
fn find<'a>(request: &'a Value, key: &str) -> Option<&'a Value> {
    request.get(key).or_else(|| {
        let (outer, inner) = key.split_once('/')?;
        match request.get(outer)? {
            Value::List(values) => values.get(inner.parse::<usize>().ok()?),
            map => find(map, inner),
        }
    })
}

/// How many numbers a part of a state has.
fn length(value: &Value) -> usize {
    match value {
        Value::Array(array) => array.len(),
        Value::List(values) => values.len(),
        _ => 1,
    }
}

/// Dimensions of other lengths than 1.
fn dimensions(array: &Array) -> usize {
    array.shape().iter().filter(|&&length| length != 1).count()
}

/// Numbers in one dimension: an array (whose further dimensions are 1), a list or a single number.
fn vector(value: &Value) -> Option<Vec<f32>> {
    let number = |value: &Value| match value {
        Value::Int(number) => Some(*number as f32),
        Value::Float(number) => Some(*number as f32),
        Value::Array(array) if array.len() == 1 => array.to_f32().first().copied(),
        _ => None,
    };
    match value {
        Value::Array(array) if dimensions(array) <= 1 => Some(array.to_f32()),
        Value::List(values) => values.iter().map(number).collect(),
        other => number(other).map(|number| vec![number]),
    }
}

fn described() -> String {
    let set = |set: &KeySet| {
        let keys: Vec<_> = set.images.iter().chain(set.state).copied().chain([set.prompt]).collect();
        format!("{} ({})", set.name, keys.join(", "))
    };
    KEY_SETS.iter().map(set).collect::<Vec<_>>().join("; ")
}
