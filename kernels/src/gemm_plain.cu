// y = x · Wᵀ + bias, and what follows, for f32 operands and for shapes that the matrix units cannot read: any shape, one
// fused multiplication and addition after the other along `inner`, so that a CPU can give the same bits.
//
// For exactness, not for speed: each element of x and W is read once a tile of 64 × 64.

#include "../include/linear.cuh"

namespace {

constexpr uint32_t THREADS = 256;
// A block's tile of y; a thread has PART × PART of it, 16 apart, so that neighbours store side by side.
constexpr uint32_t SIDE = 64, PART = 4, STEP = SIDE / PART;
// Elements along `inner` that lie in shared memory at once, and the width of a row of it: one more, against conflicts.
constexpr uint32_t DEPTH = 16, PITCH = SIDE + 1;

// Copies DEPTH columns, from `first` on, of SIDE rows of a matrix to shared memory, transposed; zeros outside of it.
template <class Number>
__device__ __forceinline__ void fetch(float *shared, const typename Number::Stored *matrix, uint64_t first_row, uint64_t rows,
                                      uint64_t first, uint64_t inner) {
    for (uint32_t i = threadIdx.x; i < SIDE * DEPTH; i += THREADS) {
        const uint64_t row = first_row + i / DEPTH, at = first + i % DEPTH;
        shared[i % DEPTH * PITCH + i / DEPTH] = row < rows && at < inner ? Number::widen(matrix[row * inner + at]) : 0.0f;
    }
}

template <class X, class W, class Y>
__device__ __forceinline__ void plain(const Linear &linear) {
    SHARED_MEMORY(shared);
    float *x = reinterpret_cast<float *>(shared), *w = x + DEPTH * PITCH;
    const uint64_t first_row = uint64_t(blockIdx.x) * SIDE, first_column = uint64_t(blockIdx.y) * SIDE;
    const uint32_t row = threadIdx.x / STEP, column = threadIdx.x % STEP;
    float sum[PART][PART] = {};
    for (uint64_t first = 0; first < linear.inner; first += DEPTH) {
        fetch<X>(x, static_cast<const typename X::Stored *>(linear.x), first_row, linear.rows, first, linear.inner);
        fetch<W>(w, static_cast<const typename W::Stored *>(linear.weight), first_column, linear.columns, first, linear.inner);
        __syncthreads();
#pragma unroll
        for (uint32_t k = 0; k < DEPTH; k++) {
#pragma unroll
            for (uint32_t i = 0; i < PART; i++)
#pragma unroll
                for (uint32_t j = 0; j < PART; j++)
                    sum[i][j] = fmaf(x[k * PITCH + row + i * STEP], w[k * PITCH + column + j * STEP], sum[i][j]);
        }
        __syncthreads();
    }
    // By way of shared memory, each thread its own place: what follows the sums is long, and one copy of it is enough.
    float *mine = x + threadIdx.x;
#pragma unroll
    for (uint32_t i = 0; i < PART * PART; i++) mine[i * THREADS] = sum[i / PART][i % PART];
#pragma unroll 1
    for (uint32_t i = 0; i < PART * PART; i++) {
        const uint64_t r = first_row + row + i / PART * STEP, c = first_column + column + i % PART * STEP;
        if (r < linear.rows && c < linear.columns) finish<Y>(linear, r, c, mine[i * THREADS]);
    }
}

} // namespace

#define GEMM_PLAIN(x_suffix, X, w_suffix, W, y_suffix, Y)                                   \
    KERNEL(THREADS, gemm_plain_##x_suffix##_##w_suffix##_##y_suffix, (LINEAR_PARAMETERS)) { \
        plain<X, W, Y>(LINEAR_ARGUMENTS);                                                   \
    }

GEMM_PLAIN(f32, F32, f32, F32, f32, F32)
GEMM_PLAIN(f32, F32, f32, F32, bf16, Bf16)
GEMM_PLAIN(f32, F32, bf16, Bf16, f32, F32)
GEMM_PLAIN(f32, F32, bf16, Bf16, bf16, Bf16)
GEMM_PLAIN(bf16, Bf16, bf16, Bf16, f32, F32)
GEMM_PLAIN(bf16, Bf16, bf16, Bf16, bf16, Bf16)
