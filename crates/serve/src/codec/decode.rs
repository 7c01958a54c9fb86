use bytes::Bytes;
use rmp::Marker;

use super::DecodeLimits;
use super::numpy::Form;
use crate::array::ArrayError;
use crate::value::Value;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end in the middle.
    #[error("malformed msgpack: {needed} bytes are announced at byte {at}, of which {left} are there")]
    Truncated {
        /// Where.
        at: usize,
        /// Bytes (or, in a map or list, at least as many) that have to follow.
        needed: usize,
        /// Bytes that do.
        left: usize,
    },
    /// Something follows the message.
    #[error("malformed msgpack: {left} bytes follow the message, which ends at byte {at}")]
    Trailing {
        /// Where the message ends.
        at: usize,
        /// Bytes after it.
        left: usize,
    },
    /// Text that is none.
    #[error("malformed msgpack: the text at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Where.
        at: usize,
    },
    /// A map whose keys are numbers or worse.
    #[error("the map at byte {at} has a key that is neither text nor bytes")]
    Key {
        /// Where.
        at: usize,
    },
    /// An extension type or the reserved marker.
    #[error(
        "byte {at} starts an extension type of msgpack; send numbers, text, lists, maps and NumPy arrays"
    )]
    Extension {
        /// Where.
        at: usize,
    },
    /// Maps or lists too deep inside one another.
    #[error("maps and lists lie more than {limit} deep inside one another at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
        /// How deep they may lie.
        limit: usize,
    },
    /// Too many values.
    #[error("more than {limit} values in one message; send numbers as NumPy arrays, not as lists")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// A map that is marked as a NumPy array or scalar lacks an entry, or holds something else there.
    #[error("the NumPy array or scalar at byte {at} has no `{key}` that is {expected}")]
    NumpyEntry {
        /// Where.
        at: usize,
        /// Which entry.
        key: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// An array of Python's objects, which is a pickle: reading one would run the sender's code.
    #[error("the NumPy array at byte {at} holds pickled objects, which are never read; send numbers")]
    Pickle {
        /// Where.
        at: usize,
    },
    /// A file of NumPy's that is none.
    #[cfg(feature = "zmq")]
    #[error("the .npy file in the map at byte {at} is malformed: {what}")]
    Npy {
        /// Where.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// An array of text or complex numbers.
    #[error(
        "the NumPy array at byte {at} has dtype `{dtype}`; booleans, integers and floating-point numbers are read, text is sent as str"
    )]
    Dtype {
        /// Where.
        at: usize,
        /// NumPy's name of it.
        dtype: String,
    },
    /// An array whose bytes do not fit its shape.
    #[error("the NumPy array at byte {at}: {source}")]
    Array {
        /// Where.
        at: usize,
        /// What is wrong.
        source: ArrayError,
    },
}

/// Reads one message. Bytes and arrays share the frame's memory (big-endian arrays are copied).
///
/// # Errors
/// [`DecodeError`], with the position, for whatever is no message within the limits. Nothing is allocated because an
/// announced length says so: only what has been received counts.
pub fn decode(frame: &Bytes, limits: &DecodeLimits) -> Result<Value, DecodeError> {
    decode_noting_form(frame, limits).map(|(value, _)| value)
}

/// As [`decode`]; also says in which form the first array was sent, so that answers can be in it, too.
pub(crate) fn decode_noting_form(
    frame: &Bytes,
    limits: &DecodeLimits,
) -> Result<(Value, Option<Form>), DecodeError> {
    let mut reader = Reader { frame, at: 0, elements: 0, form: None, limits };
    let value = reader.value(0)?;
    let left = reader.left();
    if left > 0 {
        return Err(DecodeError::Trailing { at: reader.at, left });
    }
    Ok((value, reader.form))
}

struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    elements: usize,
    /// Of the first array.
    form: Option<Form>,
    limits: &'a DecodeLimits,
}

