//! Parameter values as recipes write them: scalars, gradients over layers, and lists of rules with filters.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::error::{Place, RecipeError};
use super::fields::{Fields, join};
use super::yaml::{Entry, Node, Yaml};

/// Parameters of one level (a model, a slice, a modality, the whole merge), by name.
pub type Parameters = BTreeMap<String, Setting>;

/// One value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamValue {
    /// `true`, `false`.
    Bool(bool),
    /// Any finite number.
    Number(f64),
    /// Anything else.
    Text(String),
}

/// What type a method gives its parameter; it decides how a gradient is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// Gradients are interpolated linearly. `true` reads as 1, `"0.5"` as 0.5.
    Number,
    /// Gradients are steps. 0, 1, `yes`, `no`, `on`, `off` read as booleans.
    Boolean,
    /// A word; gradients are steps.
    Text,
}

/// One line of a conditional list; a plain value is a single rule without filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The rule holds for keys that contain this text; `None` = for every key.
    pub filter: Option<String>,
    /// Values at equal distances over the layers, first layer to last; never empty. A scalar is one anchor.
    pub anchors: Vec<ParamValue>,
}

/// Everything one level says about one parameter.
#[derive(Debug, Clone)]
pub struct Setting {
    /// In the order written: the first that holds for a key decides. None may hold.
    pub rules: Vec<Rule>,
    /// Where it stands.
    pub place: Place,
}

impl ParamValue {
    /// The value as a number; `None` if it is none or not finite.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            ParamValue::Bool(b) => Some(f64::from(u8::from(*b))),
            ParamValue::Number(x) => Some(*x),
            ParamValue::Text(text) => text.trim().parse().ok().filter(|x: &f64| x.is_finite()),
        }
    }

    /// The value as a boolean; `None` if it is none.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            ParamValue::Bool(b) => Some(*b),
            ParamValue::Number(x) if *x == 0.0 => Some(false),
            ParamValue::Number(x) if *x == 1.0 => Some(true),
            ParamValue::Number(_) => None,
            ParamValue::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
                _ => None,
            },
        }
    }

    /// The value as a word; `None` for numbers and booleans.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            ParamValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value read as `kind`.
    fn coerce(&self, kind: ParameterKind) -> Option<ParamValue> {
        match kind {
            ParameterKind::Number => self.as_number().map(ParamValue::Number),
            ParameterKind::Boolean => self.as_bool().map(ParamValue::Bool),
            ParameterKind::Text => self.as_text().map(|text| ParamValue::Text(text.to_owned())),
        }
    }

    /// The value in JSON.
    pub fn to_value(&self) -> Value {
        match self {
            ParamValue::Bool(b) => json!(b),
            ParamValue::Number(x) => json!(x),
            ParamValue::Text(text) => json!(text),
        }
    }

    fn parse(node: &Node, path: &str) -> Result<ParamValue, RecipeError> {
        match &node.value {
            Yaml::Bool(b) => Ok(ParamValue::Bool(*b)),
            Yaml::Int(i) => Ok(ParamValue::Number(*i as f64)),
            Yaml::Float(x) if x.is_finite() => Ok(ParamValue::Number(*x)),
            Yaml::Float(_) => Err(RecipeError::OutOfRange {
                place: node.place(path),
                expected: "a finite number".to_owned(),
                found: node.describe(),
            }),
            Yaml::Text(text) => Ok(ParamValue::Text(text.clone())),
            _ => Err(node.wrong_type(path, "a number, true, false or text")),
        }
    }
}

impl Rule {
    fn parse(node: &Node, path: &str) -> Result<Rule, RecipeError> {
        let fields = Fields::open(node, path, &["filter", "value"])?;
        let filter = match fields.get("filter") {
            None => None,
            Some((node, path)) => {
                Some(node.text(&path)?).filter(|text| !matches!(*text, "" | "*")).map(str::to_owned)
            }
        };
        let (value, path) = fields.require("value", "write `value: …` beside the filter")?;
        Ok(Rule { filter, anchors: anchors(value, &path)? })
    }

    /// Does the rule hold for this key? The filter is plain text looked for anywhere in the name: no pattern.
    pub fn holds_for(&self, key: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| key.contains(filter.as_str()))
    }

    /// The gradient's value at `layer_fraction` (0 = first layer, 1 = last): linear between anchors for numbers;
    /// otherwise the anchor at or before it. `None` when an anchor does not read as `kind`.
    pub fn at(&self, layer_fraction: f64, kind: ParameterKind) -> Option<ParamValue> {
        let last = self.anchors.len().checked_sub(1)?;
        let exact = layer_fraction.clamp(0.0, 1.0) * last as f64;
        // (1/49)·49 falls short of 1: a layer that sits on an anchor gets that anchor.
        let position = if (exact - exact.round()).abs() < 1e-9 { exact.round() } else { exact };
        let below = (position.floor() as usize).min(last);
        let left = self.anchors[below].coerce(kind)?;
        let right = self.anchors[(below + 1).min(last)].coerce(kind)?;
        let share = position - position.floor();
        Some(match (left, right) {
            (ParamValue::Number(left), ParamValue::Number(right)) if share > 0.0 => {
                ParamValue::Number((1.0 - share) * left + share * right)
            }
            (left, _) => left,
        })
    }

    fn to_value(&self) -> Value {
        match self.anchors.as_slice() {
            [scalar] => scalar.to_value(),
            gradient => gradient.iter().map(ParamValue::to_value).collect(),
        }
    }
}

