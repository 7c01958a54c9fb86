//! Stored dtypes to f32 and back, in the executor's blocks.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]
#![allow(missing_docs, reason = "criterion's macro makes the items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use skillweld_benches::{BLOCK, LEN, memcpy_row, random};
use skillweld_tensor::{Dtype, convert};

const DTYPES: [Dtype; 6] = [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::F8E4M3, Dtype::F8E5M2];

fn conversion(criterion: &mut Criterion) {
    let values = random("values", LEN);
    for dtype in DTYPES {
        let size = dtype.bits() / 8;
        let mut stored = vec![0u8; values.len() * size];
        convert::encode(dtype, &values, &mut stored).expect("every dtype here is computable");

        let mut group = criterion.benchmark_group(format!("decode/{dtype}"));
        group.sample_size(20);
        memcpy_row(&mut group, &[stored.as_slice()], BLOCK * size);
        let mut block = vec![0f32; BLOCK];
        group.bench_function("to f32", |bencher| {
            bencher.iter(|| {
                for source in stored.chunks_exact(BLOCK * size) {
                    convert::decode(dtype, source, &mut block).expect("every dtype here is computable");
                    black_box(&mut block);
                }
            });
        });
        group.finish();

        let mut group = criterion.benchmark_group(format!("encode/{dtype}"));
        group.sample_size(20);
        memcpy_row(&mut group, &[values.as_slice()], BLOCK);
        let mut block = vec![0u8; BLOCK * size];
        group.bench_function("from f32", |bencher| {
            bencher.iter(|| {
                for source in values.chunks_exact(BLOCK) {
                    convert::encode(dtype, source, &mut block).expect("every dtype here is computable");
                    black_box(&mut block);
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, conversion);
criterion_main!(benches);
