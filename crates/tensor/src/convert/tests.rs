use half::{bf16, f16};
use proptest::prelude::*;

use super::*;

/// The slow, obvious forms: one element at a time through `half`, or by searching the table of an 8-bit format.
mod reference {
    use super::*;

    pub(super) fn decode(dtype: Dtype, bytes: &[u8]) -> f32 {
        match dtype {
            Dtype::BF16 => bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
            Dtype::F16 => f16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
            Dtype::F32 => f32::from_le_bytes(bytes.try_into().unwrap()),
            Dtype::F64 => f64::from_le_bytes(bytes.try_into().unwrap()) as f32,
            other => panic!("{other} has no reference"),
        }
    }

    pub(super) fn encode(dtype: Dtype, value: f32) -> Vec<u8> {
        match dtype {
            Dtype::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(value).to_le_bytes().to_vec(),
            Dtype::F8E4M3 => vec![nearest(value, 0x7e, 448.0, 464.0, 0x7f)],
            Dtype::F8E5M2 => vec![nearest(value, 0x7b, 57344.0, 61440.0, 0x7c)],
            other => panic!("{other} has no reference"),
        }
    }

    /// The nearest finite pattern, ties to the even one; from half an ulp above the largest value on: `overflow`.
    fn nearest(value: f32, max_finite: u8, max: f64, overflow_from: f64, overflow: u8) -> u8 {
        let sign = if value.is_sign_negative() { 0x80 } else { 0 };
        let dtype = if max == 448.0 { Dtype::F8E4M3 } else { Dtype::F8E5M2 };
        if value.is_nan() {
            return sign | 0x7f;
        }
        let magnitude = f64::from(value.abs());
        // E4M3: the tie at 464 goes to the even 448; E5M2: the tie at 61440 goes to the (even) infinity.
        if magnitude > overflow_from || (magnitude == overflow_from && overflow == 0x7c) {
            return sign | overflow;
        }
        let distance = |code: u8| {
            let mut decoded = [0.0];
            super::super::decode(dtype, &[code], &mut decoded).unwrap();
            (f64::from(decoded[0]) - magnitude).abs()
        };
        let best = (0..=max_finite)
            .min_by(|&a, &b| distance(a).partial_cmp(&distance(b)).unwrap().then((a % 2).cmp(&(b % 2))));
        sign | best.unwrap()
    }
}

const SIXTEEN_BIT: [Dtype; 2] = [Dtype::BF16, Dtype::F16];

#[test]
fn every_16_bit_pattern_decodes_as_half_does_and_comes_back() {
    for dtype in SIXTEEN_BIT {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut values = vec![0.0; 1 << 16];
        decode(dtype, &bytes, &mut values).unwrap();
        let mut again = vec![0; bytes.len()];
        encode(dtype, &values, &mut again).unwrap();
        for (i, value) in values.iter().enumerate() {
            let pattern = &bytes[2 * i..2 * i + 2];
            let expected = reference::decode(dtype, pattern);
            if expected.is_nan() {
                assert!(value.is_nan(), "{dtype} {i:#06x}");
            } else {
                assert_eq!(value.to_bits(), expected.to_bits(), "{dtype} {i:#06x}");
                assert_eq!(&again[2 * i..2 * i + 2], pattern, "{dtype} {i:#06x}");
            }
        }
    }
}

#[test]
fn fp8_known_values() {
    let decode_one = |dtype, byte| {
        let mut out = [0.0];
        decode(dtype, &[byte], &mut out).unwrap();
        out[0]
    };
    // OCP 8-bit floating point specification, table 2.
    assert_eq!(decode_one(Dtype::F8E4M3, 0x7e), 448.0);
    assert_eq!(decode_one(Dtype::F8E4M3, 0x08), 2f32.powi(-6));
    assert_eq!(decode_one(Dtype::F8E4M3, 0x01), 2f32.powi(-9));
    assert!(decode_one(Dtype::F8E4M3, 0xff).is_nan());
    assert_eq!(decode_one(Dtype::F8E5M2, 0x7b), 57344.0);
    assert_eq!(decode_one(Dtype::F8E5M2, 0x04), 2f32.powi(-14));
    assert_eq!(decode_one(Dtype::F8E5M2, 0x01), 2f32.powi(-16));
    assert_eq!(decode_one(Dtype::F8E5M2, 0xfc), f32::NEG_INFINITY);
    assert!(decode_one(Dtype::F8E5M2, 0x7d).is_nan());
}

