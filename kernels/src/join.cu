// Thinned, weighted task vectors to one, and Θ₀ added: linear, task arithmetic, TIES (with thresholds from thresholds.cu),
// DARE. Over a list of tensors in one launch.
//
//   v_k = w_k · τ_k where the thinning keeps it, else 0
//   sum:        Σ v_k / divisor · λ
//   consensus:  Σ of the v_k that have the sign of Σ v_k (over the sum of their weights, for the mean) · λ
//
// Bound by memory: experts · T bytes an element are read (and T of Θ₀), T written; DARE by its random numbers. A thread
// takes eight neighbouring elements four times, 64 apart, because that is what one random counter serves.
//
// compile with: -fmad=false (the CPU rounds every product and every sum)

#include "../include/magnitude.cuh"
#include "../include/philox.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t ROUNDS = 4;
constexpr uint32_t APART = 64; // elements between the rounds of a thread
constexpr uint64_t TILE = uint64_t(THREADS) * ROUNDS * 8;

// Blocks that should fit on a multiprocessor: enough loads are under way, and values need not leave the registers.
template <class Number, int MOST>
constexpr int resident_blocks() {
    return sizeof(Eight<Number>) * MOST > 64 ? 1 : sizeof(typename Number::Stored) == 2 ? 3 : 2;
}

// One tensor. Arrays begin on 16 bytes.
struct JoinPiece {
    const void *base; // null: the result is a task vector
    void *out;
    uint64_t numel;
    uint64_t first_tile;
    uint64_t seed;
};

// How task vectors are joined; one for all pieces.
struct Rule {
    int32_t experts;
    uint32_t mode;                 // 0 sum, 1 consensus sum, 2 consensus mean
    uint32_t thresholds_per_piece; // 1: piece · experts + k; 0: k
    float zero_sum;                // sign taken where the sum is zero: 1, −1 or 0
    float divisor;
    float lambda;
    float weights[8];
    uint64_t below[8]; // DARE keeps random numbers below this; 2³²: all
};

// TrimAll keeps all entries that equal the threshold, TrimSome those that chance picks.
enum class Thin { Nothing, TrimAll, TrimSome, Drop };

__device__ __forceinline__ float elect(float sum, float zero_sum) {
    return sum > 0.0f ? 1.0f : sum < 0.0f ? -1.0f : zero_sum;
}

// Eight elements of every expert to eight of the result.
template <bool consensus, int MOST>
__device__ __forceinline__ void join(const float (&values)[MOST][8], const Rule &rule, const float (&weights)[MOST],
                                     float (&out)[8]) {
    const float lambda = rule.lambda, common = rule.divisor, zero_sum = rule.zero_sum;
    const bool mean = rule.mode == 2;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < MOST; k++)
            if (k < rule.experts) sum += values[k][i];
        if (consensus) {
            const float sign = elect(sum, zero_sum);
            float divisor = 0.0f;
            sum = 0.0f;
#pragma unroll
            for (int k = 0; k < MOST; k++)
                if (k < rule.experts && values[k][i] * sign > 0.0f) {
                    sum += values[k][i];
                    divisor += weights[k];
                }
            if (mean) sum = sum / (divisor == 0.0f ? 1.0f : divisor);
        }
        out[i] = sum;
    }
    // Neither changes what it would not: the CPU leaves out divisions and products by 1.
    if (!consensus && common != 1.0f)
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = out[i] / common;
    if (lambda != 1.0f)
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = out[i] * lambda;
}

// Which of a thread's elements DARE keeps: bit 8 · round + i.
template <int MOST>
__device__ __forceinline__ void draw(const Rule &rule, uint64_t first, uint64_t seed, uint32_t (&kept)[MOST]) {
#pragma unroll
    for (int k = 0; k < MOST; k++) kept[k] = 0;
    // Not unrolled: ten rounds of Philox are long, and many copies of them would not fit the instruction cache.
#pragma unroll 1
    for (int i = 0; i < 8; i++) {
        const uint64_t element = first + i; // of round 0: word 0 of its counter
#pragma unroll
        for (int k = 0; k < MOST; k++) {
            if (k >= rule.experts || rule.below[k] > 0xffffffffull) continue;
            const Words4 numbers = philox(element / 256 * 64 + element % 64, uint32_t(k), seed);
#pragma unroll
            for (uint32_t round = 0; round < ROUNDS; round++)
                kept[k] |= uint32_t(numbers.word[round] < rule.below[k]) << (8 * round + i);
        }
    }
#pragma unroll
    for (int k = 0; k < MOST; k++)
        if (rule.below[k] > 0xffffffffull) kept[k] = 0xffffffffu;
}

