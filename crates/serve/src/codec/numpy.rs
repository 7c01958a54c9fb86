//! The maps that stand for NumPy's arrays and scalars, in the forms of three packers.

use bytes::Bytes;

use super::decode::DecodeError;
#[cfg(feature = "zmq")]
use super::npy;
use crate::array::{Array, Dtype};
use crate::value::Value;

/// Who packed it. Keys may be str or bin in all forms that are read; what is written has each packer's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `openpi_client.msgpack_numpy`: `{__ndarray__: true, data, dtype, shape}` and `{__npgeneric__: true, data, dtype}`,
    /// whose `data` is a number of Python.
    OpenPi,
    /// PyPI's `msgpack_numpy`: `{nd: true, type, kind, shape, data}` and `{nd: false, type, data}`, whose `data` is bytes.
    MsgpackNumpy,
    /// GR00T's: `{__ndarray_class__: true, as_npy}`, whose `as_npy` is a file of `numpy.save`.
    #[cfg(feature = "zmq")]
    Npy,
}

impl Form {
    /// The form of a map that stands for an array or scalar; none for any other map.
    pub(super) fn of(map: &Value) -> Option<Self> {
        if map.get("__ndarray__").is_some() || map.get("__npgeneric__").is_some() {
            return Some(Self::OpenPi);
        }
        #[cfg(feature = "zmq")]
        if map.get("__ndarray_class__").is_some() {
            return Some(Self::Npy);
        }
        matches!(map.get("nd"), Some(Value::Bool(_))).then_some(Self::MsgpackNumpy)
    }

    /// What the map that begins at byte `at` stands for.
    pub(super) fn read(self, map: Value, at: usize) -> Result<Value, DecodeError> {
        match self {
            Self::OpenPi if map.get("__ndarray__").is_some() => array(&map, at, "dtype").map(Value::Array),
            Self::OpenPi => scalar(map, at),
            Self::MsgpackNumpy => {
                no_kind(&map, at)?;
                match map.get("nd") {
                    Some(Value::Bool(false)) => single(&map, at),
                    _ => array(&map, at, "type").map(Value::Array),
                }
            }
            #[cfg(feature = "zmq")]
            Self::Npy => match map.get("as_npy") {
                Some(Value::Bytes(file)) => npy::read(file, at).map(Value::Array),
                _ => Err(DecodeError::NumpyEntry { at, key: "as_npy", expected: "bytes" }),
            },
        }
    }
}

/// Refuses `msgpack_numpy`'s kinds: O is a pickle, V a structure.
fn no_kind(map: &Value, at: usize) -> Result<(), DecodeError> {
    match map.get("kind").map(text) {
        None | Some(Some("")) => Ok(()),
        Some(Some("O")) => Err(DecodeError::Pickle { at }),
        Some(kind) => Err(DecodeError::Dtype { at, dtype: kind.unwrap_or("?").chars().take(40).collect() }),
    }
}

/// Text, which packers may send as bytes.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// The dtype under `key`; also whether the numbers are big-endian.
fn dtype(map: &Value, at: usize, key: &'static str) -> Result<(Dtype, bool), DecodeError> {
    let expected = "NumPy's name of a plain dtype";
    let name = map.get(key).and_then(text).ok_or(DecodeError::NumpyEntry { at, key, expected })?;
    named(name, at)
}

/// The dtype of a name of NumPy's.
pub(super) fn named(name: &str, at: usize) -> Result<(Dtype, bool), DecodeError> {
    Dtype::from_numpy_name(name).ok_or_else(|| match name.trim_start_matches(['|', '<', '>', '=']) {
        "O" => DecodeError::Pickle { at },
        _ => DecodeError::Dtype { at, dtype: name.chars().take(40).collect() },
    })
}

fn data(map: &Value, at: usize) -> Result<&Bytes, DecodeError> {
    match map.get("data") {
        Some(Value::Bytes(data)) => Ok(data),
        _ => Err(DecodeError::NumpyEntry { at, key: "data", expected: "bytes" }),
    }
}

fn array(map: &Value, at: usize, dtype_key: &'static str) -> Result<Array, DecodeError> {
    let dtype = dtype(map, at, dtype_key)?;
    let Some(Value::List(lengths)) = map.get("shape") else {
        return Err(DecodeError::NumpyEntry { at, key: "shape", expected: "a list" });
    };
    let length = |value: &Value| match value {
        Value::Int(length) => usize::try_from(*length).ok(),
        _ => None,
    };
    let shape = lengths.iter().map(length).collect::<Option<Vec<_>>>().ok_or(DecodeError::NumpyEntry {
        at,
        key: "shape",
        expected: "a list of lengths",
    })?;
    little_endian(dtype, shape, data(map, at)?, at)
}

/// An array of bytes in either order, which share the frame's memory if they are as ours.
pub(super) fn little_endian(
    (dtype, big_endian): (Dtype, bool),
    shape: Vec<usize>,
    data: &Bytes,
    at: usize,
) -> Result<Array, DecodeError> {
    let data = if big_endian { swapped(data, dtype.size()) } else { data.clone() };
    Array::new(dtype, shape, data).map_err(|source| DecodeError::Array { at, source })
}

/// Every number's bytes in the other order.
fn swapped(data: &Bytes, size: usize) -> Bytes {
    let mut bytes = data.to_vec();
    bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    bytes.into()
}

/// openpi's scalar is its value: `data` is a number or text of Python.
fn scalar(map: Value, at: usize) -> Result<Value, DecodeError> {
    let expected = "NumPy's name of a plain dtype";
    map.get("dtype").and_then(text).ok_or(DecodeError::NumpyEntry { at, key: "dtype", expected })?;
    let data = match map {
        Value::Map(entries) => entries.into_iter().rev().find(|(key, _)| key == "data"),
        _ => None,
    };
    match data {
        Some((_, value @ (Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_)))) => Ok(value),
        _ => Err(DecodeError::NumpyEntry { at, key: "data", expected: "a number or text" }),
    }
}

/// `msgpack_numpy`'s scalar: the bytes of one number.
fn single(map: &Value, at: usize) -> Result<Value, DecodeError> {
    let number = little_endian(dtype(map, at, "type")?, Vec::new(), data(map, at)?, at)?;
    let dtype = number.dtype();
    Ok(match number.to_f64().first().copied() {
        Some(value) if dtype == Dtype::Bool => (value != 0.0).into(),
        Some(value) if dtype.is_float() => value.into(),
        // Not through f64, which has 53 bits.
        _ => Value::Int(integer(number.bytes(), dtype.is_signed())),
    })
}

/// A little-endian integer of at most eight bytes.
fn integer(bytes: &[u8], signed: bool) -> i128 {
    let negative = signed && bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    i128::from_le_bytes(wide)
}
