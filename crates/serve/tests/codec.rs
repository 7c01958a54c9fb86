//! msgpack with NumPy arrays: the official packer's bytes, round trips, and bytes of an enemy.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is a failed test")]

mod harness;

use bytes::Bytes;
use harness::{array, floats, map, numbers};
use proptest::prelude::*;
use skillweld_serve::{Array, DecodeError, DecodeLimits, Dtype, Value, decode, encode};

/// Written by `openpi_client.msgpack_numpy.packb` of openpi-client 0.1.2:
/// `{"a": arange(6, float32) as 2 × 3, "s": 2.5, "i": int8(-3), "b": bool_(True), "t": "hi", "n": None,
/// "l": [1, -1, 300, 70000, 2**40, 2**63], "u": uint8 [[1, 2]], "e": big-endian float64 [1.5], "z": array(7), "raw": b"\1\2"}`
const OFFICIAL: &str = "8ba16184c40b5f5f6e6461727261795f5fc3c40464617461c418000000000000803f0000004000004040000080400000a040c40564\
     74797065a33c6634c4057368617065920203a173cb4004000000000000a16983c40d5f5f6e7067656e657269635f5fc3c40464617461fdc405647479\
     7065a37c6931a16283c40d5f5f6e7067656e657269635f5fc3c40464617461c3c4056474797065a37c6231a174a26869a16ec0a16c9601ffcd012cce\
     00011170cf0000010000000000cf8000000000000000a17584c40b5f5f6e6461727261795f5fc3c40464617461c4020102c4056474797065a37c7531\
     c4057368617065920102a16584c40b5f5f6e6461727261795f5fc3c40464617461c4083ff8000000000000c4056474797065a33e6638c40573686170\
     659101a17a84c40b5f5f6e6461727261795f5fc3c40464617461c4080700000000000000c4056474797065a33c6938c405736861706590a3726177c4\
     020102";

/// `{"actions": float32 [[1.5, -2.0]], "n": array([1, 2])}` by the same.
const OFFICIAL_REPLY: &str = "82a7616374696f6e7384c40b5f5f6e6461727261795f5fc3c40464617461c4080000c03f000000c0c4056474797065a33c\
     6634c4057368617065920102a16e84c40b5f5f6e6461727261795f5fc3c40464617461c41001000000000000000200000000000000c4056474797065\
     a33c6938c40573686170659102";

