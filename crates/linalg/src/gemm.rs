use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// out = scale · A · B on the calling thread, all row-major: A is m × k, B is k × n, out is m × n.
///
/// # Panics
/// When a slice does not hold exactly its matrix: shapes come from our own planning, never from a file.
pub fn gemm(scale: f32, a: &[f32], b: &[f32], out: &mut [f32], (m, k, n): (usize, usize, usize)) {
    assert!(
        a.len() == m * k && b.len() == k * n && out.len() == m * n,
        "gemm {m} × {k} × {n}: wrong slice length"
    );
    let a = MatRef::from_row_major_slice(a, m, k);
    let b = MatRef::from_row_major_slice(b, k, n);
    let out = MatMut::from_row_major_slice_mut(out, m, n);
    matmul(out, Accum::Replace, a, b, scale, Par::Seq);
}
