//! Decompositions of matrices as they occur: a square projection, an MLP projection, and a stack of LoRA factors.
//! `--features lapack` measures LAPACK in the same rows.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]
#![allow(missing_docs, reason = "criterion's macro makes the items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::ArrayView2;
use skillweld_benches::{memcpy_row, random};
use skillweld_linalg::{BACKEND, qr, thin_svd};

fn svd(criterion: &mut Criterion) {
    let values = random("matrix", 896 * 4864);
    for (rows, columns) in [(896, 896), (896, 4864), (4864, 256)] {
        let values = &values[..rows * columns];
        let matrix =
            ArrayView2::from_shape((rows, columns), values).expect("as many values as the shape has");
        let mut group = criterion.benchmark_group(format!("svd/{rows}x{columns}"));
        group.sample_size(10);
        memcpy_row(&mut group, &[values], values.len());
        group.bench_function(format!("thin SVD, {BACKEND}"), |bencher| {
            bencher.iter(|| black_box(thin_svd(&matrix).expect("finite values decompose")));
        });
        group.bench_function(format!("QR, {BACKEND}"), |bencher| {
            bencher.iter(|| black_box(qr(&matrix).expect("finite values decompose")));
        });
        group.finish();
    }
}

criterion_group!(benches, svd);
criterion_main!(benches);