fn bytes_of(hex: &str) -> Bytes {
    let hex: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn read(bytes: &[u8]) -> Result<Value, DecodeError> {
    decode(&Bytes::copy_from_slice(bytes), &DecodeLimits::default())
}

#[test]
fn the_official_packers_bytes_are_read() {
    let value = decode(&bytes_of(OFFICIAL), &DecodeLimits::default()).unwrap();
    assert_eq!(numbers(&value, "a"), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    assert_eq!(value.get("s"), Some(&Value::Float(2.5)));
    assert_eq!(value.get("i"), Some(&Value::Int(-3)));
    assert_eq!(value.get("b"), Some(&Value::Bool(true)));
    assert_eq!(value.get("t"), Some(&Value::Text("hi".into())));
    assert_eq!(value.get("n"), Some(&Value::Nil));
    let integers = [1, -1, 300, 70000, 1 << 40, 1 << 63].map(Value::Int);
    assert_eq!(value.get("l"), Some(&Value::List(integers.to_vec())));
    assert_eq!(numbers(&value, "u"), (vec![1, 2], vec![1.0, 2.0]));
    assert_eq!(numbers(&value, "e"), (vec![1], vec![1.5]));
    assert_eq!(numbers(&value, "z"), (vec![], vec![7.0]));
    assert_eq!(value.get("raw"), Some(&Value::Bytes(Bytes::from_static(&[1, 2]))));
}

#[test]
fn what_is_written_is_what_the_official_packer_writes() {
    let integers = [1_i64, 2].into_iter().flat_map(i64::to_le_bytes).collect();
    let actions: Value = Array::from_f32(&[1, 2], &[1.5, -2.0]).unwrap().into();
    let reply = map(vec![("actions", actions), ("n", array(Dtype::I64, &[2], integers))]);
    assert_eq!(encode(&reply), bytes_of(OFFICIAL_REPLY));
}

#[test]
fn arrays_share_the_frames_memory() {
    let frame: Bytes = encode(&map(vec![("image", array(Dtype::U8, &[1000], vec![7; 1000]))])).into();
    let value = decode(&frame, &DecodeLimits::default()).unwrap();
    let Some(Value::Array(image)) = value.get("image") else { panic!("{value:?}") };
    assert!(frame.as_ptr_range().contains(&image.bytes().as_ptr()));
}

#[test]
fn inner_keys_may_be_text() {
    let text_keys = map(vec![
        ("__ndarray__", true.into()),
        ("data", Value::Bytes(Bytes::from_static(&[1, 2]))),
        ("dtype", "|u1".into()),
        ("shape", vec![2_usize].into()),
    ]);
    assert_eq!(read(&encode(&text_keys)), Ok(array(Dtype::U8, &[2], vec![1, 2])));
}

#[test]
fn what_is_no_message_is_refused_with_its_place() {
    let numpy = |key: &str, value: Value| {
        let good = map(vec![
            ("__ndarray__", true.into()),
            ("data", Value::Bytes(Bytes::from_static(&[0; 8]))),
            ("dtype", "<f4".into()),
            ("shape", vec![2_usize].into()),
        ]);
        read(&encode(&harness::with(&good, key, Some(value)))).unwrap_err().to_string()
    };
    let refused = [
        (read(&[]).unwrap_err().to_string(), "1 bytes are announced at byte 0, of which 0 are there"),
        (read(&[0xc1]).unwrap_err().to_string(), "extension"),
        (read(&[0xd4, 1, 2]).unwrap_err().to_string(), "extension"),
        (read(&[0xc0, 0xc0]).unwrap_err().to_string(), "1 bytes follow the message"),
        (read(&[0xa2, 0xff, 0xff]).unwrap_err().to_string(), "not UTF-8"),
        (read(&[0x81, 1, 2]).unwrap_err().to_string(), "neither text nor bytes"),
        // Announced lengths of 4 GiB.
        (read(&[0xdd, 255, 255, 255, 255]).unwrap_err().to_string(), "4294967295 bytes are announced"),
        (read(&[0xdf, 255, 255, 255, 255]).unwrap_err().to_string(), "8589934590 bytes are announced"),
        (read(&[0xc6, 255, 255, 255, 255, 0]).unwrap_err().to_string(), "4294967295 bytes are announced"),
        (read(&[0xdb, 255, 255, 255, 255, 0]).unwrap_err().to_string(), "4294967295 bytes are announced"),
        (read(&[0x91; 100]).unwrap_err().to_string(), "more than 16 deep"),
        (
            read(&[vec![0xdd, 0, 2, 0, 0], vec![0; 1 << 17]].concat()).unwrap_err().to_string(),
            "more than 65536 values",
        ),
        (numpy("dtype", "<U5".into()), "dtype `<U5`"),
        (numpy("dtype", Value::List(vec![])), "no `dtype`"),
        (numpy("shape", vec![3_usize].into()), "takes 12 bytes, not 8"),
        (numpy("shape", Value::List(vec![Value::Int(-2)])), "no `shape` that is a list of lengths"),
        (numpy("shape", Value::List(vec![Value::Int(1 << 62), Value::Int(1 << 62)])), "larger than memory"),
        (numpy("shape", vec![1_usize; 9].into()), "9 dimensions"),
        (numpy("data", "text".into()), "no `data` that is bytes"),
    ];
    for (message, expected) in refused {
        assert!(message.contains(expected), "`{message}` does not say `{expected}`");
    }
}

/// Memory that a value holds beside its frame.
fn memory(value: &Value) -> usize {
    let own = match value {
        Value::Text(text) => text.capacity(),
        Value::List(values) => {
            values.iter().map(memory).sum::<usize>() + values.capacity() * size_of::<Value>()
        }
        Value::Map(entries) => {
            let entry = |(key, value): &(String, Value)| key.capacity() + memory(value);
            entries.iter().map(entry).sum::<usize>() + entries.capacity() * size_of::<(String, Value)>()
        }
        _ => 0,
    };
    own + if let Value::Array(array) = value { size_of_val(array.shape()) } else { 0 }
}

fn values() -> impl Strategy<Value = Value> {
    let numpy = (proptest::collection::vec(any::<f32>(), 0..12)).prop_map(|numbers| floats(&numbers));
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|value| Value::Int(value.into())),
        any::<u64>().prop_map(|value| Value::Int(value.into())),
        any::<f64>().prop_map(Value::Float),
        ".{0,40}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Bytes(bytes.into())),
        numpy,
    ];
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::List),
            proptest::collection::vec((".{0,40}", inner), 0..20).prop_map(Value::Map),
        ]
    })
}

/// Equal, NaN being itself.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (a, b) => a == b,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_read(value in values()) {
        let back = read(&encode(&value)).unwrap();
        prop_assert!(same(&back, &value), "{back:?}");
    }

    #[test]
    fn no_bytes_make_it_panic_or_take_memory(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(value) = read(&bytes) {
            prop_assert!(memory(&value) <= 256 * bytes.len());
        }
    }

    #[test]
    fn nor_do_damaged_messages(
        value in values(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = encode(&value);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Ok(value) = read(&bytes) {
            prop_assert!(memory(&value) <= 256 * bytes.len());
        }
        bytes.truncate(cut.index(bytes.len()));
        if let Ok(value) = read(&bytes) {
            prop_assert!(memory(&value) <= 256 * bytes.len());
        }
    }

    #[test]
    fn big_endian_numbers_are_turned(numbers in proptest::collection::vec(any::<f64>(), 0..10)) {
        let mut value = map(vec![
            ("__ndarray__", true.into()),
            ("dtype", ">f8".into()),
            ("shape", vec![numbers.len()].into()),
        ]);
        let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        value = harness::with(&value, "data", Some(Value::Bytes(data.into())));
        let Value::Array(back) = read(&encode(&value)).unwrap() else { panic!() };
        let bits = |numbers: &[f64]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&back.to_f64()), bits(&numbers));
    }
}