// Which of eight elements from `at` on a trimmed expert keeps: bit i.
template <class Number>
__device__ __forceinline__ uint32_t trimmed(const Eight<Number> &eight, const Threshold &threshold, uint64_t at) {
    uint32_t keys[8], kept = 0, equal = 0;
    magnitudes<Number>(eight, keys);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        kept |= uint32_t(keys[i] >= threshold.key) << i;
        equal |= uint32_t(keys[i] == threshold.key) << i;
    }
    if (threshold.below > 0xffffffffull) return kept;
    for (; equal != 0; equal &= equal - 1) {
        const uint32_t i = uint32_t(__ffs(int(equal))) - 1;
        if (philox_of_element(at + i, 0, 0) >= threshold.below) kept &= ~(1u << i);
    }
    return kept;
}

template <Thin thin, bool consensus, class Number, int MOST>
__device__ __forceinline__ void join_tile(const JoinPiece *pieces, uint32_t piece_count, const void *const *vectors,
                                          const Rule *rules, const Search *searches) {
    using Stored = typename Number::Stored;
    // So many rounds are loaded before the first of them is used, so that they are under way together.
    constexpr uint32_t AT_ONCE = sizeof(Eight<Number>) * MOST > 32 ? 1 : 2;
    const uint64_t tile = blockIdx.x;
    const uint32_t index = piece_of_tile(pieces, piece_count, tile);
    const JoinPiece piece = pieces[index];
    const Rule &rule = *rules;
    const void *const *mine = vectors + uint64_t(index) * uint32_t(rule.experts);
    const uint64_t first = (tile - piece.first_tile) * TILE + threadIdx.x / 8 * (ROUNDS * APART) + threadIdx.x % 8 * 8;

    float weights[MOST];
#pragma unroll
    for (int k = 0; k < MOST; k++) weights[k] = rule.weights[k];
    uint32_t drawn[MOST];
    if (thin == Thin::Drop) draw<MOST>(rule, first, piece.seed, drawn);
    Threshold thresholds[MOST];
    float smallest[MOST]; // that is kept; NaN: nothing
    if (thin == Thin::TrimAll || thin == Thin::TrimSome) {
        const Search *own = searches + (rule.thresholds_per_piece ? uint64_t(index) * uint32_t(rule.experts) : 0);
#pragma unroll
        for (int k = 0; k < MOST; k++) {
            if (k >= rule.experts) continue;
            thresholds[k] = own[k].threshold;
            smallest[k] = magnitude_of<Number>(thresholds[k].key);
        }
    }
#pragma unroll 1
    for (uint32_t begin = 0; begin < ROUNDS; begin += AT_ONCE) {
        Eight<Number> eights[AT_ONCE][MOST], bases[AT_ONCE];
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            const uint64_t at = first + (begin + r) * APART;
            if (at >= piece.numel) continue;
#pragma unroll
            for (int k = 0; k < MOST; k++)
                if (k < rule.experts) eights[r][k] = load_eight<Number>(static_cast<const Stored *>(mine[k]), at, piece.numel);
            if (piece.base != nullptr) bases[r] = load_eight<Number>(static_cast<const Stored *>(piece.base), at, piece.numel);
        }
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            const uint64_t at = first + (begin + r) * APART;
            if (at >= piece.numel) continue;
            float values[MOST][8];
#pragma unroll
            for (int k = 0; k < MOST; k++) {
                if (k >= rule.experts) continue;
                eights[r][k].widen(values[k]);
                uint32_t kept = 0xff;
                if (thin == Thin::Drop) kept = drawn[k] >> (8 * (begin + r));
                if (thin == Thin::TrimSome) kept = trimmed<Number>(eights[r][k], thresholds[k], at);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const bool keeps = thin == Thin::TrimAll ? fabsf(values[k][i]) >= smallest[k] : bool(kept >> i & 1u);
                    values[k][i] = keeps ? weights[k] * values[k][i] : 0.0f;
                }
            }
            float merged[8];
            join<consensus, MOST>(values, rule, weights, merged);
            if (piece.base != nullptr) {
                float base[8];
                bases[r].widen(base);
#pragma unroll
                for (int i = 0; i < 8; i++) merged[i] = merged[i] + base[i];
            }
            store_eight<Number>(static_cast<Stored *>(piece.out), at, piece.numel, merged);
        }
    }
}

