use skillweld_gpu::Target;
use skillweld_gpu::ops::{self, ColumnsView, GroupView};
use skillweld_tensor::Dtype;

use super::{Gpu, GpuMatrix};
use crate::backend::{AttentionShape, Columns, KeyGroup, Matrix, Result};

/// Attention within each sequence of queries, keys and values: on matrix units where they are bf16.
pub(super) fn within_sequences<T: Target + Send>(
    gpu: &Gpu<T>,
    parts: &[Columns<'_, GpuMatrix<T>>; 3],
    shape: AttentionShape,
) -> Result<GpuMatrix<T>> {
    let AttentionShape { sequences, heads, kv_heads, head_dim, causal } = shape;
    let shape = ops::AttentionShape { sequences, heads, kv_heads, head_dim, causal };
    let dtype = gpu.narrow();
    let mut matrices: Vec<(*const GpuMatrix<T>, GpuMatrix<T>)> = Vec::new();
    let mut places = Vec::new();
    // Columns of one matrix, as a tower's, are converted once.
    for part in parts {
        let is: *const GpuMatrix<T> = part.matrix;
        let place = match matrices.iter().position(|(other, _)| *other == is) {
            Some(place) => place,
            None => {
                matrices.push((is, gpu.converted(part.matrix, dtype)?));
                matrices.len() - 1
            }
        };
        places.push((place, part.start));
    }
    let view = |(place, start): (usize, usize)| Ok(ColumnsView { rows: matrices[place].1.view()?, start });
    let views = places.into_iter().map(view).collect::<Result<Vec<_>>>()?;
    let [queries, keys, values] = views[..] else { unreachable!("there are three parts") };
    gpu.made(dtype, (queries.rows.rows(), heads * head_dim), |target, out| {
        if dtype == Dtype::BF16 && ops::prefill_attention_takes(head_dim) {
            ops::prefill_attention(target, queries, keys, values, shape, out)
        } else {
            ops::plain_attention(target, queries, keys, values, shape, out)
        }
    })
}

/// One softmax over the keys of all groups.
pub(super) fn over_groups<T: Target + Send>(
    gpu: &Gpu<T>,
    groups: &[KeyGroup<'_, GpuMatrix<T>>],
    heads: usize,
) -> Result<GpuMatrix<T>> {
    // Of a handful of rows some may have stayed f32; the kernel takes all keys in one dtype.
    let dtype = gpu.narrow();
    let queries_dtype = groups[0].queries.dtype();
    let groups = groups.iter().map(|group| {
        let queries = gpu.converted(group.queries, queries_dtype)?;
        Ok((queries, gpu.converted(group.keys, dtype)?, gpu.converted(group.values, dtype)?, group.scale))
    });
    let groups = groups.collect::<Result<Vec<_>>>()?;
    let views = groups.iter().map(|(queries, keys, values, scale)| {
        Ok(GroupView { queries: queries.view()?, keys: keys.view()?, values: values.view()?, scale: *scale })
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let (rows, columns) = (groups[0].0.rows(), groups[0].0.columns());
    gpu.made(queries_dtype, (rows, columns), |target, out| {
        ops::plain_gated_attention(target, &views, heads, out)
    })
}
