// Θ₀ + M ⊙ Σ_k s_k · B_k A_k over a list of matrices in one launch; without Θ₀ it is τ, without M nothing is left out.
//
// The experts' factors side by side are one product of inner length R = Σ rank. Few matrix operations for an element's
// bytes: bound by memory up to about R = 350 on an H200, by the matrix units beyond. Θ₀ of a tile is asked for before
// the product and read after it.
//
// Factors are bf16. Others are first split into two or three bf16 numbers whose sum they are (`split`), and each pair of
// parts that matters is a product of its own.

#include "../include/low_rank.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t THREADS = 128;
// A block's tile; a warp has a quarter of it. Steps along the inner length come STAGES - 1 ahead.
constexpr uint32_t SIDE = 128, HALF = SIDE / 2;
constexpr int STAGES = 3;
constexpr uint32_t OPERAND_BYTES = SIDE * STEP * 2, STAGE_BYTES = 2 * OPERAND_BYTES;
using Sums = WarpTile<HALF, HALF>;
static_assert(4 * Sums::SHARED_BYTES <= STAGES * STAGE_BYTES, "sums lie where the operands lay");

// Starts the copies of a step: SIDE rows of the left factor, and STEP rows of the right one as two halves of 64 columns.
__device__ __forceinline__ void fetch(unsigned char *stage, const LowRankProduct &product, uint32_t first, uint32_t first_row,
                                      uint32_t rows, uint32_t first_column) {
    const uint32_t piece = threadIdx.x % TILE_ROW_PIECES, row_of_thread = threadIdx.x / TILE_ROW_PIECES;
    constexpr uint32_t ROWS_AT_ONCE = THREADS / TILE_ROW_PIECES;
    const uint32_t along = first + piece * 8;
#pragma unroll
    for (uint32_t i = 0; i < SIDE; i += ROWS_AT_ONCE) {
        const uint32_t row = row_of_thread + i;
        const bool present = first_row + row < rows && along < product.inner;
        const uint64_t at = present ? uint64_t(first_row + row) * product.inner + along : 0;
        copy_async(stage + tile_offset(row, piece), product.left + at, present);
    }
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        const uint32_t column = first_column + half * HALF + piece * 8;
        unsigned char *tile = stage + OPERAND_BYTES + half * (OPERAND_BYTES / 2);
#pragma unroll
        for (uint32_t i = 0; i < STEP; i += ROWS_AT_ONCE) {
            const uint32_t row = row_of_thread + i;
            const bool present = first + row < product.inner && column < product.right_pitch;
            const uint64_t at = present ? uint64_t(first + row) * product.right_pitch + column : 0;
            copy_async(tile + tile_offset(row, piece), product.right + at, present);
        }
    }
}

template <class Number>
__device__ __forceinline__ void low_rank(const LowRankPiece *pieces, uint32_t piece_count, const LowRankProduct *products) {
    SHARED_MEMORY(shared);
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const LowRankPiece piece = pieces[piece_of_tile(pieces, piece_count, uint64_t(blockIdx.x))];
    const uint32_t across = (piece.columns + SIDE - 1) / SIDE, tile = uint32_t(blockIdx.x - piece.first_tile);
    const uint32_t first_row = tile / across * SIDE, first_column = tile % across * SIDE;

    Cursor next = Cursor::begin(piece, products), now = next;
    auto begin_step = [&](uint32_t stage) {
        if (next.more) {
            fetch(shared + stage * STAGE_BYTES, next.product, next.first, first_row, piece.rows, first_column);
            next.advance();
        }
        copy_group(); // one a step, also past the end, so that counting groups counts steps
    };
    for (uint32_t i = 0; i + 1 < uint32_t(STAGES); i++) begin_step(i);
    expect_base<Number>(piece, first_row, SIDE, first_column, SIDE, threadIdx.x, THREADS);

    Sums sums;
    sums.clear();
    for (uint32_t stage = 0; now.more; stage = stage + 1 == STAGES ? 0 : stage + 1) {
        copy_wait<STAGES - 2>();
        __syncthreads();
        // Every warp is done with the stage that was multiplied last.
        begin_step(stage == 0 ? STAGES - 1 : stage - 1);
        const unsigned char *left = shared + stage * STAGE_BYTES;
        const unsigned char *right = left + OPERAND_BYTES + warp % 2 * (OPERAND_BYTES / 2);
        const uint32_t rest = now.product.inner - now.first;
        const float ratio = now.product.ratio;
        multiply_step(sums, left, warp / 2 * HALF, right, rest);
        if (rest <= STEP && ratio != 1.0f) sums.scale(ratio);
        now.advance();
    }
    __syncthreads(); // no warp still reads where sums go now
    float *mine = reinterpret_cast<float *>(shared + warp * Sums::SHARED_BYTES);
    sums.spread(mine);
    const uint32_t column = first_column + warp % 2 * HALF + lane % 8 * 8;
#pragma unroll 4
    for (uint32_t i = lane / 8; i < HALF; i += WARP / 8) {
        const uint32_t row = first_row + warp / 2 * HALF + i;
        if (row < piece.rows && column < piece.columns)
            write_eight<Number>(piece, row, column, mine + i * Sums::PITCH + lane % 8 * 8);
    }
}

} // namespace

#define LOW_RANK(suffix, Number)                                                                                   \
    KERNEL(THREADS, low_rank_##suffix,                                                                             \
           (const LowRankPiece *pieces, uint32_t piece_count, const LowRankProduct *products)) {                   \
        low_rank<Number>(pieces, piece_count, products);                                                           \
    }

LOW_RANK(bf16, Bf16)
LOW_RANK(f16, F16)
LOW_RANK(f32, F32)