// τ = σ · max |τ_k| over the experts that have the sign σ of Σ τ_k (EMR).
template <class Number, int MOST>
__device__ __forceinline__ void elect_tile(const JoinPiece *pieces, uint32_t piece_count, const void *const *vectors,
                                           int32_t experts) {
    using Stored = typename Number::Stored;
    const uint64_t tile = blockIdx.x;
    const uint32_t index = piece_of_tile(pieces, piece_count, tile);
    const JoinPiece piece = pieces[index];
    const void *const *mine = vectors + uint64_t(index) * uint32_t(experts);
    const uint64_t first = (tile - piece.first_tile) * TILE + threadIdx.x * 8;
    constexpr uint32_t AT_ONCE = sizeof(Eight<Number>) * MOST > 64 ? 1 : 2;
#pragma unroll 1
    for (uint32_t begin = 0; begin < ROUNDS; begin += AT_ONCE) {
        Eight<Number> eights[AT_ONCE][MOST];
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            const uint64_t at = first + uint64_t(begin + r) * THREADS * 8;
            if (at >= piece.numel) continue;
#pragma unroll
            for (int k = 0; k < MOST; k++)
                if (k < experts) eights[r][k] = load_eight<Number>(static_cast<const Stored *>(mine[k]), at, piece.numel);
        }
#pragma unroll
        for (uint32_t r = 0; r < AT_ONCE; r++) {
            const uint64_t at = first + uint64_t(begin + r) * THREADS * 8;
            if (at >= piece.numel) continue;
            float sums[8] = {}, merged[8] = {};
#pragma unroll
            for (int k = 0; k < MOST; k++) {
                if (k >= experts) continue;
                float values[8];
                eights[r][k].widen(values);
#pragma unroll
                for (int i = 0; i < 8; i++) sums[i] += values[i];
            }
#pragma unroll
            for (int k = 0; k < MOST; k++) {
                if (k >= experts) continue;
                float values[8];
                eights[r][k].widen(values);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const bool up = (sums[i] > 0.0f) & (values[i] > merged[i]);
                    const bool down = (sums[i] < 0.0f) & (values[i] < merged[i]);
                    if (up | down) merged[i] = values[i];
                }
            }
            store_eight<Number>(static_cast<Stored *>(piece.out), at, piece.numel, merged);
        }
    }
}

} // namespace

#define JOIN(name, thin, consensus, suffix, Number, MOST)                                                                \
    KERNEL_RESIDENT(THREADS, (resident_blocks<Number, MOST>()), join_##name##_##suffix##_##MOST,                                                                    \
           (const JoinPiece *pieces, uint32_t piece_count, const void *const *vectors, const Rule *rule,                 \
            const Search *searches)) {                                                                                   \
        join_tile<thin, consensus, Number, MOST>(pieces, piece_count, vectors, rule, searches);                          \
    }

#define ELECT(suffix, Number, MOST)                                                                                      \
    KERNEL(THREADS, join_elect_##suffix##_##MOST,                                                                        \
           (const JoinPiece *pieces, uint32_t piece_count, const void *const *vectors, int32_t experts)) {               \
        elect_tile<Number, MOST>(pieces, piece_count, vectors, experts);                                                 \
    }

#define JOIN_NUMBER(suffix, Number) \
    JOIN(sum, Thin::Nothing, false, suffix, Number, 2) \
    JOIN(sum, Thin::Nothing, false, suffix, Number, 4) \
    JOIN(sum, Thin::Nothing, false, suffix, Number, 8) \
    JOIN(consensus, Thin::Nothing, true, suffix, Number, 2) \
    JOIN(consensus, Thin::Nothing, true, suffix, Number, 4) \
    JOIN(consensus, Thin::Nothing, true, suffix, Number, 8) \
    JOIN(trim_consensus, Thin::TrimAll, true, suffix, Number, 2) \
    JOIN(trim_some_consensus, Thin::TrimSome, true, suffix, Number, 2) \
    JOIN(trim_consensus, Thin::TrimAll, true, suffix, Number, 4) \
    JOIN(trim_some_consensus, Thin::TrimSome, true, suffix, Number, 4) \
    JOIN(trim_consensus, Thin::TrimAll, true, suffix, Number, 8) \
    JOIN(trim_some_consensus, Thin::TrimSome, true, suffix, Number, 8) \
    JOIN(drop_sum, Thin::Drop, false, suffix, Number, 2) \
    JOIN(drop_sum, Thin::Drop, false, suffix, Number, 4) \
    JOIN(drop_sum, Thin::Drop, false, suffix, Number, 8) \
    JOIN(drop_consensus, Thin::Drop, true, suffix, Number, 2) \
    JOIN(drop_consensus, Thin::Drop, true, suffix, Number, 4) \
    JOIN(drop_consensus, Thin::Drop, true, suffix, Number, 8) \
    ELECT(suffix, Number, 2) \
    ELECT(suffix, Number, 4) \
    ELECT(suffix, Number, 8)

JOIN_NUMBER(bf16, Bf16)
JOIN_NUMBER(f16, F16)
JOIN_NUMBER(f32, F32)
