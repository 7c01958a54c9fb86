//! What a policy says of itself, as a robot's loop wants to know it.

use skillweld_robot::{ActionSpace, Expectation, Unit};
use skillweld_serve::{Metadata, Value};

/// From what a policy in this process says.
pub(crate) fn of_policy(metadata: &Metadata) -> Result<Expectation, String> {
    let space = metadata.extra.iter().find(|(key, _)| key == ACTION_SPACE).map(|(_, value)| value);
    let (space, names, units) = action_space(space)?;
    Ok(Expectation {
        action_dim: metadata.action_dim,
        space,
        names,
        units,
        state_dim: metadata.state_dim,
        images: metadata.images,
        horizon: metadata.action_horizon,
        needs_instruction: metadata.prompt,
    })
}

/// From a server's first message. Of openpi's own server it is whatever its config says, mostly nothing: what is missing
/// is taken from `assumed`.
pub(crate) fn of_server(metadata: &Value, assumed: &Expectation) -> Result<Expectation, String> {
    let (space, names, units) = match metadata.get(ACTION_SPACE) {
        Some(value) => action_space(Some(value))?,
        None => (assumed.space, assumed.names.clone(), assumed.units.clone()),
    };
    let count = |key: &str, assumed: usize| match metadata.get(key) {
        None | Some(Value::Nil) => Ok(assumed),
        Some(Value::Int(count)) => usize::try_from(*count).map_err(|_| format!("`{key}` is {count}")),
        Some(other) => Err(format!("`{key}` is {}, not a count", other.describe())),
    };
    let state_dim = match metadata.get("state_dim") {
        None => assumed.state_dim,
        Some(Value::Nil) => None,
        Some(_) => Some(count("state_dim", 0)?),
    };
    Ok(Expectation {
        action_dim: count("action_dim", assumed.action_dim)?,
        space,
        names,
        units,
        state_dim,
        images: count("images", assumed.images)?,
        horizon: count("action_horizon", assumed.horizon)?,
        needs_instruction: match metadata.get("prompt") {
            Some(Value::Bool(wants)) => *wants,
            _ => assumed.needs_instruction,
        },
    })
}

const ACTION_SPACE: &str = "action_space";

/// What is said of an action's numbers: kind, names, units.
type Said = (ActionSpace, Option<Vec<String>>, Option<Vec<Unit>>);

/// Nothing said: LIBERO's movements of the hand, or joint positions, who knows; the number of joints decides.
fn action_space(value: Option<&Value>) -> Result<Said, String> {
    let Some(value) = value else { return Ok((ActionSpace::Positions, None, None)) };
    let kind = match value.get("kind").and_then(Value::as_text) {
        Some("joint_positions") => ActionSpace::Positions,
        Some("joint_deltas") => ActionSpace::Deltas,
        Some("end_effector") => ActionSpace::EndEffector,
        Some(other) => {
            let known = "joint_positions, joint_deltas and end_effector";
            return Err(format!("`action_space.kind` is `{other}`; known are {known}"));
        }
        None => {
            return Err(
                "`action_space` has no `kind`: joint_positions, joint_deltas or end_effector".to_owned()
            );
        }
    };
    let names = texts(value.get("names"), "names")?;
    let units = texts(value.get("units"), "units")?;
    let unit = |name: &String| {
        Unit::named(name).ok_or_else(|| format!("`action_space.units` has `{name}`, which is no unit"))
    };
    let units = units.map(|units| units.iter().map(unit).collect()).transpose()?;
    Ok((kind, names, units))
}

fn texts(value: Option<&Value>, what: &str) -> Result<Option<Vec<String>>, String> {
    let wrong = || format!("`action_space.{what}` is no list of texts");
    match value {
        None | Some(Value::Nil) => Ok(None),
        Some(Value::List(items)) => {
            let text = |item: &Value| item.as_text().map(str::to_owned).ok_or_else(wrong);
            items.iter().map(text).collect::<Result<_, _>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    fn assumed() -> Expectation {
        Expectation {
            action_dim: 6,
            space: ActionSpace::Positions,
            names: None,
            units: Some(vec![Unit::Degrees; 6]),
            state_dim: Some(6),
            images: 2,
            horizon: 50,
            needs_instruction: true,
        }
    }

    #[test]
    fn what_a_server_does_not_say_is_assumed() {
        assert_eq!(of_server(&map(&[]), &assumed()).unwrap(), assumed());
        let without = Expectation { needs_instruction: false, ..assumed() };
        assert_eq!(of_server(&map(&[]), &without).unwrap(), without);
        let said = map(&[
            ("action_dim", Value::Int(2)),
            ("images", Value::Int(0)),
            ("state_dim", Value::Nil),
            ("prompt", Value::Bool(false)),
            (
                "action_space",
                map(&[
                    ("kind", "joint_deltas".into()),
                    ("units", vec!["radians", "percent"].into()),
                    ("names", Value::Nil),
                ]),
            ),
        ]);
        let found = of_server(&said, &assumed()).unwrap();
        let expected = Expectation {
            action_dim: 2,
            space: ActionSpace::Deltas,
            units: Some(vec![Unit::Radians, Unit::Percent]),
            state_dim: None,
            images: 0,
            needs_instruction: false,
            ..assumed()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn nonsense_is_named() {
        let cases = [
            (map(&[("action_dim", "six".into())]), "action_dim"),
            (map(&[("images", Value::Int(-1))]), "images"),
            (map(&[("action_space", map(&[("kind", "torques".into())]))]), "torques"),
            (
                map(&[(
                    "action_space",
                    map(&[("kind", "joint_positions".into()), ("units", vec!["furlongs"].into())]),
                )]),
                "furlongs",
            ),
            (
                map(&[(
                    "action_space",
                    map(&[("kind", "joint_positions".into()), ("names", Value::Int(3))]),
                )]),
                "names",
            ),
        ];
        for (said, named) in cases {
            let error = of_server(&said, &assumed()).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
