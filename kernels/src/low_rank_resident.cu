// As low_rank.cu, for inner lengths that fit in shared memory beside everything else: up to four steps of 64.
//
// Each tile of low_rank.cu reads both its factors from the L2, and waits at every step for where the next one lies. Here a
// block keeps 256 rows of the left factors in shared memory and goes along the matrix with them. One block a
// multiprocessor, its share a contiguous run of tiles. Its eight warps are two teams that take every other tile. The right
// factors of a team's next tile, the whole inner length, come while the team adds Θ₀ to this one and writes it; so a
// product is one piece of work without waiting, and one team's product fills the time of the other's writing.

#include "../include/low_rank.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t TEAMS = 2, TEAM = 128, THREADS = TEAMS * TEAM;
// A team's tile; a warp has 64 rows of it.
constexpr uint32_t ROWS = 256, COLUMNS = 64, WARP_ROWS = 64;
constexpr uint32_t MOST_STEPS = 4;
// Shared memory: the left factors' steps, then each team's right ones, then room for a warp's sums.
constexpr uint32_t LEFT_BYTES = ROWS * TILE_ROW_BYTES, RIGHT_BYTES = STEP * TILE_ROW_BYTES;
using Sums = WarpTile<WARP_ROWS, COLUMNS>;
constexpr uint32_t SPREAD_ROWS = 8, SPREAD_PARTS = WARP_ROWS / SPREAD_ROWS, SPREAD_BYTES = SPREAD_ROWS * Sums::PITCH * 4;
constexpr uint32_t RIGHT_AT = MOST_STEPS * LEFT_BYTES, SPREAD_AT = RIGHT_AT + TEAMS * MOST_STEPS * RIGHT_BYTES;

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
    const uint32_t piece = threadIdx.x % TILE_ROW_PIECES, row_of_thread = threadIdx.x / TILE_ROW_PIECES;
    const uint32_t along = step.first + piece * 8;
#pragma unroll
    for (uint32_t i = 0; i < ROWS; i += THREADS / TILE_ROW_PIECES) {
        const uint32_t row = row_of_thread + i;
        const bool present = first_row + row < rows && along < step.product.inner;
        const uint64_t at = present ? uint64_t(first_row + row) * step.product.inner + along : 0;
        copy_async(tile + tile_offset(row, piece), step.product.left + at, present);
    }
}

// Starts copying COLUMNS columns of a step's right factor, a team together.
__device__ __forceinline__ void fetch_right(unsigned char *tile, const Cursor &step, uint32_t first_column) {
    const uint32_t thread = threadIdx.x % TEAM, piece = thread % TILE_ROW_PIECES, column = first_column + piece * 8;
#pragma unroll
    for (uint32_t i = 0; i < STEP; i += TEAM / TILE_ROW_PIECES) {
        const uint32_t row = thread / TILE_ROW_PIECES + i;
        const bool present = step.first + row < step.product.inner && column < step.product.right_pitch;
        const uint64_t at = present ? uint64_t(step.first + row) * step.product.right_pitch + column : 0;
        copy_async(tile + tile_offset(row, piece), step.product.right + at, present);
    }
}

// Adds Θ₀ to a warp's sums and writes them, eight rows at a time through its own part of shared memory.
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
        for (uint32_t part = 0; part < SPREAD_PARTS; part++) {
            sums.spread_eight(spread, part);
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
    // Rows of Θ₀ and of the mask are read while those before them are written.
    constexpr uint32_t SETS = sizeof(Stored) == 2 ? 4 : 2;
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
#pragma unroll
    for (uint32_t part = 0; part + 1 < SETS; part++) read(part);
#pragma unroll
    for (uint32_t part = 0; part < SPREAD_PARTS; part++) {
        if (part + SETS - 1 < SPREAD_PARTS) read(part + SETS - 1);
        sums.spread_eight(spread, part);
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
__device__ __forceinline__ void low_rank_resident(const LowRankPiece *pieces, uint32_t piece_count,
                                                  const LowRankProduct *products, uint64_t tiles) {
    SHARED_MEMORY(shared);
    const uint32_t team = threadIdx.x / TEAM, warp = threadIdx.x / WARP, row_in_tile = warp % (TEAM / WARP) * WARP_ROWS;
    unsigned char *right = shared + RIGHT_AT + team * MOST_STEPS * RIGHT_BYTES;
    float *spread = reinterpret_cast<float *>(shared + SPREAD_AT + warp * SPREAD_BYTES);
    uint64_t tile = tiles * blockIdx.x / gridDim.x;
    const uint64_t end = tiles * (blockIdx.x + 1) / gridDim.x;
    if (tile >= end) return;
    // Starts what a team needs in a round, which in a run's first one is its share of the left factors too.
    auto begin_round = [&](const Run &run, uint32_t round) {
        const uint32_t which = round * TEAMS + team;
        unsigned char *left_step = shared, *right_step = right;
        for (Cursor step = Cursor::begin(run.piece, products); step.more; step.advance()) {
            if (round == 0) fetch_left(left_step, step, run.first_row, run.piece.rows);
            if (which < run.tiles) fetch_right(right_step, step, run.first_column + which * COLUMNS);
            left_step += LEFT_BYTES, right_step += RIGHT_BYTES;
        }
        copy_group();
    };
    Run run = run_at(pieces, piece_count, tile, end);
    begin_round(run, 0);
    for (uint32_t round = 0; tile < end;) {
        const uint32_t which = round * TEAMS + team, first_column = run.first_column + which * COLUMNS;
        const uint32_t first_row = run.first_row + row_in_tile;
        const bool busy = which < run.tiles && first_row < run.piece.rows; // this warp has a part
        const bool last = (round + 1) * TEAMS >= run.tiles;
        if (busy) expect_base<Number>(run.piece, first_row, WARP_ROWS, first_column, COLUMNS, threadIdx.x % WARP, WARP);
        copy_wait<0>();
        if (round == 0)
            __syncthreads();
        else
            sync_named(1 + team, TEAM);
        Sums sums;
        sums.clear();
        if (busy) {
            const unsigned char *left_step = shared, *right_step = right;
#pragma unroll 1
            for (Cursor step = Cursor::begin(run.piece, products); step.more;) {
                const uint32_t rest = step.product.inner - step.first;
                const float ratio = step.product.ratio;
                step.advance();
                multiply_step(sums, left_step, row_in_tile, right_step, rest);
                if (rest <= STEP && ratio != 1.0f) sums.scale(ratio);
                left_step += LEFT_BYTES, right_step += RIGHT_BYTES;
            }
        }
        // What comes next overwrites what was multiplied: by the team, after a run's last round by all.
        Run next = run;
        round++;
        if (last) {
            tile += run.tiles, round = 0;
            if (tile < end) next = run_at(pieces, piece_count, tile, end);
            __syncthreads();
        } else {
            sync_named(1 + team, TEAM);
        }
        if (tile < end) begin_round(next, round);
        if (busy) write<Number>(sums, run.piece, first_row, first_column, spread);
        run = next;
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
