//! Parameters of a method and the JSON Schema that the host reads.

use core::fmt::Write;
use core::ops::RangeInclusive;

/// One parameter of a method: `Param::number("density").default(1.0).range(0.0..=1.0).per_expert()`.
///
/// Without a default it is required.
#[derive(Debug, Clone)]
pub struct Param {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As the number that crosses the boundary.
    pub(crate) default: Option<f64>,
    pub(crate) per_expert: bool,
    no_effect: bool,
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: Option<f64>,
    description: &'static str,
}

/// What values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Integer,
    Boolean,
    Choice(&'static [&'static str]),
}

/// A default value: made from `f64`, `i32`, `bool` and `&str`.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// Of a number or an integer.
    Number(f64),
    /// Of a boolean.
    Boolean(bool),
    /// Of a choice.
    Text(&'static str),
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Number(f64::from(value))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Self::Text(value)
    }
}

impl Param {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            default: None,
            per_expert: false,
            no_effect: false,
            minimum: None,
            maximum: None,
            exclusive_minimum: None,
            description: "",
        }
    }

    /// A real number, read with [`Params::number`](crate::Params::number).
    pub const fn number(name: &'static str) -> Self {
        Self::new(name, Kind::Number)
    }

    /// A whole number, read with [`Params::integer`](crate::Params::integer).
    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, Kind::Integer)
    }

    /// True or false, read with [`Params::boolean`](crate::Params::boolean).
    pub const fn boolean(name: &'static str) -> Self {
        Self::new(name, Kind::Boolean)
    }

    /// One of some words, read with [`Params::choice`](crate::Params::choice).
    pub const fn choice(name: &'static str, words: &'static [&'static str]) -> Self {
        Self::new(name, Kind::Choice(words))
    }

    /// The value where a recipe gives none.
    ///
    /// # Panics
    /// When the value is not of the parameter's kind: a mistake in the method.
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        let number = match (self.kind, value.into()) {
            (Kind::Number | Kind::Integer, Value::Number(number)) => Some(number),
            (Kind::Boolean, Value::Boolean(value)) => Some(f64::from(u8::from(value))),
            (Kind::Choice(words), Value::Text(word)) => {
                words.iter().position(|w| *w == word).map(|i| i as f64)
            }
            _ => None,
        };
        assert!(number.is_some(), "the default of parameter `{}` is not one of its values", self.name);
        self.default = number;
        self
    }

    /// Smallest and largest value.
    pub const fn range(mut self, range: RangeInclusive<f64>) -> Self {
        self.minimum = Some(*range.start());
        self.maximum = Some(*range.end());
        self
    }

    /// Smallest value.
    pub const fn at_least(mut self, minimum: f64) -> Self {
        self.minimum = Some(minimum);
        self
    }

    /// All values are larger than this one.
    pub const fn above(mut self, bound: f64) -> Self {
        self.exclusive_minimum = Some(bound);
        self
    }

    /// Each expert may have its own value: read with [`Params::expert_number`](crate::Params::expert_number).
    pub const fn per_expert(mut self) -> Self {
        self.per_expert = true;
        self
    }

    /// The method takes it, so that recipes of other programs run, and does nothing with it: users are warned.
    pub const fn without_effect(mut self) -> Self {
        self.no_effect = true;
        self
    }

    /// What it does, in a sentence.
    pub const fn describe(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    fn write_schema(&self, json: &mut String) {
        let kind = match self.kind {
            Kind::Number => "number",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
            Kind::Choice(_) => "string",
        };
        push_string(json, self.name);
        push(json, format_args!(":{{\"type\":\"{kind}\""));
        if let Kind::Choice(words) = self.kind {
            json.push_str(",\"enum\":[");
            for (i, word) in words.iter().enumerate() {
                json.push_str(if i == 0 { "" } else { "," });
                push_string(json, word);
            }
            json.push(']');
        }
        let bounds = [
            ("minimum", self.minimum),
            ("maximum", self.maximum),
            ("exclusiveMinimum", self.exclusive_minimum),
        ];
        for (word, bound) in bounds {
            if let Some(bound) = bound {
                push(json, format_args!(",\"{word}\":{bound}"));
            }
        }
        if let Some(default) = self.default {
            json.push_str(",\"default\":");
            match self.kind {
                Kind::Number | Kind::Integer => push(json, format_args!("{default}")),
                Kind::Boolean => json.push_str(if default == 0.0 { "false" } else { "true" }),
                Kind::Choice(words) => push_string(json, words[default as usize]),
            }
        }
        if !self.description.is_empty() {
            json.push_str(",\"description\":");
            push_string(json, self.description);
        }
        if self.per_expert {
            json.push_str(",\"x-per-expert\":true");
        }
        if self.no_effect {
            json.push_str(",\"x-no-effect\":true");
        }
        json.push('}');
    }
}

/// The JSON Schema of a method's parameters, in their order.
pub(crate) fn schema(params: &[Param]) -> String {
    let mut json = String::from("{\"type\":\"object\",\"properties\":{");
    for (i, param) in params.iter().enumerate() {
        json.push_str(if i == 0 { "" } else { "," });
        param.write_schema(&mut json);
    }
    json.push_str("},\"required\":[");
    let required = params.iter().filter(|p| p.default.is_none());
    for (i, param) in required.enumerate() {
        json.push_str(if i == 0 { "" } else { "," });
        push_string(&mut json, param.name);
    }
    json.push_str("],\"additionalProperties\":false}");
    json
}

fn push(json: &mut String, text: core::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = json.write_fmt(text);
}

fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            c if c < ' ' => push(json, format_args!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_keeps_the_order_and_escapes_text() {
        let params = [
            Param::number("density")
                .default(1.0)
                .range(0.0..=1.0)
                .per_expert()
                .describe("share \"kept\" \\ λ\n"),
            Param::number("t"),
            Param::number("eps").above(0.0).default(1e-8),
            Param::integer("steps").at_least(1.0).default(300),
            Param::boolean("normalize").default(true).without_effect(),
            Param::choice("scope", &["tensor", "global"]).default("global"),
        ];
        assert_eq!(
            schema(&params),
            concat!(
                r#"{"type":"object","properties":{"#,
                r#""density":{"type":"number","minimum":0,"maximum":1,"default":1,"#,
                r#""description":"share \"kept\" \\ λ\u000a","x-per-expert":true},"#,
                r#""t":{"type":"number"},"#,
                r#""eps":{"type":"number","exclusiveMinimum":0,"default":0.00000001},"#,
                r#""steps":{"type":"integer","minimum":1,"default":300},"#,
                r#""normalize":{"type":"boolean","default":true,"x-no-effect":true},"#,
                r#""scope":{"type":"string","enum":["tensor","global"],"default":"global"}},"#,
                r#""required":["t"],"additionalProperties":false}"#,
            )
        );
        assert_eq!(
            schema(&[]),
            r#"{"type":"object","properties":{},"required":[],"additionalProperties":false}"#
        );
    }

    #[test]
    #[should_panic(expected = "`scope`")]
    fn a_default_outside_the_choices_is_a_mistake() {
        let _ = Param::choice("scope", &["tensor"]).default("globe");
    }
}
