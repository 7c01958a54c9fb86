use std::convert::Infallible;

use rmp::encode::{self as write, ByteBuf, ValueWriteError};

use crate::array::Array;
use crate::value::Value;

/// Writes one message, arrays as `openpi_client.msgpack_numpy` wants them.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut buffer = ByteBuf::with_capacity(256);
    match write_value(&mut buffer, value) {
        Ok(()) => buffer.into_vec(),
        Err(ValueWriteError::InvalidMarkerWrite(never) | ValueWriteError::InvalidDataWrite(never)) => {
            match never {}
        }
    }
}

type Written = Result<(), ValueWriteError<Infallible>>;

/// msgpack's lengths have 32 bits. A longer list or map, which nothing here makes, is cut.
fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn write_value(to: &mut ByteBuf, value: &Value) -> Written {
    match value {
        Value::Nil => write::write_nil(to).map_err(ValueWriteError::InvalidMarkerWrite),
        Value::Bool(value) => write::write_bool(to, *value).map_err(ValueWriteError::InvalidMarkerWrite),
        Value::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
            (Ok(value), _) => write::write_uint(to, value).map(drop),
            (_, Ok(value)) => write::write_sint(to, value).map(drop),
            // msgpack has no such integer, and reading never gives one.
            _ => write::write_f64(to, *value as f64),
        },
        Value::Float(value) => write::write_f64(to, *value),
        Value::Text(text) => write::write_str(to, text),
        Value::Bytes(bytes) => write::write_bin(to, bytes),
        Value::Array(array) => write_array(to, array),
        Value::List(values) => {
            write::write_array_len(to, length(values.len()))?;
            values.iter().take(length(values.len()) as usize).try_for_each(|value| write_value(to, value))
        }
        Value::Map(entries) => {
            write::write_map_len(to, length(entries.len()))?;
            entries.iter().take(length(entries.len()) as usize).try_for_each(|(key, value)| {
                write::write_str(to, key)?;
                write_value(to, value)
            })
        }
    }
}

fn write_array(to: &mut ByteBuf, array: &Array) -> Written {
    write::write_map_len(to, 4)?;
    write::write_bin(to, b"__ndarray__")?;
    write_value(to, &Value::Bool(true))?;
    write::write_bin(to, b"data")?;
    write::write_bin(to, array.bytes())?;
    write::write_bin(to, b"dtype")?;
    write::write_str(to, &array.dtype().numpy_name())?;
    write::write_bin(to, b"shape")?;
    write::write_array_len(to, length(array.shape().len()))?;
    array.shape().iter().try_for_each(|&length| write_value(to, &length.into()))
}
