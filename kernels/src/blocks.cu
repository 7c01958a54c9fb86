// Blocks of a merge between their files and a method: stored numbers become f32, less Θ₀ where a task vector is wanted, and
// what the method gives is rounded to the output's dtype, with Θ₀ added where weights are wanted. Each notes in a flag
// whether it saw NaN or infinity: the CPU then looks for the place.
//
// Bound by memory: stored bytes in, 4 bytes an element out, or the reverse. Several arrays share a launch, the same place of
// all of them one after the other, so that a Θ₀ that they share is in the L2; a thread takes eight neighbouring elements. The
// dtype is the same for a whole block of threads.
//
// compile with: -fmad=false (nothing here fuses; it says so)

#include "../include/numbers.cuh"

namespace {

constexpr uint32_t THREADS = 256;

// How numbers are stored; the same values as in crates/gpu/src/ops/blocks.rs.
constexpr uint32_t NONE = 0, BF16 = 1, HALF = 2; // and 3: f32

// One array to decode. Arrays begin on 16 bytes.
struct Stored {
    const void *values;
    const void *less; // subtracted after decoding, if there is one
    float *out;
    uint64_t format; // of `values`, and in the upper half of `less`
};

__device__ __forceinline__ void load(const void *array, uint32_t format, uint64_t at, uint64_t numel, float (&values)[8]) {
    if (format == BF16)
        load_eight<Bf16>(static_cast<const uint16_t *>(array), at, numel).widen(values);
    else if (format == HALF)
        load_eight<F16>(static_cast<const uint16_t *>(array), at, numel).widen(values);
    else
        load_eight<F32>(static_cast<const float *>(array), at, numel).widen(values);
}

__device__ __forceinline__ bool all_finite(const float (&values)[8]) {
    bool finite = true;
#pragma unroll
    for (int i = 0; i < 8; i++) finite &= (bits_of_float(values[i]) & 0x7f800000u) != 0x7f800000u;
    return finite;
}

// Stores what was rounded, and says whether it is finite.
template <class Number>
__device__ __forceinline__ void encode(const float *values, const void *plus, uint32_t format, void *out, uint64_t numel,
                                       uint32_t *flag) {
    const uint64_t at = (uint64_t(blockIdx.x) * THREADS + threadIdx.x) * 8;
    if (at >= numel) return;
    float merged[8], base[8];
    load_eight<F32>(values, at, numel).widen(merged);
    if (format != NONE) {
        load(plus, format, at, numel, base);
#pragma unroll
        for (int i = 0; i < 8; i++) merged[i] = merged[i] + base[i];
    }
    store_eight<Number>(static_cast<typename Number::Stored *>(out), at, numel, merged);
    Eight<Number>::round(merged).widen(merged);
    if (!all_finite(merged)) atomicOr(flag, 1u);
}

} // namespace

KERNEL(THREADS, blocks_decode, (const Stored *arrays, uint32_t count, uint64_t numel, uint32_t *flags)) {
    const uint32_t index = blockIdx.x % count;
    const Stored array = arrays[index];
    const uint64_t at = (uint64_t(blockIdx.x / count) * THREADS + threadIdx.x) * 8;
    if (at >= numel) return;
    const uint32_t format = uint32_t(array.format), less_format = uint32_t(array.format >> 32);
    float values[8], less[8];
    load(array.values, format, at, numel, values);
    if (less_format != NONE) load(array.less, less_format, at, numel, less);
    if (!all_finite(values)) atomicOr(&flags[index], 1u);
    if (less_format != NONE) {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = values[i] - less[i];
    }
    store_eight<F32>(array.out, at, numel, values);
}

#define BLOCKS_ENCODE(suffix, Number)                                                                                \
    KERNEL(THREADS, blocks_encode_##suffix,                                                                          \
           (const float *values, const void *plus, uint32_t format, void *out, uint64_t numel, uint32_t *flag)) {    \
        encode<Number>(values, plus, format, out, numel, flag);                                                      \
    }

BLOCKS_ENCODE(bf16, Bf16)
BLOCKS_ENCODE(f16, F16)
BLOCKS_ENCODE(f32, F32)
