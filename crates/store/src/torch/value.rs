use std::sync::Arc;

use crate::stored::StoredTensor;

/// What a pickle of tensors and plain containers holds.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PickleValue {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Str(Arc<str>),
    /// A list.
    List(Vec<PickleValue>),
    /// A tuple, or a `torch.Size`.
    Tuple(Vec<PickleValue>),
    /// A dict or `OrderedDict`, in its order.
    Dict(Vec<(PickleValue, PickleValue)>),
    /// A tensor or parameter.
    Tensor(Arc<StoredTensor>),
    /// A `torch.dtype`.
    Dtype(skillweld_tensor::Dtype),
}

impl PickleValue {
    /// The entries of a dict; none for anything else.
    pub fn entries(&self) -> &[(PickleValue, PickleValue)] {
        if let PickleValue::Dict(entries) = self { entries } else { &[] }
    }

    /// The value under a string key of a dict.
    pub fn get(&self, key: &str) -> Option<&PickleValue> {
        let is_key =
            |entry: &&(PickleValue, PickleValue)| matches!(&entry.0, PickleValue::Str(k) if **k == *key);
        self.entries().iter().find(is_key).map(|(_, value)| value)
    }

    /// What this is, for error texts.
    pub fn kind(&self) -> &'static str {
        match self {
            PickleValue::None => "None",
            PickleValue::Bool(_) => "a bool",
            PickleValue::Int(_) => "an integer",
            PickleValue::Float(_) => "a float",
            PickleValue::Str(_) => "a string",
            PickleValue::List(_) => "a list",
            PickleValue::Tuple(_) => "a tuple",
            PickleValue::Dict(_) => "a dict",
            PickleValue::Tensor(_) => "a tensor",
            PickleValue::Dtype(_) => "a dtype",
        }
    }
}
