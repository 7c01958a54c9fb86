// Factors of low-rank products as the matrix units want them: each number as a sum of up to three bf16 numbers, in
// matrices of their own whose rows are zeros up to a multiple of 8 and begin on 16 bytes.
//
// x = x₀ + x₁ + x₂ with x₀ = bf16(x), x₁ = bf16(x - x₀), x₂ = bf16(x - x₀ - x₁): exact for f16 with two, for f32 with three.
// Bound by memory: a factor is read once; factors are small beside the matrices that they become.

#include "../include/numbers.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t THREADS = 256;

enum Stored : uint32_t { STORED_BF16 = 0, STORED_F16 = 1, STORED_F32 = 2 };

struct SplitPiece {
    const void *from; // rows × columns
    uint16_t *parts;  // part_count matrices of padded_rows × pitch, one after the other
    uint64_t first_tile;
    uint32_t rows, columns, padded_rows, pitch;
    uint32_t stored, part_count;
};

__device__ __forceinline__ float load_one(const void *from, uint32_t stored, uint64_t at) {
    switch (stored) {
    case STORED_BF16: return Bf16::widen(static_cast<const uint16_t *>(from)[at]);
    case STORED_F16: return F16::widen(static_cast<const uint16_t *>(from)[at]);
    default: return static_cast<const float *>(from)[at];
    }
}

} // namespace

// A thread makes eight neighbouring elements of every part.
KERNEL(THREADS, low_rank_split, (const SplitPiece *pieces, uint32_t piece_count)) {
    const uint64_t tile = blockIdx.x;
    const SplitPiece piece = pieces[piece_of_tile(pieces, piece_count, tile)];
    const uint64_t eight = (tile - piece.first_tile) * THREADS + threadIdx.x, numel = uint64_t(piece.padded_rows) * piece.pitch;
    if (eight * 8 >= numel) return;
    const uint32_t row = uint32_t(eight * 8 / piece.pitch), column = uint32_t(eight * 8 % piece.pitch);
    float rest[8];
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        const bool present = row < piece.rows && column + i < piece.columns;
        rest[i] = present ? load_one(piece.from, piece.stored, uint64_t(row) * piece.columns + column + i) : 0.0f;
    }
    for (uint32_t part = 0; part < piece.part_count; part++) {
        store_eight<Bf16>(piece.parts + part * numel, eight * 8, numel, rest);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const float taken = Bf16::widen(Bf16::round(rest[i]));
            rest[i] = fabsf(taken) <= 3.4e38f ? rest[i] - taken : 0.0f; // what is not finite has no rest
        }
    }
}
