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

enum class Thin { Nothing, Trim, Drop };

__device__ __forceinline__ float elect(float sum, float zero_sum) {
    return sum > 0.0f ? 1.0f : sum < 0.0f ? -1.0f : zero_sum;
}

// Eight elements of every expert to eight of the result.
template <int MOST>
__device__ __forceinline__ void join(const float (&values)[MOST][8], const Rule &rule, float (&out)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float sum = 0.0f;
#pragma unroll
        for (int k = 0; k < MOST; k++)
            if (k < rule.experts) sum += values[k][i];
        if (rule.mode == 0) {
            if (rule.divisor != 1.0f) sum = sum / rule.divisor;
        } else {
            const float sign = elect(sum, rule.zero_sum);
            float divisor = 0.0f;
            sum = 0.0f;
#pragma unroll
            for (int k = 0; k < MOST; k++)
                if (k < rule.experts && values[k][i] * sign > 0.0f) {
                    sum += values[k][i];
                    divisor += rule.weights[k];
                }
            if (rule.mode == 2) sum = sum / (divisor == 0.0f ? 1.0f : divisor);
        }
        out[i] = rule.lambda != 1.0f ? sum * rule.lambda : sum;
    }
}

template <Thin thin, class Number, int MOST>
__device__ __forceinline__ void join_tile(const JoinPiece *pieces, uint32_t piece_count, const void *const *vectors,
                                          const Rule *rules, const Search *searches) {
    using Stored = typename Number::Stored;
    const uint64_t tile = blockIdx.x;
    const uint32_t index = piece_of_tile(pieces, piece_count, tile);
    const JoinPiece piece = pieces[index];
    const Rule rule = *rules;
    const void *const *mine = vectors + uint64_t(index) * uint32_t(rule.experts);
    const uint64_t first =
        (tile - piece.first_tile) * TILE + threadIdx.x / 8 * (ROUNDS * APART) + threadIdx.x % 8 * 8;

    uint32_t kept[MOST]; // bit 8 · round + i
    if (thin == Thin::Drop) {
#pragma unroll
        for (int k = 0; k < MOST; k++) {
            kept[k] = 0xffffffffu;
            if (k >= rule.experts || rule.below[k] > 0xffffffffull) continue;
            kept[k] = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const uint64_t element = first + i; // of round 0: word 0 of its counter
                const Words4 numbers = philox(element / 256 * 64 + element % 64, uint32_t(k), piece.seed);
#pragma unroll
                for (uint32_t round = 0; round < ROUNDS; round++)
                    kept[k] |= uint32_t(numbers.word[round] < rule.below[k]) << (8 * round + i);
            }
        }
    }
#pragma unroll
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t at = first + round * APART;
        if (at >= piece.numel) continue;
        Eight<Number> eights[MOST], base;
#pragma unroll
        for (int k = 0; k < MOST; k++)
            if (k < rule.experts) eights[k] = load_eight<Number>(static_cast<const Stored *>(mine[k]), at, piece.numel);
        if (piece.base != nullptr) base = load_eight<Number>(static_cast<const Stored *>(piece.base), at, piece.numel);
        float values[MOST][8];
#pragma unroll
        for (int k = 0; k < MOST; k++) {
            if (k >= rule.experts) continue;
            eights[k].widen(values[k]);
            uint32_t keys[8];
            Threshold threshold = {};
            if (thin == Thin::Trim) {
                magnitudes<Number>(eights[k], keys);
                threshold = searches[rule.thresholds_per_piece ? uint64_t(index) * uint32_t(rule.experts) + k : k].threshold;
            }
#pragma unroll
            for (int i = 0; i < 8; i++) {
                bool keep = true;
                if (thin == Thin::Drop) keep = kept[k] >> (8 * round + i) & 1u;
                if (thin == Thin::Trim) {
                    keep = keys[i] >= threshold.key;
                    if (keys[i] == threshold.key && threshold.below <= 0xffffffffull)
                        keep = philox_of_element(at + i, 0, 0) < threshold.below;
                }
                values[k][i] = keep ? rule.weights[k] * values[k][i] : 0.0f;
            }
        }
        float merged[8];
        join<MOST>(values, rule, merged);
        if (piece.base != nullptr) {
            float weights[8];
            base.widen(weights);
#pragma unroll
            for (int i = 0; i < 8; i++) merged[i] = merged[i] + weights[i];
        }
        store_eight<Number>(static_cast<Stored *>(piece.out), at, piece.numel, merged);
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
#pragma unroll
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t at = first + uint64_t(round) * THREADS * 8;
        if (at >= piece.numel) continue;
        Eight<Number> eights[MOST];
#pragma unroll
        for (int k = 0; k < MOST; k++)
            if (k < experts) eights[k] = load_eight<Number>(static_cast<const Stored *>(mine[k]), at, piece.numel);
        float sums[8] = {}, merged[8] = {};
#pragma unroll
        for (int k = 0; k < MOST; k++) {
            if (k >= experts) continue;
            float values[8];
            eights[k].widen(values);
#pragma unroll
            for (int i = 0; i < 8; i++) sums[i] += values[i];
        }
#pragma unroll
        for (int k = 0; k < MOST; k++) {
            if (k >= experts) continue;
            float values[8];
            eights[k].widen(values);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const bool up = sums[i] > 0.0f && values[i] > merged[i];
                const bool down = sums[i] < 0.0f && values[i] < merged[i];
                if (up || down) merged[i] = values[i];
            }
        }
        store_eight<Number>(static_cast<Stored *>(piece.out), at, piece.numel, merged);
    }
}

} // namespace

#define JOIN(name, thin, suffix, Number, MOST)                                                                           \
    KERNEL(THREADS, join_##name##_##suffix##_##MOST,                                                                     \
           (const JoinPiece *pieces, uint32_t piece_count, const void *const *vectors, const Rule *rule,                 \
            const Search *searches)) {                                                                                   \
        join_tile<thin, Number, MOST>(pieces, piece_count, vectors, rule, searches);                                     \
    }

#define ELECT(suffix, Number, MOST)                                                                                      \
    KERNEL(THREADS, join_elect_##suffix##_##MOST,                                                                        \
           (const JoinPiece *pieces, uint32_t piece_count, const void *const *vectors, int32_t experts)) {               \
        elect_tile<Number, MOST>(pieces, piece_count, vectors, experts);                                                 \
    }

#define JOIN_NUMBER(suffix, Number)                   \
    JOIN(all, Thin::Nothing, suffix, Number, 2)       \
    JOIN(all, Thin::Nothing, suffix, Number, 4)       \
    JOIN(all, Thin::Nothing, suffix, Number, 8)       \
    JOIN(trim, Thin::Trim, suffix, Number, 2)         \
    JOIN(trim, Thin::Trim, suffix, Number, 4)         \
    JOIN(trim, Thin::Trim, suffix, Number, 8)         \
    JOIN(drop, Thin::Drop, suffix, Number, 2)         \
    JOIN(drop, Thin::Drop, suffix, Number, 4)         \
    JOIN(drop, Thin::Drop, suffix, Number, 8)         \
    ELECT(suffix, Number, 2)                          \
    ELECT(suffix, Number, 4)                          \
    ELECT(suffix, Number, 8)

JOIN_NUMBER(bf16, Bf16)
JOIN_NUMBER(f16, F16)
JOIN_NUMBER(f32, F32)
