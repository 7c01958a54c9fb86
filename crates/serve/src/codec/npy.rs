//! Files of `numpy.save`, in messages: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! The header is a dict of Python with exactly `descr`, `fortran_order` and `shape`. Only plain dtypes are read; an array of
//! objects, which is a pickle, is refused.

use bytes::Bytes;

use super::decode::DecodeError;
use super::numpy::{little_endian, named};
use crate::array::Array;

const MAGIC: &[u8] = b"\x93NUMPY";

/// As much as NumPy itself reads unasked.
const MAX_HEADER_BYTES: usize = 10_000;

/// The header's bytes before it are a multiple of this.
const ALIGNMENT: usize = 64;

/// Reads a file in the map that begins at byte `at`. A C-ordered, little-endian array shares its memory.
pub(super) fn read(file: &Bytes, at: usize) -> Result<Array, DecodeError> {
    let wrong = |what| DecodeError::Npy { at, what };
    let rest = file.strip_prefix(MAGIC).ok_or(wrong("it does not begin with NumPy's mark"))?;
    let (start, length) = match *rest {
        [1, _, a, b, ..] => (10, usize::from(u16::from_le_bytes([a, b]))),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return Err(wrong("its version is none of 1, 2 and 3, or it ends there")),
    };
    if length > MAX_HEADER_BYTES {
        return Err(wrong("its header is longer than 10000 bytes"));
    }
    let header = file[start..].get(..length).ok_or(wrong("it ends within its header"))?;
    let header = std::str::from_utf8(header).ok().and_then(Header::parse);
    let header = header.ok_or(wrong("its header is not that of an array of plain numbers"))?;
    let array = little_endian(named(header.descr, at)?, header.shape, &file.slice(start + length..), at)?;
    if !header.fortran_order {
        return Ok(array);
    }
    let data = c_order(&array);
    Array::new(array.dtype(), array.shape().to_vec(), data)
        .map_err(|source| DecodeError::Array { at, source })
}

struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text.trim_end().strip_prefix('{')?.strip_suffix('}')?.trim();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            let after = match key {
                "descr" if descr.is_none() => {
                    let (name, after) = quoted(value)?;
                    descr = Some(name);
                    after
                }
                "fortran_order" if fortran_order.is_none() => {
                    let yes = value.strip_prefix("True");
                    fortran_order = Some(yes.is_some());
                    yes.or_else(|| value.strip_prefix("False"))?
                }
                "shape" if shape.is_none() => {
                    let (lengths, after) = value.strip_prefix('(')?.split_once(')')?;
                    shape = Some(tuple(lengths)?);
                    after
                }
                _ => return None,
            };
            rest = match after.trim_start() {
                "" => "",
                more => more.strip_prefix(',')?.trim_start(),
            };
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// What stands between the quotes that the text begins with, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| ['\'', '"'].contains(quote))?;
    text[1..].split_once(quote)
}

/// `3, 4`, `3,` or nothing.
fn tuple(text: &str) -> Option<Vec<usize>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Vec::new());
    }
    let lengths = text.strip_suffix(',').unwrap_or(text).split(',');
    let length = |length: &str| {
        let digits = length.trim();
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    lengths.map(length).collect()
}

