// The few rows that run through all blocks of an action expert, in f64 as on the CPU: a norm in every block and no residual
// around it amplify a rounding error a hundredfold from the first block to the last.
//
// linear: out = [add +] x · Wᵀ + bias, then ReLU if asked for. Bound by reading W once: a warp takes a feature and up to
// eight rows at once.
// norm: (x − mean) / √(variance + ε) ⊙ gain + bias over each row, in place, a warp a row.
// read: rounded to f32.

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 128;
constexpr uint32_t ROWS = 8; // that one pass over a feature's weights serves

__device__ __forceinline__ double warp_sum_f64(double value) {
    for (uint32_t step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(WHOLE_WARP, value, step);
    return value;
}

__device__ __forceinline__ void read_eight_f64(const double *at, double (&values)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = at[i];
}

template <class Number>
__device__ __forceinline__ void read_eight_f64(const typename Number::Stored *at, double (&values)[8]) {
    float narrow[8];
    read_eight<Number>(at, narrow);
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = double(narrow[i]);
}

struct F64 {
    using Stored = double;
};
template <>
__device__ __forceinline__ void read_eight_f64<F64>(const double *at, double (&values)[8]) {
    read_eight_f64(at, values);
}

template <class In, class Weight>
__device__ __forceinline__ void linear(const typename In::Stored *x, const typename Weight::Stored *weight,
                                       const float *bias, const double *add, double *out, uint32_t rows, uint32_t features,
                                       uint32_t columns, bool relu) {
    const uint32_t feature = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (feature >= features) return;
    const uint32_t stride = (columns + 7) / 8 * 8, out_stride = (features + 7) / 8 * 8;
    const typename Weight::Stored *w = weight + uint64_t(feature) * stride;
    for (uint32_t first = 0; first < rows; first += ROWS) {
        double sums[ROWS] = {};
        for (uint32_t at = lane * 8; at < stride; at += WARP * 8) {
            double weights[8];
            read_eight_f64<Weight>(w + at, weights);
#pragma unroll
            for (uint32_t r = 0; r < ROWS; r++) {
                if (first + r >= rows) break;
                double values[8];
                read_eight_f64<In>(x + uint64_t(first + r) * stride + at, values);
#pragma unroll
                for (int i = 0; i < 8; i++) sums[r] += values[i] * weights[i];
            }
        }
#pragma unroll
        for (uint32_t r = 0; r < ROWS; r++) {
            if (first + r >= rows) break;
            double sum = warp_sum_f64(sums[r]) + double(bias[feature]);
            const uint64_t at = uint64_t(first + r) * out_stride + feature;
            if (add != nullptr) sum += add[at];
            if (lane == 0) out[at] = relu && sum < 0.0 ? 0.0 : sum;
        }
    }
}

} // namespace

#define LINEAR(in, In, weight_, Weight)                                                                              \
    KERNEL(THREADS, precise_trunk_linear_##in##_##weight_,                                                           \
           (const In::Stored *x, const Weight::Stored *weight, const float *bias, const double *add, double *out,    \
            uint32_t rows, uint32_t features, uint32_t columns, uint32_t relu)) {                                    \
        linear<In, Weight>(x, weight, bias, add, out, rows, features, columns, relu != 0);                           \
    }

LINEAR(f32, F32, f32, F32)
LINEAR(f32, F32, bf16, Bf16)
LINEAR(bf16, Bf16, f32, F32)
LINEAR(bf16, Bf16, bf16, Bf16)
LINEAR(f64, F64, f32, F32)
LINEAR(f64, F64, bf16, Bf16)

KERNEL(THREADS, precise_trunk_norm,
       (double *x, const float *gain, const float *bias, float epsilon, uint32_t rows, uint32_t columns)) {
    const uint32_t row = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows) return;
    double *values = x + uint64_t(row) * ((columns + 7) / 8 * 8);
    double sum = 0.0, squares = 0.0;
    for (uint32_t i = lane; i < columns; i += WARP) sum += values[i];
    const double mean = warp_sum_f64(sum) / columns;
    for (uint32_t i = lane; i < columns; i += WARP) squares += (values[i] - mean) * (values[i] - mean);
    const double scale = 1.0 / sqrt(warp_sum_f64(squares) / columns + double(epsilon));
    for (uint32_t i = lane; i < columns; i += WARP)
        values[i] = (values[i] - mean) * scale * double(gain[i]) + double(bias[i]);
}

KERNEL(THREADS, precise_trunk_read, (const double *x, float *out, uint64_t numel)) {
    const uint64_t i = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    if (i < numel) out[i] = float(x[i]);
}
