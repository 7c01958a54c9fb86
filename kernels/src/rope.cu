// Rotary embeddings, in place: (a, b) → (a cos − b sin, b cos + a sin) for every pair of every head, row r by row r of the
// tables. Pairs are elements j and j + half, or 2i and 2i + 1; element j takes column j mod half of the tables either way.
//
// Bound by memory: 2T bytes an element, and the tables, which all heads share in the caches. A thread turns sixteen
// elements (halves) or eight (neighbours); heads whose half is no multiple of eight go pair by pair.
//
// compile with: -fmad=false (the CPU rounds every product too)

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 128;

__device__ __forceinline__ uint32_t padded(uint32_t columns) { return (columns + 7) / 8 * 8; }

template <class Number>
__device__ __forceinline__ void turn_halves(typename Number::Stored *x, const float *cos, const float *sin, uint32_t rows,
                                            uint32_t columns, uint32_t half) {
    const uint64_t index = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    const uint32_t units = columns / 16; // of a row
    if (index >= uint64_t(rows) * units) return;
    const uint32_t row = uint32_t(index / units), unit = uint32_t(index % units), in_half = half / 8;
    const uint32_t j = unit % in_half * 8;
    typename Number::Stored *low_at = x + uint64_t(row) * padded(columns) + unit / in_half * 2 * half + j;
    float low[8], high[8], c[8], s[8], a[8], b[8];
    read_eight<Number>(low_at, low);
    read_eight<Number>(low_at + half, high);
    read_eight<F32>(cos + uint64_t(row) * half + j, c);
    read_eight<F32>(sin + uint64_t(row) * half + j, s);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        a[i] = low[i] * c[i] - high[i] * s[i];
        b[i] = high[i] * c[i] + low[i] * s[i];
    }
    write_eight<Number>(low_at, a);
    write_eight<Number>(low_at + half, b);
}

template <class Number>
__device__ __forceinline__ void turn_neighbours(typename Number::Stored *x, const float *cos, const float *sin,
                                                uint32_t rows, uint32_t columns, uint32_t half) {
    const uint64_t index = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    const uint32_t units = columns / 8;
    if (index >= uint64_t(rows) * units) return;
    const uint32_t row = uint32_t(index / units), unit = uint32_t(index % units);
    const uint32_t j = unit % (half / 8) * 8; // half is a whole number of units
    typename Number::Stored *at = x + uint64_t(row) * padded(columns) + unit * 8;
    float values[8], c[8], s[8], turned[8];
    read_eight<Number>(at, values);
    read_eight<F32>(cos + uint64_t(row) * half + j, c);
    read_eight<F32>(sin + uint64_t(row) * half + j, s);
#pragma unroll
    for (int i = 0; i < 8; i += 2) {
        turned[i] = values[i] * c[i] - values[i + 1] * s[i];
        turned[i + 1] = values[i + 1] * c[i + 1] + values[i] * s[i + 1];
    }
    write_eight<Number>(at, turned);
}

template <class Number>
__device__ __forceinline__ void turn_pairs(typename Number::Stored *x, const float *cos, const float *sin, uint32_t rows,
                                           uint32_t columns, uint32_t half, uint32_t neighbours) {
    const uint64_t index = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    const uint32_t pairs = columns / 2;
    if (index >= uint64_t(rows) * pairs) return;
    const uint32_t row = uint32_t(index / pairs), pair = uint32_t(index % pairs), in_head = pair % half;
    const uint32_t first = neighbours ? 2 * in_head : in_head;
    const uint32_t second = neighbours ? first + 1 : first + half;
    typename Number::Stored *head = x + uint64_t(row) * padded(columns) + pair / half * 2 * half;
    cos += uint64_t(row) * padded(half);
    sin += uint64_t(row) * padded(half);
    const float a = Number::widen(head[first]), b = Number::widen(head[second]);
    head[first] = Number::round(a * cos[first % half] - b * sin[first % half]);
    head[second] = Number::round(b * cos[second % half] + a * sin[second % half]);
}

} // namespace

#define ROPE(suffix, Number)                                                                                       \
    KERNEL(THREADS, rope_halves_##suffix,                                                                          \
           (Number::Stored * x, const float *cos, const float *sin, uint32_t rows, uint32_t columns, uint32_t half)) { \
        turn_halves<Number>(x, cos, sin, rows, columns, half);                                                     \
    }                                                                                                              \
    KERNEL(THREADS, rope_neighbours_##suffix,                                                                      \
           (Number::Stored * x, const float *cos, const float *sin, uint32_t rows, uint32_t columns, uint32_t half)) { \
        turn_neighbours<Number>(x, cos, sin, rows, columns, half);                                                 \
    }                                                                                                              \
    KERNEL(THREADS, rope_pairs_##suffix,                                                                           \
           (Number::Stored * x, const float *cos, const float *sin, uint32_t rows, uint32_t columns, uint32_t half, \
            uint32_t neighbours)) {                                                                                \
        turn_pairs<Number>(x, cos, sin, rows, columns, half, neighbours);                                          \
    }

ROPE(f32, F32)
ROPE(bf16, Bf16)