/// The numbers of an array whose first index runs fastest, in the order in which the last does.
fn c_order(array: &Array) -> Bytes {
    let (shape, size, data) = (array.shape(), array.dtype().size(), array.bytes());
    // How far apart, in numbers, neighbours along each dimension lie.
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(data.len());
    for _ in 0..array.len() {
        let from = size * index.iter().zip(&strides).map(|(index, stride)| index * stride).sum::<usize>();
        ordered.extend_from_slice(&data[from..from + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    ordered.into()
}

/// The bytes that `numpy.save` writes.
pub(super) fn write(array: &Array) -> Vec<u8> {
    let shape = match array.shape() {
        [length] => format!("({length},)"),
        shape => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    let name = array.dtype().numpy_name();
    let mut header = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': {shape}, }}");
    let head = MAGIC.len() + 4;
    let padded = (head + header.len() + 1).next_multiple_of(ALIGNMENT) - head;
    // At most eight dimensions of twenty digits: a header of version 1 takes 65535 bytes.
    header.extend(std::iter::repeat_n(' ', padded - 1 - header.len()));
    header.push('\n');
    let length = u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes();
    [MAGIC, &[1, 0], &length, header.as_bytes(), array.bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Dtype;

    /// A file with this header and these bytes.
    fn file(header: &str, data: &[u8]) -> Bytes {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), data].concat().into()
    }

    #[test]
    fn headers_are_those_of_numpy() {
        // `numpy.save` of `numpy.arange(3, dtype="<f4")`, NumPy 2.
        let array = Array::from_f32(&[3], &[0.0, 1.0, 2.0]).unwrap();
        let mut expected =
            b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        expected.extend_from_slice(array.bytes());
        assert_eq!(write(&array), expected);
        assert_eq!(read(&expected.into(), 0), Ok(array));
    }

    #[test]
    fn both_orders_of_numbers_are_read() {
        let data: Vec<u8> = (0..6).collect();
        let read = |fortran: &str| {
            let header = format!("{{'descr': '|u1', 'fortran_order': {fortran}, 'shape': (2, 3), }}\n");
            read(&file(&header, &data), 0).unwrap().bytes().to_vec()
        };
        assert_eq!(read("False"), [0, 1, 2, 3, 4, 5]);
        // Columns lie one after the other.
        assert_eq!(read("True"), [0, 2, 4, 1, 3, 5]);
        let big = file("{'shape': (), 'fortran_order': False, 'descr': '>u2'}", &[1, 2]);
        assert_eq!(super::read(&big, 0).unwrap().to_f64(), [258.0]);
    }

    #[test]
    fn what_numpy_has_saved_in_fortrans_order_is_turned() {
        // `numpy.asfortranarray(numpy.arange(6).reshape(2, 3))` in a message: see `tests/data/record.py`.
        let recorded = Bytes::from_static(include_bytes!("../../tests/data/gr00t/fortran.msgpack"));
        let value = crate::decode(&recorded, &crate::DecodeLimits::default()).unwrap();
        let Some(crate::Value::Array(array)) = value.get("a") else { panic!("{value:?}") };
        assert_eq!(array.shape(), [2, 3]);
        assert_eq!(array.to_f64(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn what_is_no_plain_array_is_refused() {
        let with = |descr: &str, shape: &str| {
            let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
            read(&file(&header, &[0; 8]), 5).unwrap_err().to_string()
        };
        for (error, expected) in [
            (with("'|O'", "(1,)"), "at byte 5 holds pickled objects"),
            (with("'<U2'", "(1,)"), "dtype `<U2`"),
            (with("[('a', '<f4')]", "(2,)"), "not that of an array of plain numbers"),
            (with("'<f4'", "(2, -1)"), "not that of an array of plain numbers"),
            (with("'<f4'", "(2L,)"), "not that of an array of plain numbers"),
            (with("'<f4'", "(99999999999999999999,)"), "not that of an array of plain numbers"),
            (with("'<f4'", "(3,)"), "takes 12 bytes, not 8"),
            (with("'<f4'", "(4611686018427387904, 4)"), "larger than memory"),
            (with("'<f4', 'descr': '<f4'", "(2,)"), "not that of an array of plain numbers"),
            (read(&Bytes::from_static(b"\x80\x04pickle"), 0).unwrap_err().to_string(), "NumPy's mark"),
            (read(&Bytes::from_static(b"\x93NUMPY\x09\x00\x01\x00"), 0).unwrap_err().to_string(), "version"),
            (
                read(&Bytes::from_static(b"\x93NUMPY\x01\x00\xff\x00"), 0).unwrap_err().to_string(),
                "ends within",
            ),
            (
                read(&Bytes::from_static(b"\x93NUMPY\x02\x00\xff\xff\xff\xff"), 0).unwrap_err().to_string(),
                "longer than 10000",
            ),
        ] {
            assert!(error.contains(expected), "`{error}` does not say `{expected}`");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(shape in proptest::collection::vec(0..4_usize, 0..5), seed: u8) {
            let count = shape.iter().product::<usize>();
            let data: Vec<u8> = (0..2 * count).map(|index| (index as u8).wrapping_mul(7) ^ seed).collect();
            let array = Array::new(Dtype::I16, shape, data.into()).unwrap();
            prop_assert_eq!(read(&write(&array).into(), 0), Ok(array));
        }

        #[test]
        fn no_bytes_make_it_panic(
            header in "[{}'descrfotan_shp:(),0-9 <|FTu]{0,80}",
            data in proptest::collection::vec(any::<u8>(), 0..40),
            cut in any::<proptest::sample::Index>(),
        ) {
            let bytes = file(&header, &data);
            let cut = cut.index(bytes.len() + 1);
            drop(read(&bytes.slice(..cut), 0));
            drop(read(&data.into(), 0));
        }
    }
}
