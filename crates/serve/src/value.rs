use bytes::Bytes;

use crate::Array;

/// What a message is made of: msgpack's types, and NumPy arrays.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Python's `None`.
    Nil,
    /// True or false.
    Bool(bool),
    /// Any integer of msgpack: −2⁶³ … 2⁶⁴ − 1.
    Int(i128),
    /// A floating-point number; f32 is widened.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes, shared with the frame that they came in.
    Bytes(Bytes),
    /// A NumPy array.
    Array(Array),
    /// A list or tuple.
    List(Vec<Value>),
    /// A map in the order that it was sent in. Of a key that comes twice, the last counts, as in Python.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// What a key of a map holds; nothing if this is no map or has no such key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Text, if it is.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// What it is, as an error message would say it.
    pub fn describe(&self) -> String {
        match self {
            Self::Nil => "nothing (None)".into(),
            Self::Bool(_) => "a boolean".into(),
            Self::Int(_) => "an integer".into(),
            Self::Float(_) => "a number".into(),
            Self::Text(_) => "text".into(),
            Self::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Self::Array(array) => {
                format!("an array of shape {:?} and dtype {}", array.shape(), array.dtype().numpy_name())
            }
            Self::List(values) => format!("a list of {}", values.len()),
            Self::Map(_) => "a map".into(),
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Int(value as i128)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Array> for Value {
    fn from(value: Array) -> Self {
        Self::Array(value)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}
