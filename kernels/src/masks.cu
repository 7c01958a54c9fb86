// Task masks of up to four experts in one pass, over a list of tensors in one launch, and what the masks have in common.
//
//   tall:  M_k = 1[ |τ_k| > λ_k · |τ − τ_k| ]        (arXiv 2405.07813)
//   sign:  M_k = 1[ τ_k and τ have the same nonzero sign ]   (EMR, arXiv 2405.17461)
//
// Bound by memory: (experts + 1) · T bytes an element are read, experts / 8 written. A thread takes eight neighbouring
// elements, which are one byte of every mask, several times.
//
// compile with: -fmad=false (the CPU rounds λ · |τ − τ_k| before it compares)

#include "../include/numbers.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t ROUNDS = 2;
constexpr uint64_t TILE = uint64_t(THREADS) * ROUNDS * 8;

// One tensor. Arrays begin on 16 bytes.
struct MergedPiece {
    const void *merged; // τ
    uint64_t numel;
    uint64_t first_tile; // tiles of the pieces before it
};

// One expert's part of a piece: EXPERTS of them a piece, pieces one after the other.
struct ExpertPiece {
    const void *task_vector;
    uint8_t *mask; // bit i of byte j belongs to element 8j + i; bits past the end are zero
};

struct Tall {
    static __device__ __forceinline__ bool keeps(float expert, float merged, float lambda) {
        return fabsf(expert) > lambda * fabsf(merged - expert);
    }
};

struct Sign {
    // Signs, not a product: that of two small numbers would underflow to zero.
    static __device__ __forceinline__ bool keeps(float expert, float merged, float) {
        return ((expert > 0.0f) & (merged > 0.0f)) | ((expert < 0.0f) & (merged < 0.0f));
    }
};

template <class Rule, class Number, int EXPERTS>
__device__ __forceinline__ void masks(const MergedPiece *pieces, uint32_t piece_count, const ExpertPiece *experts,
                                      const float *lambdas) {
    using Stored = typename Number::Stored;
    const uint64_t tile = blockIdx.x;
    const uint32_t index = piece_of_tile(pieces, piece_count, tile);
    const MergedPiece piece = pieces[index];
    const ExpertPiece *mine = experts + uint64_t(index) * EXPERTS;
    const uint64_t first = (tile - piece.first_tile) * TILE + threadIdx.x * 8;

    // All loads before the first use, so that they are under way together.
    Eight<Number> tau[ROUNDS], vectors[ROUNDS][EXPERTS];
#pragma unroll
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t at = first + uint64_t(round) * THREADS * 8;
        if (at >= piece.numel) continue;
        tau[round] = load_eight<Number>(static_cast<const Stored *>(piece.merged), at, piece.numel);
#pragma unroll
        for (int k = 0; k < EXPERTS; k++)
            vectors[round][k] = load_eight<Number>(static_cast<const Stored *>(mine[k].task_vector), at, piece.numel);
    }
#pragma unroll
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t at = first + uint64_t(round) * THREADS * 8;
        if (at >= piece.numel) continue;
        float merged[8];
        tau[round].widen(merged);
#pragma unroll
        for (int k = 0; k < EXPERTS; k++) {
            float vector[8];
            vectors[round][k].widen(vector);
            const float lambda = lambdas[k];
            uint32_t bits = 0;
#pragma unroll
            // Past the end both are zero, which no rule keeps.
            for (int i = 0; i < 8; i++) bits |= uint32_t(Rule::keeps(vector[i], merged[i], lambda)) << i;
            mine[k].mask[at / 8] = uint8_t(bits);
        }
    }
}

