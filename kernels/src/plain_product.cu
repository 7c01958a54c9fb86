// x · Wᵀ + bias, W as PyTorch stores a linear layer, in f32: for models in f32, where matrix units would round.
//
// Bound by arithmetic: a block computes 64 × 64 results from tiles of 16 columns in shared memory, a thread 4 × 4 of them.

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t TILE = 64;
constexpr uint32_t DEPTH = 16;
constexpr uint32_t PITCH = TILE + 4; // rows of four begin on 16 bytes

// 64 rows of DEPTH columns into shared memory, turned: column c of row r at [c][r]; what lies outside is zero.
template <class Number>
__device__ __forceinline__ void load_tile(float *tile, const typename Number::Stored *from, uint32_t first_row,
                                          uint32_t rows, uint32_t first_column, uint32_t columns, uint32_t stride) {
    if (threadIdx.x >= TILE * DEPTH / 8) return;
    const uint32_t row = threadIdx.x / (DEPTH / 8), column = threadIdx.x % (DEPTH / 8) * 8;
    float values[8] = {};
    if (first_row + row < rows && first_column + column < columns)
        read_eight<Number>(from + uint64_t(first_row + row) * stride + first_column + column, values);
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) tile[(column + i) * PITCH + row] = values[i];
}

template <class Number>
__device__ __forceinline__ void product(const typename Number::Stored *x, const typename Number::Stored *weight,
                                        const float *bias, float *out, uint32_t rows, uint32_t features, uint32_t columns,
                                        float *shared) {
    float *left = shared, *right = shared + DEPTH * PITCH;
    const uint32_t stride = (columns + 7) / 8 * 8, out_stride = (features + 7) / 8 * 8;
    const uint32_t first_row = blockIdx.y * TILE, first_feature = blockIdx.x * TILE;
    const uint32_t r = threadIdx.x / 16 * 4, f = threadIdx.x % 16 * 4; // of this thread's results in the tile
    float sums[4][4] = {};
    for (uint32_t first = 0; first < stride; first += DEPTH) {
        __syncthreads(); // nobody reads the tiles before
        load_tile<Number>(left, x, first_row, rows, first, stride, stride);
        load_tile<Number>(right, weight, first_feature, features, first, stride, stride);
        __syncthreads();
#pragma unroll
        for (uint32_t k = 0; k < DEPTH; k++) {
            float a[4], b[4];
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) a[i] = left[k * PITCH + r + i], b[i] = right[k * PITCH + f + i];
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
#pragma unroll
                for (uint32_t j = 0; j < 4; j++) sums[i][j] += a[i] * b[j];
        }
    }
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t row = first_row + r + i, feature = first_feature + f + j;
            if (row >= rows || feature >= out_stride) continue;
            const bool there = feature < features; // else one of the zeros after a row
            out[uint64_t(row) * out_stride + feature] = there ? sums[i][j] + (bias ? bias[feature] : 0.0f) : 0.0f;
        }
}

} // namespace

// Grid: tiles of features, tiles of rows. Rows of x, weight and out are padded with zeros to a multiple of eight.
#define PLAIN_PRODUCT(suffix, Number)                                                                              \
    KERNEL(THREADS, plain_product_##suffix,                                                                        \
           (const Number::Stored *x, const Number::Stored *weight, const float *bias, float *out, uint32_t rows,   \
            uint32_t features, uint32_t columns)) {                                                                \
        SHARED_MEMORY(shared);                                                                                     \
        product<Number>(x, weight, bias, out, rows, features, columns, reinterpret_cast<float *>(shared));         \
    }

PLAIN_PRODUCT(f32, F32)
PLAIN_PRODUCT(bf16, Bf16)
