// LayerNorm: (x − mean) / √(variance + ε) ⊙ gain + bias over each row; RMSNorm: x / √(mean(x²) + ε) ⊙ gain.
//
// Bound by memory, and by latency where rows are few: a warp takes a row, keeps it in registers between the passes where
// it is at most 2048 wide, and has all its loads under way before the first sum. No barrier.

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 128; // four rows a block

// The scale, and the mean of a LayerNorm, of what `each(f)` hands to f(value) element by element in this lane.
template <bool centred, class Each>
__device__ __forceinline__ float scale_of(Each each, uint32_t columns, float epsilon, float &mean) {
    mean = 0.0f;
    float sum = 0.0f;
    if (centred) {
        each([&](float x) { sum += x; });
        mean = warp_sum(sum) / float(columns);
    }
    float squares = 0.0f;
    each([&](float x) { squares += (x - mean) * (x - mean); });
    return 1.0f / sqrtf(warp_sum(squares) / float(columns) + epsilon);
}

// Eight results of a row.
template <class Out, bool centred>
__device__ __forceinline__ void write_normed(typename Out::Stored *out, const float (&x)[8], const float (&gain)[8],
                                             const float (&bias)[8], float mean, float scale) {
    float normed[8];
#pragma unroll
    for (int i = 0; i < 8; i++) normed[i] = (x[i] - mean) * scale * gain[i] + (centred ? bias[i] : 0.0f);
    write_eight<Out>(out, normed);
}

// A row of at most HELD · 256 columns, kept in registers.
template <class In, class Out, bool centred, int HELD>
__device__ __forceinline__ void held_row(const typename In::Stored *x, const float *gain, const float *bias, float epsilon,
                                         typename Out::Stored *out, uint32_t columns) {
    const uint32_t first = threadIdx.x % WARP * 8;
    float values[HELD][8], gains[HELD][8], biases[HELD][8];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const uint32_t at = first + i * WARP * 8;
        if (at >= columns) continue;
        read_eight<In>(x + at, values[i]);
        read_eight<F32>(gain + at, gains[i]);
        if (centred) read_eight<F32>(bias + at, biases[i]);
    }
    float mean;
    const float scale = scale_of<centred>(
        [&](auto take) {
#pragma unroll
            for (int i = 0; i < HELD; i++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (first + i * WARP * 8 + j < columns) take(values[i][j]);
        },
        columns, epsilon, mean);
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const uint32_t at = first + i * WARP * 8;
        if (at < columns) write_normed<Out, centred>(out + at, values[i], gains[i], biases[i], mean, scale);
    }
}

// A row of any width, read once a pass: from the second on it comes from a cache.
template <class In, class Out, bool centred>
__device__ __forceinline__ void wide_row(const typename In::Stored *x, const float *gain, const float *bias, float epsilon,
                                         typename Out::Stored *out, uint32_t columns) {
    const uint32_t first = threadIdx.x % WARP * 8;
    float mean;
    const float scale = scale_of<centred>(
        [&](auto take) {
#pragma unroll 4
            for (uint32_t at = first; at < columns; at += WARP * 8) {
                float values[8];
                read_eight<In>(x + at, values);
#pragma unroll
                for (int j = 0; j < 8; j++)
                    if (at + j < columns) take(values[j]);
            }
        },
        columns, epsilon, mean);
#pragma unroll 2
    for (uint32_t at = first; at < columns; at += WARP * 8) {
        float values[8], gains[8], biases[8] = {};
        read_eight<In>(x + at, values);
        read_eight<F32>(gain + at, gains);
        if (centred) read_eight<F32>(bias + at, biases);
        write_normed<Out, centred>(out + at, values, gains, biases, mean, scale);
    }
}

// `held` 0 stands for any width. Rows of x and out, gain and bias are padded with zeros to a multiple of eight.
template <class In, class Out, bool centred, int HELD>
__device__ __forceinline__ void norm(const typename In::Stored *x, const float *gain, const float *bias, float epsilon,
                                     typename Out::Stored *out, uint32_t rows, uint32_t columns) {
    const uint32_t row = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    const uint64_t begin = uint64_t(row) * ((columns + 7) / 8 * 8);
    if constexpr (HELD == 0)
        wide_row<In, Out, centred>(x + begin, gain, bias, epsilon, out + begin, columns);
    else
        held_row<In, Out, centred, HELD>(x + begin, gain, bias, epsilon, out + begin, columns);
}

} // namespace

#define NORM(in, In, out_, Out, HELD)                                                                             \
    KERNEL(THREADS, norm_layer_##in##_##out_##_##HELD,                                                            \
           (const In::Stored *x, const float *gain, const float *bias, float epsilon, Out::Stored *out,           \
            uint32_t rows, uint32_t columns)) {                                                                   \
        norm<In, Out, true, HELD>(x, gain, bias, epsilon, out, rows, columns);                                    \
    }                                                                                                             \
    KERNEL(THREADS, norm_rms_##in##_##out_##_##HELD,                                                              \
           (const In::Stored *x, const float *gain, const float *bias, float epsilon, Out::Stored *out,           \
            uint32_t rows, uint32_t columns)) {                                                                   \
        norm<In, Out, false, HELD>(x, gain, bias, epsilon, out, rows, columns);                                   \
    }

#define NORM_WIDTHS(in, In, out_, Out) \
    NORM(in, In, out_, Out, 4)         \
    NORM(in, In, out_, Out, 5)         \
    NORM(in, In, out_, Out, 8)         \
    NORM(in, In, out_, Out, 0)

NORM_WIDTHS(f32, F32, f32, F32)
NORM_WIDTHS(f32, F32, bf16, Bf16)
NORM_WIDTHS(bf16, Bf16, bf16, Bf16)
