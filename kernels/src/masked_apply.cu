// out_k = Θ₀ + s_k · M_k ⊙ τ for up to four tasks k in one pass, over a list of tensors in one launch.
//
// Bound by memory: with T bytes an element, 2T + T·tasks + tasks/8 bytes move for each. A thread takes eight neighbouring
// elements, which are one byte of every mask, four times.
//
// compile with: -fmad=false (the CPU rounds every product too)

#include "../include/numbers.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t ROUNDS = 4;
constexpr uint64_t TILE = uint64_t(THREADS) * ROUNDS * 8;

// One tensor. Arrays begin on 16 bytes.
struct MaskedPiece {
    const void *base;
    const void *task_vector;
    uint64_t numel;
    uint64_t first_tile; // tiles of the pieces before it
};

// Where one task's bits of a piece lie, and where its weights go: TASKS of them a piece, pieces one after the other.
struct TaskPiece {
    const uint8_t *mask; // bit i of byte j belongs to element 8j + i
    void *out;
};

template <class Number, int TASKS>
__device__ __forceinline__ void masked_apply(const MaskedPiece *pieces, uint32_t piece_count, const TaskPiece *tasks,
                                             const float *scales) {
    using Stored = typename Number::Stored;
    const uint64_t tile = blockIdx.x;
    const uint32_t index = piece_of_tile(pieces, piece_count, tile);
    const MaskedPiece piece = pieces[index];
    const TaskPiece *mine = tasks + uint64_t(index) * TASKS;
    const Stored *base = static_cast<const Stored *>(piece.base);
    const Stored *task_vector = static_cast<const Stored *>(piece.task_vector);
    const uint64_t first = (tile - piece.first_tile) * TILE + threadIdx.x * 8;

    // All loads before the first use, so that they are under way together.
    Eight<Number> theta[ROUNDS], tau[ROUNDS];
    uint32_t bits[ROUNDS];
#pragma unroll
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t at = first + uint64_t(round) * THREADS * 8;
        bits[round] = 0;
        if (at >= piece.numel) continue;
        theta[round] = load_eight<Number>(base, at, piece.numel);
        tau[round] = load_eight<Number>(task_vector, at, piece.numel);
#pragma unroll
        for (int task = 0; task < TASKS; task++) bits[round] |= uint32_t(mine[task].mask[at / 8]) << (8 * task);
    }
#pragma unroll
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint64_t at = first + uint64_t(round) * THREADS * 8;
        if (at >= piece.numel) continue;
        float weights[8], vector[8];
        theta[round].widen(weights);
        tau[round].widen(vector);
#pragma unroll
        for (int task = 0; task < TASKS; task++) {
            const float scale = scales[task];
            float merged[8];
#pragma unroll
            for (int i = 0; i < 8; i++)
                merged[i] = bits[round] >> (8 * task + i) & 1u ? weights[i] + scale * vector[i] : weights[i];
            store_eight<Number>(static_cast<Stored *>(mine[task].out), at, piece.numel, merged);
        }
    }
}

} // namespace

#define MASKED_APPLY(suffix, Number, TASKS)                                                                   \
    KERNEL(THREADS, masked_apply_##suffix##_##TASKS,                                                          \
           (const MaskedPiece *pieces, uint32_t piece_count, const TaskPiece *tasks, const float *scales)) {  \
        masked_apply<Number, TASKS>(pieces, piece_count, tasks, scales);                                      \
    }

#define MASKED_APPLY_TASKS(suffix, Number) \
    MASKED_APPLY(suffix, Number, 1)        \
    MASKED_APPLY(suffix, Number, 2)        \
    MASKED_APPLY(suffix, Number, 3)        \
    MASKED_APPLY(suffix, Number, 4)

MASKED_APPLY_TASKS(bf16, Bf16)
MASKED_APPLY_TASKS(f16, F16)
MASKED_APPLY_TASKS(f32, F32)