impl Setting {
    fn parse(node: &Node, path: &str) -> Result<Setting, RecipeError> {
        let rules = match &node.value {
            Yaml::Map(_) => vec![Rule::parse(node, path)?],
            Yaml::List(items) if items.first().is_some_and(|item| matches!(item.value, Yaml::Map(_))) => {
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| Rule::parse(item, &format!("{path}[{i}]")))
                    .collect::<Result<_, _>>()?
            }
            _ => vec![Rule { filter: None, anchors: anchors(node, path)? }],
        };
        Ok(Setting { rules, place: node.place(path) })
    }

    /// The value of an entry of the mapping at `path`.
    pub(crate) fn parse_entry(entry: &Entry, path: &str) -> Result<Setting, RecipeError> {
        let mut setting = Setting::parse(&entry.value, &join(path, &entry.key))?;
        setting.place.line = entry.key_line;
        Ok(setting)
    }

    /// The value for a key at `layer_fraction`; `None` when no rule holds, so that the next level is asked.
    pub(crate) fn resolve(
        &self,
        key: &str,
        layer_fraction: f64,
        kind: ParameterKind,
    ) -> Result<Option<ParamValue>, RecipeError> {
        let Some(rule) = self.rules.iter().find(|rule| rule.holds_for(key)) else { return Ok(None) };
        rule.at(layer_fraction, kind).map(Some).ok_or_else(|| self.wrong_kind(kind))
    }

    /// Refuses values that do not read as `kind`, wherever in a gradient or list they stand.
    pub(crate) fn check_kind(&self, kind: ParameterKind) -> Result<(), RecipeError> {
        let mut anchors = self.rules.iter().flat_map(|rule| &rule.anchors);
        if anchors.all(|anchor| anchor.coerce(kind).is_some()) { Ok(()) } else { Err(self.wrong_kind(kind)) }
    }

    fn wrong_kind(&self, kind: ParameterKind) -> RecipeError {
        let expected = match kind {
            ParameterKind::Number => "a finite number",
            ParameterKind::Boolean => "true or false",
            ParameterKind::Text => "text",
        };
        RecipeError::WrongType { place: self.place.clone(), expected, found: self.to_value().to_string() }
    }

    /// The setting in JSON, in the form a recipe takes.
    pub fn to_value(&self) -> Value {
        match self.rules.as_slice() {
            [Rule { filter: None, .. }] => self.rules[0].to_value(),
            rules => rules
                .iter()
                .map(|rule| match &rule.filter {
                    Some(filter) => json!({ "filter": filter, "value": rule.to_value() }),
                    None => json!({ "value": rule.to_value() }),
                })
                .collect(),
        }
    }
}

/// A scalar, or a list of scalars with at least one.
fn anchors(node: &Node, path: &str) -> Result<Vec<ParamValue>, RecipeError> {
    match &node.value {
        Yaml::List(items) if items.is_empty() => Err(RecipeError::OutOfRange {
            place: node.place(path),
            expected: "a gradient of at least one value".to_owned(),
            found: "an empty list".to_owned(),
        }),
        Yaml::List(items) => items
            .iter()
            .enumerate()
            .map(|(i, item)| ParamValue::parse(item, &format!("{path}[{i}]")))
            .collect(),
        _ => Ok(vec![ParamValue::parse(node, path)?]),
    }
}

/// The mapping of parameters in `field`; empty when absent. Names are checked later, against the method.
pub(crate) fn parse_field(fields: &Fields<'_>, field: &str) -> Result<Parameters, RecipeError> {
    fields.get(field).map_or_else(|| Ok(Parameters::new()), |(node, path)| parse(node, &path))
}

pub(crate) fn parse(node: &Node, path: &str) -> Result<Parameters, RecipeError> {
    let Yaml::Map(entries) = &node.value else {
        return Err(node.wrong_type(path, "a mapping of parameters"));
    };
    entries.iter().map(|entry| Ok((entry.key.clone(), Setting::parse_entry(entry, path)?))).collect()
}

pub(crate) fn to_value(parameters: &Parameters) -> Value {
    parameters.iter().map(|(name, setting)| (name.clone(), setting.to_value())).collect()
}