impl Reader<'_> {
    fn left(&self) -> usize {
        self.frame.len() - self.at
    }

    /// The next `length` bytes: their position.
    fn take(&mut self, length: usize) -> Result<std::ops::Range<usize>, DecodeError> {
        if length > self.left() {
            return Err(DecodeError::Truncated { at: self.at, needed: length, left: self.left() });
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    fn big_endian<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let range = self.take(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.frame[range]);
        Ok(bytes)
    }

    /// A length of one, two or four bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, DecodeError> {
        let bytes = self.big_endian::<N>()?;
        Ok(bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)))
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(DecodeError::TooMany { limit: self.limits.elements });
        }
        let start = self.at;
        let [marker] = self.big_endian()?;
        Ok(match Marker::from_u8(marker) {
            Marker::Null => Value::Nil,
            Marker::True => Value::Bool(true),
            Marker::False => Value::Bool(false),
            Marker::FixPos(value) => Value::Int(value.into()),
            Marker::FixNeg(value) => Value::Int(value.into()),
            Marker::U8 => Value::Int(u8::from_be_bytes(self.big_endian()?).into()),
            Marker::U16 => Value::Int(u16::from_be_bytes(self.big_endian()?).into()),
            Marker::U32 => Value::Int(u32::from_be_bytes(self.big_endian()?).into()),
            Marker::U64 => Value::Int(u64::from_be_bytes(self.big_endian()?).into()),
            Marker::I8 => Value::Int(i8::from_be_bytes(self.big_endian()?).into()),
            Marker::I16 => Value::Int(i16::from_be_bytes(self.big_endian()?).into()),
            Marker::I32 => Value::Int(i32::from_be_bytes(self.big_endian()?).into()),
            Marker::I64 => Value::Int(i64::from_be_bytes(self.big_endian()?).into()),
            Marker::F32 => Value::Float(f32::from_be_bytes(self.big_endian()?).into()),
            Marker::F64 => Value::Float(f64::from_be_bytes(self.big_endian()?)),
            Marker::FixStr(length) => self.text(length.into())?,
            Marker::Str8 => self.length::<1>().and_then(|length| self.text(length))?,
            Marker::Str16 => self.length::<2>().and_then(|length| self.text(length))?,
            Marker::Str32 => self.length::<4>().and_then(|length| self.text(length))?,
            Marker::Bin8 => self.length::<1>().and_then(|length| self.bytes(length))?,
            Marker::Bin16 => self.length::<2>().and_then(|length| self.bytes(length))?,
            Marker::Bin32 => self.length::<4>().and_then(|length| self.bytes(length))?,
            Marker::FixArray(length) => self.list(start, length.into(), depth)?,
            Marker::Array16 => self.length::<2>().and_then(|length| self.list(start, length, depth))?,
            Marker::Array32 => self.length::<4>().and_then(|length| self.list(start, length, depth))?,
            Marker::FixMap(length) => self.map(start, length.into(), depth)?,
            Marker::Map16 => self.length::<2>().and_then(|length| self.map(start, length, depth))?,
            Marker::Map32 => self.length::<4>().and_then(|length| self.map(start, length, depth))?,
            _ => return Err(DecodeError::Extension { at: start }),
        })
    }

    fn text(&mut self, length: usize) -> Result<Value, DecodeError> {
        let range = self.take(length)?;
        let at = range.start;
        let text = std::str::from_utf8(&self.frame[range]).map_err(|_| DecodeError::NotUtf8 { at })?;
        Ok(Value::Text(text.to_owned()))
    }

    fn bytes(&mut self, length: usize) -> Result<Value, DecodeError> {
        let range = self.take(length)?;
        Ok(Value::Bytes(self.frame.slice(range)))
    }

    /// Refuses a container that cannot be whole or lies too deep, before anything in it is read.
    fn enter(&self, at: usize, least_bytes: usize, depth: usize) -> Result<(), DecodeError> {
        if depth >= self.limits.depth {
            return Err(DecodeError::TooDeep { at, limit: self.limits.depth });
        }
        if least_bytes > self.left() {
            return Err(DecodeError::Truncated { at, needed: least_bytes, left: self.left() });
        }
        Ok(())
    }

    fn list(&mut self, at: usize, length: usize, depth: usize) -> Result<Value, DecodeError> {
        self.enter(at, length, depth)?;
        let mut values = Vec::new();
        for _ in 0..length {
            values.push(self.value(depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn map(&mut self, at: usize, length: usize, depth: usize) -> Result<Value, DecodeError> {
        self.enter(at, length.saturating_mul(2), depth)?;
        let mut entries = Vec::new();
        for _ in 0..length {
            let key = self.key(at)?;
            entries.push((key, self.value(depth + 1)?));
        }
        let map = Value::Map(entries);
        match Form::of(&map) {
            Some(form) => {
                self.form.get_or_insert(form);
                form.read(map, at)
            }
            None => Ok(map),
        }
    }

    /// A key, str or bin.
    fn key(&mut self, map: usize) -> Result<String, DecodeError> {
        let [marker] = self.big_endian()?;
        let length = match Marker::from_u8(marker) {
            Marker::FixStr(length) => length.into(),
            Marker::Str8 | Marker::Bin8 => self.length::<1>()?,
            Marker::Str16 | Marker::Bin16 => self.length::<2>()?,
            Marker::Str32 | Marker::Bin32 => self.length::<4>()?,
            _ => return Err(DecodeError::Key { at: map }),
        };
        match self.text(length)? {
            Value::Text(key) => Ok(key),
            _ => Err(DecodeError::Key { at: map }),
        }
    }
}
