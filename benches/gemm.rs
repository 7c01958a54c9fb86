//! Products of a VLA's forward, in f32 and with bf16 weights, on one thread and on all, beside the row `FMA`: so many
//! additions of products as one core, or all, do at most, out of registers. Throughput is in elements: one is one
//! floating-point operation, so that `Gelem/s` reads as GFLOP/s.

#![allow(clippy::expect_used, reason = "a bench that cannot run stops")]
#![allow(missing_docs, reason = "criterion's macro makes the items")]

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use ndarray::{Array2, s};
use skillweld_benches::random;
use skillweld_linalg::{Kernel, PackedWeight, Product, Right, Threads, gemm};
use skillweld_simd::{Level, level};

/// Rows of x, `in_features`, `out_features`: two images' patches and a prompt through a 0.5 B language model, DINOv2-L,
/// SigLIP-so400m and the projector, and the tokens of an action chunk.
const SHAPES: [(usize, usize, usize); 11] = [
    (577, 896, 896),
    (577, 896, 4864),
    (577, 4864, 896),
    (577, 896, 128),
    (522, 1024, 3072),
    (522, 1024, 4096),
    (512, 1152, 4304),
    (512, 4304, 1152),
    (512, 2176, 8704),
    (8, 896, 896),
    (576, 896, 896),
];

/// Tokens, heads, width of a head.
const ATTENTION: [(usize, usize, usize); 3] = [(577, 14, 64), (261, 16, 64), (256, 16, 72)];

fn matrix(name: &str, rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_vec((rows, columns), random(name, rows * columns)).expect("as many as the shape has")
}

fn counts() -> Vec<Threads> {
    let mut counts = vec![Threads::ONE, Threads::available()];
    counts.dedup();
    counts
}

fn products(criterion: &mut Criterion) {
    let [f32_kernel, bf16_kernel] =
        [Kernel::fastest_f32(), Kernel::fastest_bf16()].map(Kernel::instruction_set);
    for (m, k, n) in SHAPES {
        let (x, weight, bias) = (matrix("x", m, k), matrix("weight", n, k), random("bias", n));
        let packed = PackedWeight::from_f32(&weight.view());
        let narrow = PackedWeight::from_bf16(&weight.mapv(bf16::from_f32).view());
        let mut out = Array2::zeros((m, n));
        let mut group = criterion.benchmark_group(format!("gemm/{m}x{k}x{n}"));
        group.sample_size(10);
        for threads in counts() {
            let count = threads.count();
            fma_row(&mut group, threads);
            group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
            let rights: [(String, Right<'_>); 3] = [
                (format!("f32, {f32_kernel}"), weight.t().into()),
                (format!("f32 packed, {f32_kernel}"), (&packed).into()),
                (format!("bf16 packed, {bf16_kernel}"), (&narrow).into()),
            ];
            if threads == Threads::ONE {
                // What a library for all of linear algebra takes for the same, on one thread.
                let right: Vec<f32> = weight.t().iter().copied().collect();
                let x = x.as_slice().expect("row-major");
                group.bench_function("f32, faer, 1 threads", |bencher| {
                    let out = out.as_slice_mut().expect("row-major");
                    bencher.iter(|| gemm(1.0, x, &right, out, (m, k, n)));
                });
            }
            for (name, right) in rights {
                group.bench_function(format!("{name}, {count} threads"), |bencher| {
                    bencher.iter(|| {
                        let product = Product::new(&x, right).bias(&bias[..]);
                        product.write(threads, &mut out.view_mut()).expect("shapes fit");
                    });
                });
            }
        }
        group.finish();
    }
}

fn attention(criterion: &mut Criterion) {
    for (tokens, heads, width) in ATTENTION {
        let [q, k, v] = ["q", "k", "v"].map(|name| matrix(name, tokens, heads * width));
        let mut scores = Array2::zeros((tokens, tokens));
        let mut out = Array2::zeros((tokens, heads * width));
        let mut group =
            criterion.benchmark_group(format!("attention/{tokens} tokens, {heads} heads of {width}"));
        group.sample_size(10);
        fma_row(&mut group, Threads::ONE);
        group.throughput(Throughput::Elements(2 * (tokens * tokens * width * heads) as u64));
        let head = |head: usize| s![.., head * width..(head + 1) * width];
        group.bench_function("QKᵀ", |bencher| {
            bencher.iter(|| {
                for columns in (0..heads).map(head) {
                    let product = Product::new(q.slice(columns), k.slice(columns).reversed_axes());
                    product.write(Threads::ONE, &mut scores.view_mut()).expect("shapes fit");
                }
            });
        });
        group.bench_function("PV", |bencher| {
            bencher.iter(|| {
                for columns in (0..heads).map(head) {
                    let product = Product::new(&scores, v.slice(columns));
                    product.write(Threads::ONE, &mut out.slice_mut(columns)).expect("shapes fit");
                }
            });
        });
        group.finish();
    }
}

/// What a job of two empty parts costs, and what starting a thread for it would.
fn jobs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("jobs");
    let threads = Threads::available();
    let part = |(): &mut (), part| if part < 2 { Ok(()) } else { Err(part) };
    group.bench_function("for_each of two empty parts", |bencher| {
        bencher.iter(|| threads.for_each(2, || (), part));
    });
    group.bench_function("a thread started and joined", |bencher| {
        bencher.iter(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| ());
            });
        });
    });
    group.finish();
}

const FMA_ROUNDS: usize = 20_000;

/// The row `FMA`, for so many threads.
fn fma_row(group: &mut BenchmarkGroup<'_, WallTime>, threads: Threads) {
    let count = threads.count();
    let lanes = if level() == Level::Avx512 { 192 } else { 96 };
    group.throughput(Throughput::Elements((2 * FMA_ROUNDS * lanes * count) as u64));
    group.bench_function(format!("FMA, {count} threads"), |bencher| {
        bencher.iter(|| {
            let work = |(): &mut (), _| {
                match lanes {
                    96 => black_box(fma_96(black_box([0.5; 96]), black_box(0.999)))[0],
                    _ => black_box(fma_192(black_box([0.5; 192]), black_box(0.999)))[0],
                };
                Ok::<_, ()>(())
            };
            threads.for_each(count, || (), work)
        });
    });
}

skillweld_simd::vectorize! {
    /// 96 chains, 12 of AVX2's 16 registers: enough to hide the latency of two units.
    fn fma_96(sums: [f32; 96], factor: f32) -> [f32; 96] {
        let mut sums = sums;
        for _ in 0..FMA_ROUNDS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, factor);
            }
        }
        sums
    }

    /// 192 chains, 12 of AVX-512's 32 registers.
    fn fma_192(sums: [f32; 192], factor: f32) -> [f32; 192] {
        let mut sums = sums;
        for _ in 0..FMA_ROUNDS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, factor);
            }
        }
        sums
    }
}

criterion_group!(benches, products, attention, jobs);
criterion_main!(benches);