// A block adds its counts to `counts`: for each expert its ones, then for each pair i < j those in both, in order
// (0,1), (0,2), …, then elements that exactly one expert keeps. Masks are `word_count` words of 16 bytes.
template <int EXPERTS>
__device__ __forceinline__ void count(const uint8_t *const *masks, uint64_t byte_count, unsigned long long *counts) {
    constexpr int COUNTS = EXPERTS + EXPERTS * (EXPERTS - 1) / 2 + 1;
    SHARED_MEMORY(shared);
    unsigned int *block_counts = reinterpret_cast<unsigned int *>(shared);
    if (threadIdx.x < COUNTS) block_counts[threadIdx.x] = 0;
    __syncthreads();
    uint32_t mine[COUNTS] = {};
    const uint64_t stride = uint64_t(gridDim.x) * THREADS * 16;
    for (uint64_t at = (uint64_t(blockIdx.x) * THREADS + threadIdx.x) * 16; at < byte_count; at += stride) {
        Bytes16 words[EXPERTS];
#pragma unroll
        for (int k = 0; k < EXPERTS; k++) {
            if (at + 16 <= byte_count) {
                words[k] = load_once(masks[k] + at);
            } else {
                words[k] = Bytes16{};
#pragma unroll
                for (int i = 0; i < 16; i++)
                    if (at + i < byte_count) words[k].word[i / 4] |= uint32_t(masks[k][at + i]) << (i % 4 * 8);
            }
        }
#pragma unroll
        for (int w = 0; w < 4; w++) {
            uint32_t once = 0, twice = 0;
            int place = EXPERTS;
#pragma unroll
            for (int i = 0; i < EXPERTS; i++) {
                const uint32_t bits = words[i].word[w];
                mine[i] += __popc(bits);
                twice |= once & bits;
                once |= bits;
#pragma unroll
                for (int j = i + 1; j < EXPERTS; j++) mine[place++] += __popc(bits & words[j].word[w]);
            }
            mine[COUNTS - 1] += __popc(once & ~twice);
        }
    }
#pragma unroll
    for (int i = 0; i < COUNTS; i++) {
        uint32_t sum = mine[i];
        for (uint32_t step = WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
        if (threadIdx.x % WARP == 0) atomicAdd(&block_counts[i], sum);
    }
    __syncthreads();
    if (threadIdx.x < COUNTS)
        atomicAdd(&counts[threadIdx.x], static_cast<unsigned long long>(block_counts[threadIdx.x]));
}

} // namespace

#define MASKS(rule, Rule, suffix, Number, EXPERTS)                                                                  \
    KERNEL(THREADS, masks_##rule##_##suffix##_##EXPERTS,                                                            \
           (const MergedPiece *pieces, uint32_t piece_count, const ExpertPiece *experts, const float *lambdas)) {   \
        masks<Rule, Number, EXPERTS>(pieces, piece_count, experts, lambdas);                                        \
    }

#define MASKS_EXPERTS(rule, Rule, suffix, Number) \
    MASKS(rule, Rule, suffix, Number, 1)          \
    MASKS(rule, Rule, suffix, Number, 2)          \
    MASKS(rule, Rule, suffix, Number, 3)          \
    MASKS(rule, Rule, suffix, Number, 4)

MASKS_EXPERTS(tall, Tall, bf16, Bf16)
MASKS_EXPERTS(tall, Tall, f16, F16)
MASKS_EXPERTS(tall, Tall, f32, F32)
MASKS_EXPERTS(sign, Sign, bf16, Bf16)
MASKS_EXPERTS(sign, Sign, f16, F16)
MASKS_EXPERTS(sign, Sign, f32, F32)

#define COUNT(EXPERTS)                                                                                          \
    KERNEL(THREADS, masks_count_##EXPERTS,                                                                      \
           (const uint8_t *const *masks, uint64_t byte_count, unsigned long long *counts)) {                    \
        count<EXPERTS>(masks, byte_count, counts);                                                              \
    }

COUNT(1)
COUNT(2)
COUNT(3)
COUNT(4)
COUNT(5)
COUNT(6)
COUNT(7)
COUNT(8)
