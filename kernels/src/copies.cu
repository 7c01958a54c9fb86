// Rows and columns from one matrix to another, to another dtype where they differ: gathers, concatenations, conversions.
//
// Bound by memory. A thread copies eight neighbouring elements, or one where a part does not begin on 16 bytes.

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 256;

// Row i of `to` from row indices[i] of `from`, or row i without indices; `columns` is a multiple of eight.
template <class In, class Out>
__device__ __forceinline__ void copy_eights(const typename In::Stored *from, uint64_t from_stride, const uint32_t *indices,
                                            typename Out::Stored *to, uint64_t to_stride, uint32_t rows, uint32_t columns) {
    const uint64_t index = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    const uint32_t eights = columns / 8;
    if (index >= uint64_t(rows) * eights) return;
    const uint32_t row = uint32_t(index / eights), first = uint32_t(index % eights) * 8;
    const uint64_t source = indices == nullptr ? row : indices[row];
    float values[8];
    read_eight<In>(from + source * from_stride + first, values);
    write_eight<Out>(to + row * to_stride + first, values);
}

// The same of any number of columns; `zeros` after them are set to zero in `to`.
template <class In, class Out>
__device__ __forceinline__ void copy_values(const typename In::Stored *from, uint64_t from_stride, const uint32_t *indices,
                                            typename Out::Stored *to, uint64_t to_stride, uint32_t rows, uint32_t columns,
                                            uint32_t zeros) {
    const uint64_t index = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    const uint32_t width = columns + zeros;
    if (index >= uint64_t(rows) * width) return;
    const uint32_t row = uint32_t(index / width), column = uint32_t(index % width);
    const uint64_t source = indices == nullptr ? row : indices[row];
    const float value = column < columns ? In::widen(from[source * from_stride + column]) : 0.0f;
    to[row * to_stride + column] = Out::round(value);
}

} // namespace

#define COPIES(in, In, out, Out)                                                                                    \
    KERNEL(THREADS, copies_eights_##in##_##out,                                                                     \
           (const In::Stored *from, uint64_t from_stride, const uint32_t *indices, Out::Stored *to,                 \
            uint64_t to_stride, uint32_t rows, uint32_t columns)) {                                                 \
        copy_eights<In, Out>(from, from_stride, indices, to, to_stride, rows, columns);                             \
    }                                                                                                               \
    KERNEL(THREADS, copies_values_##in##_##out,                                                                     \
           (const In::Stored *from, uint64_t from_stride, const uint32_t *indices, Out::Stored *to,                 \
            uint64_t to_stride, uint32_t rows, uint32_t columns, uint32_t zeros)) {                                 \
        copy_values<In, Out>(from, from_stride, indices, to, to_stride, rows, columns, zeros);                      \
    }

COPIES(f32, F32, f32, F32)
COPIES(f32, F32, bf16, Bf16)
COPIES(bf16, Bf16, f32, F32)
COPIES(bf16, Bf16, bf16, Bf16)
