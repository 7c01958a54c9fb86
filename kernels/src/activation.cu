// What follows a product, element by element, where it was not done while the product was in registers:
// GELU ½ y (1 + erf(y / √2)), SwiGLU silu(gate) ⊙ up with silu(g) = g / (1 + exp(−g)), residual + scale ⊙ y.
//
// Bound by memory: each operand read once, the result written once. A thread takes eight neighbouring elements.

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 256;

__device__ __forceinline__ uint64_t first_of_thread() { return (uint64_t(blockIdx.x) * THREADS + threadIdx.x) * 8; }

template <class In, class Out>
__device__ __forceinline__ void gelu(const typename In::Stored *x, typename Out::Stored *out, uint64_t numel) {
    const uint64_t first = first_of_thread();
    if (first >= numel) return;
    float y[8];
    read_eight<In>(x + first, y);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float half = 0.5f * y[i];
        y[i] = half * erff(y[i] * 0.70710678118654752f) + half;
    }
    write_eight<Out>(out + first, y);
}

template <class In, class Out>
__device__ __forceinline__ void swiglu(const typename In::Stored *gate, const typename In::Stored *up,
                                       typename Out::Stored *out, uint64_t numel) {
    const uint64_t first = first_of_thread();
    if (first >= numel) return;
    float g[8], y[8];
    read_eight<In>(gate + first, g);
    read_eight<In>(up + first, y);
#pragma unroll
    for (int i = 0; i < 8; i++) y[i] *= g[i] / (1.0f + expf(-g[i]));
    write_eight<Out>(out + first, y);
}

// Without scale the factor is 1. A row has `columns` elements, a multiple of eight, and scale as many.
template <class In, class Residual, class Out>
__device__ __forceinline__ void add(const typename In::Stored *y, const typename Residual::Stored *residual,
                                    const float *scale, typename Out::Stored *out, uint64_t numel, uint32_t columns) {
    const uint64_t first = first_of_thread();
    if (first >= numel) return;
    float value[8], sum[8];
    read_eight<In>(y + first, value);
    read_eight<Residual>(residual + first, sum);
    if (scale != nullptr) {
        float factor[8];
        read_eight<F32>(scale + first % columns, factor);
#pragma unroll
        for (int i = 0; i < 8; i++) value[i] *= factor[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] += value[i];
    write_eight<Out>(out + first, sum);
}

} // namespace

#define ACTIVATION(in, In, out_, Out)                                                                                \
    KERNEL(THREADS, activation_gelu_##in##_##out_, (const In::Stored *x, Out::Stored *out, uint64_t numel)) {        \
        gelu<In, Out>(x, out, numel);                                                                                \
    }                                                                                                                \
    KERNEL(THREADS, activation_swiglu_##in##_##out_,                                                                 \
           (const In::Stored *gate, const In::Stored *up, Out::Stored *out, uint64_t numel)) {                       \
        swiglu<In, Out>(gate, up, out, numel);                                                                       \
    }

ACTIVATION(f32, F32, f32, F32)
ACTIVATION(f32, F32, bf16, Bf16)
ACTIVATION(bf16, Bf16, f32, F32)
ACTIVATION(bf16, Bf16, bf16, Bf16)

#define ADD(in, In, residual_, Residual, out_, Out)                                                      \
    KERNEL(THREADS, activation_add_##in##_##residual_##_##out_,                                          \
           (const In::Stored *y, const Residual::Stored *residual, const float *scale, Out::Stored *out, \
            uint64_t numel, uint32_t columns)) {                                                         \
        add<In, Residual, Out>(y, residual, scale, out, numel, columns);                                 \
    }

#define ADD_OUTS(in, In, residual, Residual)    \
    ADD(in, In, residual, Residual, f32, F32)   \
    ADD(in, In, residual, Residual, bf16, Bf16)

ADD_OUTS(f32, F32, f32, F32)
ADD_OUTS(f32, F32, bf16, Bf16)
ADD_OUTS(bf16, Bf16, f32, F32)
ADD_OUTS(bf16, Bf16, bf16, Bf16)
