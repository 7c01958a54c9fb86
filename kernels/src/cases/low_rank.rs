use skillweld_gpu::ops::{LowRank, LowRankExpert, LowRankMatrix};
use skillweld_gpu::{Array, Device, DeviceMemory, Result, Target};
use skillweld_tensor::Dtype;

use super::random_memory::{bf16_values, bytes};
use super::{Case, Work};

const LAYERS: usize = 24;
const RANK: usize = 64;
/// Linear layers of a block of Qwen2.5-0.5B, output × input features: q, k, v, o, gate, up, down.
const MATRICES: [(usize, usize); 7] =
    [(896, 896), (128, 896), (128, 896), (896, 896), (4864, 896), (4864, 896), (896, 4864)];

/// How many experts, and what is computed beside the sum.
#[derive(Debug, Clone, Copy)]
struct Form {
    experts: usize,
    base: bool,
    mask: bool,
}

/// One form of the work on all matrices.
macro_rules! case {
    ($name:literal, $form:expr) => {
        Case {
            name: $name,
            bytes: bytes_moved($form),
            matrix_flop: flop($form),
            prepare: |d| prepare(d, $form),
        }
    };
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!("low_rank/4 experts of rank 64", Form { experts: 4, base: true, mask: false }),
        case!("low_rank/4 experts of rank 64 masked", Form { experts: 4, base: true, mask: true }),
        case!("low_rank/4 experts of rank 64 sum alone", Form { experts: 4, base: false, mask: false }),
        case!("low_rank/8 experts of rank 64", Form { experts: 8, base: true, mask: false }),
    ]
}

fn all_matrices() -> impl Iterator<Item = (usize, usize)> {
    (0..LAYERS).flat_map(|_| MATRICES)
}

/// Elements of all matrices, and of all factors.
fn elements(experts: usize) -> (usize, usize) {
    let numel = all_matrices().map(|(rows, columns)| rows * columns).sum();
    let factors = all_matrices().map(|(rows, columns)| (rows + columns) * RANK * experts).sum();
    (numel, factors)
}

fn bytes_moved(form: Form) -> f64 {
    let (numel, factors) = elements(form.experts);
    let of_element = 2.0 + if form.base { 2.0 } else { 0.0 } + if form.mask { 1.0 / 8.0 } else { 0.0 };
    numel as f64 * of_element + 2.0 * factors as f64
}

fn flop(form: Form) -> f64 {
    2.0 * elements(form.experts).0 as f64 * (RANK * form.experts) as f64
}

struct Memory {
    base: Array<DeviceMemory>,
    mask: Array<DeviceMemory>,
    factors: Array<DeviceMemory>,
    out: Array<DeviceMemory>,
}

impl Memory {
    fn matrices(&mut self, form: Form) -> Vec<LowRankMatrix<'_>> {
        let (mut at, mut factor_at) = (0, 0);
        let mut rest = Some(self.out.view_mut());
        let mut factor = |numel: usize| {
            factor_at += numel;
            self.factors.view().slice(factor_at - numel..factor_at)
        };
        all_matrices()
            .filter_map(|(rows, columns)| {
                let numel = rows * columns;
                let experts = (0..form.experts).map(|_| LowRankExpert {
                    left: factor(rows * RANK),
                    right: factor(RANK * columns),
                    rank: RANK,
                    scale: 2.0,
                });
                let experts = experts.collect();
                let (out, after) = rest.take()?.split_at(numel);
                rest = Some(after);
                at += numel;
                Some(LowRankMatrix {
                    base: form.base.then(|| self.base.view().slice(at - numel..at)),
                    mask: form.mask.then(|| self.mask.view().slice((at - numel) / 8..at / 8)),
                    experts,
                    rows,
                    columns,
                    out,
                })
            })
            .collect()
    }
}

fn prepare(device: &Device, form: Form) -> Result<Work> {
    let (numel, factors) = elements(form.experts);
    let mut memory = Memory {
        base: bf16_values(device, numel, 1.0, 1)?,
        mask: bytes(device, numel / 8, 2)?,
        factors: bf16_values(device, factors, 0.1, 3)?,
        out: device.array(Dtype::BF16, numel)?,
    };
    let device = device.clone();
    Ok(Box::new(move || LowRank::new(&device, memory.matrices(form))?.run(&device)))
}
