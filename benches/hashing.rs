//! Hashes of provenance, made block by block in the same pass as the merge.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]
#![allow(missing_docs, reason = "criterion's macro makes the items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use skillweld_benches::{BLOCK, LEN, memcpy_row, random};
use skillweld_store::TensorHasher;
use skillweld_tensor::{Dtype, convert};

fn hashing(criterion: &mut Criterion) {
    let values = random("values", LEN);
    let mut bytes = vec![0u8; values.len() * 2];
    convert::encode(Dtype::BF16, &values, &mut bytes).expect("bf16 is computable");
    let block_bytes = BLOCK * 2;

    let mut group = criterion.benchmark_group("hash");
    group.sample_size(20);
    memcpy_row(&mut group, &[bytes.as_slice()], block_bytes);
    let hasher = TensorHasher::new(bytes.len() as u64, block_bytes);
    group.bench_function("blocks, joined", |bencher| {
        bencher.iter(|| {
            let blocks = bytes.chunks_exact(block_bytes).enumerate();
            let values: Vec<_> = blocks.map(|(index, block)| hasher.hash_block(index, block)).collect();
            black_box(hasher.finish(&values))
        });
    });
    group.bench_function("blake3 at once", |bencher| bencher.iter(|| black_box(blake3::hash(&bytes))));
    group.finish();
}

criterion_group!(benches, hashing);
criterion_main!(benches);
