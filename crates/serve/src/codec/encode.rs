use std::convert::Infallible;

use rmp::encode::{self as write, ByteBuf, ValueWriteError};

#[cfg(feature = "zmq")]
use super::npy;
use super::numpy::Form;
use crate::array::Array;
use crate::value::Value;

/// Writes one message, arrays as `openpi_client.msgpack_numpy` wants them.
pub fn encode(value: &Value) -> Vec<u8> {
    encode_in(Form::OpenPi, value)
}

/// Writes one message with arrays in a form.
pub(crate) fn encode_in(form: Form, value: &Value) -> Vec<u8> {
    let mut buffer = ByteBuf::with_capacity(256);
    match write_value(&mut buffer, form, value) {
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

fn write_value(to: &mut ByteBuf, form: Form, value: &Value) -> Written {
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
        Value::Array(array) => write_array(to, form, array),
        Value::List(values) => {
            write::write_array_len(to, length(values.len()))?;
            values
                .iter()
                .take(length(values.len()) as usize)
                .try_for_each(|value| write_value(to, form, value))
        }
        Value::Map(entries) => {
            write::write_map_len(to, length(entries.len()))?;
            entries.iter().take(length(entries.len()) as usize).try_for_each(|(key, value)| {
                write::write_str(to, key)?;
                write_value(to, form, value)
            })
        }
    }
}

fn write_array(to: &mut ByteBuf, form: Form, array: &Array) -> Written {
    let name = array.dtype().numpy_name();
    match form {
        Form::OpenPi => {
            write::write_map_len(to, 4)?;
            mark(to, b"__ndarray__")?;
            write::write_bin(to, b"data")?;
            write::write_bin(to, array.bytes())?;
            write::write_bin(to, b"dtype")?;
            write::write_str(to, &name)?;
            write_shape(to, array)
        }
        Form::MsgpackNumpy => {
            write::write_map_len(to, 5)?;
            mark(to, b"nd")?;
            write::write_bin(to, b"type")?;
            write::write_str(to, &name)?;
            write::write_bin(to, b"kind")?;
            write::write_bin(to, b"")?;
            write_shape(to, array)?;
            write::write_bin(to, b"data")?;
            write::write_bin(to, array.bytes())
        }
        #[cfg(feature = "zmq")]
        Form::Npy => {
            write::write_map_len(to, 2)?;
            write::write_str(to, "__ndarray_class__")?;
            write_value(to, form, &Value::Bool(true))?;
            write::write_str(to, "as_npy")?;
            write::write_bin(to, &npy::write(array))
        }
    }
}

fn mark(to: &mut ByteBuf, key: &[u8]) -> Written {
    write::write_bin(to, key)?;
    write_value(to, Form::OpenPi, &Value::Bool(true))
}

fn write_shape(to: &mut ByteBuf, array: &Array) -> Written {
    write::write_bin(to, b"shape")?;
    write::write_array_len(to, length(array.shape().len()))?;
    array.shape().iter().try_for_each(|&length| write_value(to, Form::OpenPi, &length.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msgpack_numpys_bytes_are_written() {
        let part = Array::from_f32(&[2], &[0.0, 1.0]).unwrap();
        let step = Value::Map(vec![("arm_joint_state".into(), part.into())]);
        let three = [0_i64, 1, 2].into_iter().flat_map(i64::to_le_bytes).collect::<Vec<_>>();
        let three = Array::new(crate::Dtype::I64, vec![3], three.into()).unwrap();
        let answer = Value::Map(vec![("actions".into(), vec![step].into()), ("n".into(), three.into())]);
        let recorded = include_bytes!("../../tests/data/xpolicylab/answer.msgpack");
        assert_eq!(encode_in(Form::MsgpackNumpy, &answer), recorded);
    }
}
