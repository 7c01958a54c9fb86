//! `blocks` against `skillweld_tensor::convert`, bit for bit, and its flags.

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use skillweld_gpu::ops::{MergedBlock, StoredBlock, Table, decode_blocks, encode_block};
use skillweld_gpu::{Array, Target};
use skillweld_tensor::{Dtype, convert};

use super::random::{bytes_of, dtype, values};
use super::{Property, failed};

pub(super) fn properties<T: Target>() -> Vec<Property<T>> {
    vec![
        Property { name: "blocks: decoded, less another, as on the CPU", check: decodes },
        Property { name: "blocks: encoded, plus another, as on the CPU", check: encodes },
    ]
}

/// A block: how it is stored, how what is subtracted or added is, whether it holds something that is not finite, a seed.
type Block = (Dtype, Option<Dtype>, bool, u64);

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![0..40usize, 2000..2100usize, 1..5000usize]
}

fn block() -> impl Strategy<Value = Block> {
    (dtype(), prop::option::of(dtype()), any::<bool>(), any::<u64>())
}

fn decodes<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    let cases = (length(), prop::collection::vec(block(), 1..5));
    runner.run(&cases, |(numel, blocks)| decode_case(target, numel, &blocks)).map_err(|e| e.to_string())
}

/// Little-endian elements, perhaps with an infinity or NaN among them.
fn stored((dtype, _, spoilt, seed): Block, numel: usize) -> Vec<u8> {
    let mut values = values(numel, seed);
    if spoilt && numel > 0 {
        values[seed as usize % numel] = if seed.is_multiple_of(2) { f32::INFINITY } else { f32::NAN };
    }
    bytes_of(dtype, &values)
}

fn decode_case<T: Target>(target: &T, numel: usize, blocks: &[Block]) -> Result<(), TestCaseError> {
    let host: Vec<_> = blocks
        .iter()
        .map(|block| {
            let less = block.1.map(|dtype| (dtype, bytes_of(dtype, &values(numel, block.3 ^ 77))));
            (stored(*block, numel), less)
        })
        .collect();
    let mut device = Vec::new();
    for ((bytes, less), block) in host.iter().zip(blocks) {
        let less = less.as_ref().map(|(dtype, bytes)| target.array_of(*dtype, bytes)).transpose();
        let stored = target.array_of(block.0, bytes).map_err(failed)?;
        device.push((stored, less.map_err(failed)?, target.array(Dtype::F32, numel).map_err(failed)?));
    }
    let mut flags = target.array_of(Dtype::U32, &vec![0; 4 * blocks.len()]).map_err(failed)?;
    let operands = device.iter_mut().map(|(stored, less, out)| StoredBlock {
        stored: stored.view(),
        less: less.as_ref().map(Array::view),
        out: out.view_mut(),
    });
    let mut rows = Table::new(target, 16).map_err(failed)?;
    let operands: Vec<_> = operands.collect();
    decode_blocks(target, &mut rows, numel, &operands, &flags.view_mut()).map_err(failed)?;
    let flags = target.read(&flags).map_err(failed)?;
    for (i, (((bytes, less), block), (_, _, out))) in host.iter().zip(blocks).zip(&device).enumerate() {
        let mut expected = vec![0.0; numel];
        let finite = match less {
            None => convert::decode(block.0, bytes, &mut expected),
            Some((dtype, less)) => {
                let mut base = vec![0.0; numel];
                convert::decode(*dtype, less, &mut base).map_err(failed)?;
                convert::decode_difference(block.0, bytes, &base, &mut expected)
            }
        };
        prop_assert_eq!(flags[4 * i] == 0, finite.map_err(failed)?, "flag of block {}", i);
        let is = target.read(out).map_err(failed)?;
        for (element, (is, expected)) in is.chunks_exact(4).zip(&expected).enumerate() {
            let is = f32::from_le_bytes([is[0], is[1], is[2], is[3]]);
            let same = is.to_bits() == expected.to_bits() || is.is_nan() && expected.is_nan();
            prop_assert!(same, "element {element} of block {i}: {is} instead of {expected}");
        }
    }
    Ok(())
}

fn encodes<T: Target>(target: &T, runner: &mut TestRunner) -> Result<(), String> {
    runner
        .run(&(length(), block()), |(numel, block)| encode_case(target, numel, block))
        .map_err(|e| e.to_string())
}

fn encode_case<T: Target>(target: &T, numel: usize, block: Block) -> Result<(), TestCaseError> {
    let (dtype, plus_dtype, spoilt, seed) = block;
    let mut merged = values(numel, seed);
    if spoilt && numel > 0 {
        // Some of these overflow in the output's dtype, some only there.
        merged[seed as usize % numel] =
            [f32::INFINITY, f32::NAN, 65_519.9, 65_520.0, 3.4e38][seed as usize % 5];
    }
    let plus = plus_dtype.map(|dtype| (dtype, bytes_of(dtype, &values(numel, seed ^ 5))));
    let values = target.array_of(Dtype::F32, &bytes_of(Dtype::F32, &merged)).map_err(failed)?;
    let on_device =
        plus.as_ref().map(|(dtype, bytes)| target.array_of(*dtype, bytes)).transpose().map_err(failed)?;
    let mut out = target.array(dtype, numel).map_err(failed)?;
    let mut flag = target.array_of(Dtype::U32, &[0; 4]).map_err(failed)?;
    let operands =
        MergedBlock { values: values.view(), plus: on_device.as_ref().map(Array::view), out: out.view_mut() };
    encode_block(target, numel, &operands, &flag.view_mut()).map_err(failed)?;
    if let Some((dtype, bytes)) = plus {
        let mut plus = vec![0.0; numel];
        convert::decode(dtype, &bytes, &mut plus).map_err(failed)?;
        merged.iter_mut().zip(plus).for_each(|(merged, plus)| *merged += plus);
    }
    let mut expected = vec![0; numel * dtype.bits() / 8];
    let finite = convert::encode(dtype, &merged, &mut expected).map_err(failed)?;
    prop_assert_eq!(target.read(&flag).map_err(failed)?[0] == 0, finite, "the flag");
    let is = target.read(&out).map_err(failed)?;
    let size = dtype.bits() / 8;
    for (element, merged) in merged.iter().enumerate().filter(|(_, merged)| !merged.is_nan()) {
        let place = element * size..(element + 1) * size;
        prop_assert_eq!(&is[place.clone()], &expected[place], "element {}: {}", element, merged);
    }
    Ok(())
}
