//! The JSON Schema of a method's parameters, restricted to what [`abi::Method::schema`] allows.
//!
//! [`abi::Method::schema`]: skillweld_plugin_abi::Method::schema

use core::fmt;

use serde_json::{Map, Value};

/// One parameter of a method.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Its name in recipes.
    pub name: String,
    /// Type and range.
    pub kind: ParamKind,
    /// The value taken when a recipe is silent; `None` = required.
    pub default: Option<Value>,
    /// Each expert may have its own value.
    pub per_expert: bool,
    /// The method takes it and does nothing with it.
    pub no_effect: bool,
    /// For help texts; may be empty.
    pub description: String,
}

/// Type and range of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamKind {
    /// A finite real number.
    Number(Range),
    /// A whole number of at most 53 bits.
    Integer(Range),
    /// True or false.
    Boolean,
    /// One of these words.
    Choice(Vec<String>),
}

/// The allowed interval of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower end; −∞ = none.
    pub min: f64,
    /// Upper end, itself allowed; +∞ = none.
    pub max: f64,
    /// `min` itself is not allowed.
    pub exclusive_min: bool,
}

impl Range {
    /// True when `value` lies within.
    pub fn contains(&self, value: f64) -> bool {
        value <= self.max && if self.exclusive_min { value > self.min } else { value >= self.min }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lower = if self.exclusive_min { "above" } else { "at least" };
        match (self.min.is_finite(), self.max.is_finite()) {
            (false, false) => Ok(()),
            (true, false) => write!(f, " {lower} {}", self.min),
            (false, true) => write!(f, " at most {}", self.max),
            (true, true) => write!(f, " {lower} {} and at most {}", self.min, self.max),
        }
    }
}

impl fmt::Display for ParamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(range) => write!(f, "a number{range}"),
            Self::Integer(range) => write!(f, "a whole number{range}"),
            Self::Boolean => f.write_str("true or false"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

/// Beyond 2⁵³ an f64, the boundary's only number, skips whole numbers.
const MAX_INTEGER: f64 = 9_007_199_254_740_992.0;

impl ParamKind {
    /// The number that crosses the boundary for `value`: booleans are 0 or 1, words their position. `None` when type
    /// or range is wrong, NaN and infinity included.
    pub fn encode(&self, value: &Value) -> Option<f64> {
        match self {
            Self::Number(range) => value.as_f64().filter(|&x| x.is_finite() && range.contains(x)),
            Self::Integer(range) => {
                value.as_f64().filter(|&x| x.fract() == 0.0 && x.abs() <= MAX_INTEGER && range.contains(x))
            }
            Self::Boolean => value.as_bool().map(f64::from),
            Self::Choice(words) => {
                words.iter().position(|word| value.as_str() == Some(word)).map(|position| position as f64)
            }
        }
    }
}

/// Parses a schema. The error says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Vec<ParamSpec>, String> {
    let schema: Value =
        serde_json::from_str(text).map_err(|e| format!("the parameter schema is not JSON: {e}"))?;
    let schema = schema.as_object().ok_or("the parameter schema must be a JSON object")?;
    only(
        schema,
        "the parameter schema",
        &["$schema", "title", "description", "type", "properties", "required", "additionalProperties"],
    )?;
    if schema.get("type").is_some_and(|kind| kind != "object") {
        return Err("the parameter schema must have type `object`".into());
    }
    let none = Map::new();
    let properties = match schema.get("properties") {
        None => &none,
        Some(properties) => properties.as_object().ok_or("`properties` must be an object")?,
    };
    let specs = properties
        .iter()
        .map(|(name, property)| {
            parameter(name, property).map_err(|reason| format!("parameter `{name}`: {reason}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    check_required(schema, &specs)?;
    Ok(specs)
}

/// `required` may be spelled out, but must then say what the defaults already say.
fn check_required(schema: &Map<String, Value>, specs: &[ParamSpec]) -> Result<(), String> {
    let Some(required) = schema.get("required") else { return Ok(()) };
    let mut listed: Vec<&str> = required
        .as_array()
        .and_then(|names| names.iter().map(Value::as_str).collect())
        .ok_or("`required` must be a list of names")?;
    let mut without_default: Vec<&str> =
        specs.iter().filter(|spec| spec.default.is_none()).map(|spec| spec.name.as_str()).collect();
    listed.sort_unstable();
    without_default.sort_unstable();
    if listed == without_default {
        return Ok(());
    }
    Err(format!("`required` lists {listed:?}, but without default are {without_default:?}"))
}

fn parameter(name: &str, property: &Value) -> Result<ParamSpec, String> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("names consist of letters, digits and `_`".into());
    }
    let property = property.as_object().ok_or("must be an object")?;
    let shared = ["type", "title", "description", "default", "x-per-expert", "x-no-effect"];
    let numeric = [&shared[..], &["minimum", "maximum", "exclusiveMinimum"]].concat();
    let (kind, keywords) = match property.get("type").and_then(Value::as_str) {
        Some("number") => (ParamKind::Number(range(property)?), numeric),
        Some("integer") => (ParamKind::Integer(range(property)?), numeric),
        Some("boolean") => (ParamKind::Boolean, shared.to_vec()),
        Some("string") => (ParamKind::Choice(choices(property)?), [&shared[..], &["enum"]].concat()),
        other => {
            let other = other.unwrap_or("none");
            return Err(format!("type must be number, integer, boolean, or string with `enum`, not {other}"));
        }
    };
    only(property, "the schema", &keywords)?;
    let default = property.get("default").cloned();
    if let Some(value) = &default
        && kind.encode(value).is_none()
    {
        return Err(format!("the default {value} is not {kind}"));
    }
    let flag = |name: &str| match property.get(name) {
        None => Ok(false),
        Some(flag) => flag.as_bool().ok_or_else(|| format!("`{name}` must be true or false")),
    };
    let (per_expert, no_effect) = (flag("x-per-expert")?, flag("x-no-effect")?);
    let description = property.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(ParamSpec { name: name.to_owned(), kind, default, per_expert, no_effect, description })
}

fn range(property: &Map<String, Value>) -> Result<Range, String> {
    let bound = |keyword: &str| match property.get(keyword) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| format!("`{keyword}` must be a number")),
    };
    let (min, exclusive) = (bound("minimum")?, bound("exclusiveMinimum")?);
    if min.is_some() && exclusive.is_some() {
        return Err("give `minimum` or `exclusiveMinimum`, not both".into());
    }
    let range = Range {
        min: min.or(exclusive).unwrap_or(f64::NEG_INFINITY),
        max: bound("maximum")?.unwrap_or(f64::INFINITY),
        exclusive_min: exclusive.is_some(),
    };
    let empty = range.min > range.max || (range.min == range.max && range.exclusive_min);
    if empty { Err(format!("no number is{range}")) } else { Ok(range) }
}

fn choices(property: &Map<String, Value>) -> Result<Vec<String>, String> {
    let words = property.get("enum").and_then(Value::as_array).ok_or("type string needs a list `enum`")?;
    let words: Option<Vec<String>> = words.iter().map(|word| word.as_str().map(str::to_owned)).collect();
    words.filter(|words| !words.is_empty()).ok_or_else(|| "`enum` must list at least one word".into())
}

/// A keyword that is silently ignored would be a check that silently does not happen.
fn only(object: &Map<String, Value>, what: &str, keywords: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !keywords.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!("{what} has `{key}`, which is not one of {}", keywords.join(", "))),
    }
}
