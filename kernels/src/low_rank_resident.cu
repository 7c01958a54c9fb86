// As low_rank.cu, for inner lengths that fit in shared memory beside everything else: up to four steps of 64.
//
// Each tile of low_rank.cu reads both its factors from the L2, which is what bounds it. Here a block keeps 256 rows of the
// left factors in shared memory and goes along the matrix with them, so that an element costs a third of those bytes. One
// block a multiprocessor, its share a contiguous run of tiles. Its eight warps are two teams that take every other tile:
// while one team adds Θ₀ and writes, the other multiplies.

#include "../include/low_rank.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t TEAMS = 2, TEAM = 128, THREADS = TEAMS * TEAM;
// A team's tile; a warp has 64 rows of it.
constexpr uint32_t ROWS = 256, COLUMNS = 64, WARP_ROWS = 64;
constexpr uint32_t MOST_STEPS = 4;
constexpr int STAGES = 3;
// Shared memory: the left factors' steps, then each team's stages of the right ones, then room for a warp's sums.
constexpr uint32_t LEFT_BYTES = ROWS * TILE_ROW_BYTES, RIGHT_BYTES = STEP * TILE_ROW_BYTES;
using Sums = WarpTile<WARP_ROWS, COLUMNS>;
constexpr uint32_t SPREAD_ROWS = 16, SPREAD_BYTES = SPREAD_ROWS * Sums::PITCH * 4;
constexpr uint32_t RIGHT_AT = MOST_STEPS * LEFT_BYTES, SPREAD_AT = RIGHT_AT + TEAMS * STAGES * RIGHT_BYTES;

// Tiles that lie side by side in one matrix.
struct Run {
    LowRankPiece piece;
    uint32_t first_row, first_column, tiles;
};

// The run that begins at a tile and ends before another one.
__device__ __forceinline__ Run run_at(const LowRankPiece *pieces, uint32_t piece_count, uint64_t tile, uint64_t end) {
    Run run;
    run.piece = pieces[piece_of_tile(pieces, piece_count, tile)];
    const uint32_t across = (run.piece.columns + COLUMNS - 1) / COLUMNS, in_piece = uint32_t(tile - run.piece.first_tile);
    run.first_row = in_piece / across * ROWS;
    run.first_column = in_piece % across * COLUMNS;
    run.tiles = uint32_t(min(uint64_t(across - in_piece % across), end - tile));
    return run;
}

// Starts copying ROWS rows of a step's left factor, all threads together.
__device__ __forceinline__ void fetch_left(unsigned char *tile, const Cursor &step, uint32_t first_row, uint32_t rows) {
    const LowRankProduct product = *step.product;
    const uint32_t piece = threadIdx.x % TILE_ROW_PIECES, along = step.first + piece * 8;
#pragma unroll
    for (uint32_t row = threadIdx.x / TILE_ROW_PIECES; row < ROWS; row += THREADS / TILE_ROW_PIECES) {
        const bool present = first_row + row < rows && along < product.inner;
        const uint64_t at = present ? uint64_t(first_row + row) * product.inner + along : 0;
        copy_async(tile + tile_offset(row, piece), product.left + at, present);
    }
}

// Starts copying COLUMNS columns of a step's right factor, a team together.
__device__ __forceinline__ void fetch_right(unsigned char *tile, const Cursor &step, uint32_t first_column) {
    const LowRankProduct product = *step.product;
    const uint32_t thread = threadIdx.x % TEAM, piece = thread % TILE_ROW_PIECES, column = first_column + piece * 8;
#pragma unroll
    for (uint32_t row = thread / TILE_ROW_PIECES; row < STEP; row += TEAM / TILE_ROW_PIECES) {
        const bool present = step.first + row < product.inner && column < product.right_pitch;
        const uint64_t at = present ? uint64_t(step.first + row) * product.right_pitch + column : 0;
        copy_async(tile + tile_offset(row, piece), product.right + at, present);
    }
}

// Adds Θ₀ to a warp's sums and writes them, 16 rows at a time through its own part of shared memory.
template <class Number>
__device__ __forceinline__ void write(const Sums &sums, const LowRankPiece &piece, uint32_t first_row, uint32_t first_column,
                                      float *spread) {
    using Stored = typename Number::Stored;
    constexpr uint32_t AT_ONCE = WARP / 8, PASSES = SPREAD_ROWS / AT_ONCE; // eight lanes share a row
    const uint32_t lane = threadIdx.x % WARP, column = first_column + lane % 8 * 8;
    const bool straight = piece.columns % 8 == 0 && first_row + WARP_ROWS <= piece.rows && first_column + COLUMNS <= piece.columns;
    const float *mine = spread + lane / 8 * Sums::PITCH + lane % 8 * 8;
    if (!straight) {
#pragma unroll
        for (int part = 0; part < Sums::DOWN; part++) {
            sums.spread_rows(spread, part);
#pragma unroll 1
            for (uint32_t pass = 0; pass < PASSES; pass++) {
                const uint32_t row = first_row + part * SPREAD_ROWS + pass * AT_ONCE + lane / 8;
                if (row < piece.rows && column < piece.columns)
                    write_eight<Number>(piece, row, column, mine + pass * AT_ONCE * Sums::PITCH);
            }
            __syncwarp(); // the next rows go to the same place
        }
        return;
    }
    // Rows of Θ₀ and of the mask are read while those before them are written, if registers hold both.
    constexpr uint32_t SETS = sizeof(Stored) == 2 ? 2 : 1;
    const uint64_t first = uint64_t(first_row + lane / 8) * piece.columns + column, step = uint64_t(AT_ONCE) * piece.columns;
    Eight<Number> weights[SETS][PASSES];
    uint32_t bits[SETS] = {};
    auto read = [&](uint32_t part) {
        bits[part % SETS] = 0xffffffffu;
#pragma unroll
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            const uint64_t at = first + (part * PASSES + pass) * step;
            if (piece.base) weights[part % SETS][pass] = load_eight<Number>(static_cast<const Stored *>(piece.base), at, at + 8);
            if (piece.mask) bits[part % SETS] = bits[part % SETS] << 8 | piece.mask[at / 8];
        }
    };
    if (SETS == 2) read(0);