/// Any bit pattern, or a value around the range of f16.
fn any_f32() -> impl Strategy<Value = f32> {
    let near_f16 =
        (-20i32..18, 0u32..1 << 23).prop_map(|(e, m)| f32::from_bits(((e + 127) as u32) << 23 | m));
    prop_oneof![any::<u32>().prop_map(f32::from_bits), near_f16]
}

fn any_bits() -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(any_f32(), 0..70)
}

proptest! {
    #[test]
    fn encode_equals_reference(values in any_bits()) {
        for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::F8E4M3, Dtype::F8E5M2] {
            let size = dtype.bits() / 8;
            let mut out = vec![0; values.len() * size];
            encode(dtype, &values, &mut out).unwrap();
            for (value, bytes) in values.iter().zip(out.chunks_exact(size)) {
                if value.is_nan() {
                    let mut back = [0.0];
                    decode(dtype, bytes, &mut back).unwrap();
                    prop_assert!(back[0].is_nan(), "{dtype} {value:?}");
                } else {
                    prop_assert_eq!(bytes, &reference::encode(dtype, *value)[..], "{} {:?}", dtype, value);
                }
            }
        }
    }

    #[test]
    fn decode_equals_reference(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let size = dtype.bits() / 8;
            let bytes = &bytes[..bytes.len() / size * size];
            let mut out = vec![0.0; bytes.len() / size];
            decode(dtype, bytes, &mut out).unwrap();
            for (value, bytes) in out.iter().zip(bytes.chunks_exact(size)) {
                let expected = reference::decode(dtype, bytes);
                prop_assert!(value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan()));
            }
        }
    }

    #[test]
    fn finite_means_no_nan_and_no_infinity(values in any_bits()) {
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        prop_assert_eq!(all_finite(&values), finite(&values));
        for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::F8E4M3, Dtype::F8E5M2] {
            let mut bytes = vec![0; values.len() * dtype.bits() / 8];
            let encoded = encode(dtype, &values, &mut bytes).unwrap();
            let mut back = vec![0.0; values.len()];
            let decoded = decode(dtype, &bytes, &mut back).unwrap();
            prop_assert_eq!(encoded, finite(&back), "{}", dtype);
            prop_assert_eq!(decoded, finite(&back), "{}", dtype);
        }
    }

    #[test]
    fn differences_equal_decoding_and_subtracting(pairs in proptest::collection::vec((any_f32(), any_f32()), 0..70)) {
        let (values, base): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F8E4M3] {
            let mut bytes = vec![0; values.len() * dtype.bits() / 8];
            encode(dtype, &values, &mut bytes).unwrap();
            let (mut decoded, mut difference) = (vec![0.0; values.len()], vec![0.0; values.len()]);
            let finite = decode(dtype, &bytes, &mut decoded).unwrap();
            prop_assert_eq!(decode_difference(dtype, &bytes, &base, &mut difference).unwrap(), finite);
            for ((d, v), b) in difference.iter().zip(&decoded).zip(&base) {
                prop_assert!(d.to_bits() == (v - b).to_bits() || (d.is_nan() && (v - b).is_nan()), "{} {}", v, b);
            }
        }
    }
}

#[test]
fn overflow_starts_exactly_where_encoding_gives_no_finite_value() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F8E5M2, Dtype::F8E4M3] {
        let limit = overflow_from(dtype);
        for (value, finite) in [(limit, false), (limit.next_down(), true)] {
            let mut bytes = vec![0; dtype.bits() / 8];
            assert_eq!(encode(dtype, &[value], &mut bytes).unwrap(), finite, "{dtype} {value}");
            let mut back = [0.0];
            decode(dtype, &bytes, &mut back).unwrap();
            assert_eq!(back[0].is_finite(), finite, "{dtype} {value}");
        }
    }
    assert!(!all_below(&[0.0, f32::NAN], f32::INFINITY));
}