#pragma unroll
    for (uint32_t part = 0; part < uint32_t(Sums::DOWN); part++) {
        if (part + SETS - 1 < uint32_t(Sums::DOWN)) read(part + SETS - 1);
        sums.spread_rows(spread, part);
#pragma unroll
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            const float *values = mine + pass * AT_ONCE * Sums::PITCH;
            const uint32_t kept = bits[part % SETS] >> (8 * (PASSES - 1 - pass));
            float weight[8] = {}, result[8];
            if (piece.base) weights[part % SETS][pass].widen(weight);
#pragma unroll
            for (uint32_t i = 0; i < 8; i++) result[i] = kept >> i & 1u ? weight[i] + values[i] : weight[i];
            const uint64_t at = first + (part * PASSES + pass) * step;
            store_eight<Number>(static_cast<Stored *>(piece.out), at, at + 8, result);
        }
        __syncwarp(); // the next rows go to the same place
    }
}

template <class Number>
__device__ __forceinline__ void run_through(const Run &run, const LowRankProduct *products, unsigned char *shared) {
    const uint32_t team = threadIdx.x / TEAM, warp = threadIdx.x / WARP, row_in_tile = warp % (TEAM / WARP) * WARP_ROWS;
    const uint32_t rounds = (run.tiles + TEAMS - 1 - team) / TEAMS;
    unsigned char *right = shared + RIGHT_AT + team * STAGES * RIGHT_BYTES;
    auto column_of = [&](uint32_t round) { return run.first_column + (round * TEAMS + team) * COLUMNS; };
    Cursor next = Cursor::begin(run.piece, products);
    uint32_t next_round = 0, next_left = 0;
    auto begin_step = [&](uint32_t stage) {
        // In the first round the left factors come too, for both teams, by all threads.
        if (next_round == 0) fetch_left(shared + next_left++ * LEFT_BYTES, next, run.first_row, run.piece.rows);
        if (next_round < rounds) fetch_right(right + stage * RIGHT_BYTES, next, column_of(next_round));
        copy_group(); // one a step, also past the end, so that counting groups counts steps
        next.advance();
        if (!next.more()) next_round++, next = Cursor::begin(run.piece, products);
    };
    for (uint32_t i = 0; i + 1 < uint32_t(STAGES); i++) begin_step(i);
    uint32_t stage = 0;
    for (uint32_t round = 0; round == 0 || round < rounds; round++) {
        const bool mine = round < rounds; // in the first round all threads go through the barriers
        const bool busy = mine && run.first_row + row_in_tile < run.piece.rows; // this warp has rows
        if (mine) expect_base<Number>(run.piece, run.first_row, ROWS, column_of(round), COLUMNS, threadIdx.x % TEAM, TEAM);
        Sums sums;
        sums.clear();
        const unsigned char *left = shared;
        for (Cursor now = Cursor::begin(run.piece, products); now.more(); now.advance(), left += LEFT_BYTES) {
            copy_wait<STAGES - 2>();
            if (round == 0)
                __syncthreads();
            else
                sync_named(1 + team, TEAM);
            // The team is done with the stage that was multiplied last.
            begin_step(stage == 0 ? STAGES - 1 : stage - 1);
            const unsigned char *b_tile = right + stage * RIGHT_BYTES;
            const uint32_t rest = now.product->inner - now.first;
            const float ratio = now.product->ratio;
if (busy) multiply_step(sums, left, row_in_tile, b_tile, rest);
            if (rest <= STEP && ratio != 1.0f) sums.scale(ratio);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
        float *spread = reinterpret_cast<float *>(shared + SPREAD_AT + warp * SPREAD_BYTES);
        if (busy)
            write<Number>(sums, run.piece, run.first_row + row_in_tile, column_of(round), spread);
    }
}

template <class Number>
__device__ __forceinline__ void low_rank_resident(const LowRankPiece *pieces, uint32_t piece_count,
                                                  const LowRankProduct *products, uint64_t tiles) {
    SHARED_MEMORY(shared);
    uint64_t tile = tiles * blockIdx.x / gridDim.x;
    const uint64_t end = tiles * (blockIdx.x + 1) / gridDim.x;
    while (tile < end) {
        const Run run = run_at(pieces, piece_count, tile, end);
        run_through<Number>(run, products, shared);
        tile += run.tiles;
        __syncthreads(); // nobody multiplies the left factors that the next run overwrites
    }
}

} // namespace

#define LOW_RANK_RESIDENT(suffix, Number)                                                                            \
    KERNEL(THREADS, low_rank_resident_##suffix,                                                                      \
           (const LowRankPiece *pieces, uint32_t piece_count, const LowRankProduct *products, uint64_t tiles)) {     \
        low_rank_resident<Number>(pieces, piece_count, products, tiles);                                             \
    }

LOW_RANK_RESIDENT(bf16, Bf16)
LOW_RANK_RESIDENT(f16, F16)
LOW_RANK_RESIDENT(f32, F32)
