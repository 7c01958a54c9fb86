// A warp's part of a product on the matrix units: fragments from tiles in shared memory, sums in registers.
//
// Tiles in shared memory have rows of 128 bytes, eight pieces of 16. Piece p of row r lies at place p ^ (r mod 8): eight
// rows at one place, or eight places of a row, are in different banks.
#pragma once

#include "matrix.cuh"

constexpr uint32_t TILE_ROW_BYTES = 128, TILE_ROW_PIECES = 8;

__device__ __forceinline__ uint32_t tile_offset(uint32_t row, uint32_t piece) {
    return row * TILE_ROW_BYTES + ((piece ^ (row & 7u)) * 16);
}

// Fragments of rows `first` … `first + 16·COUNT - 1`, columns 16·step … +15, of a tile of bf16, 64 a row.
template <int COUNT>
__device__ __forceinline__ void load_left(FragmentA (&fragments)[COUNT], const unsigned char *tile, uint32_t first,
                                          uint32_t step) {
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        load_matrices<false>(fragments[i].word, tile + tile_offset(first + 16 * i + lane % 16, 2 * step + lane / 16));
}

// Fragments of the right operand, stored transposed: its columns are rows `first` … `first + 8·COUNT - 1` of the tile.
template <int COUNT>
__device__ __forceinline__ void load_right(FragmentB (&fragments)[COUNT], const unsigned char *tile, uint32_t first,
                                           uint32_t step) {
    static_assert(COUNT % 2 == 0, "two at a time");
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < COUNT; i += 2) {
        uint32_t word[4];
        const uint32_t row = first + 8 * i + lane / 16 * 8 + lane % 8;
        load_matrices<false>(word, tile + tile_offset(row, 2 * step + lane / 8 % 2));
        fragments[i] = FragmentB{{word[0], word[1]}};
        fragments[i + 1] = FragmentB{{word[2], word[3]}};
    }
}

// Fragments of the right operand, stored as it is: its rows are those of the tile, of which step 16·step … +15 are read;
// columns `first` … `first + 8·COUNT - 1` of the tile's 64.
template <int COUNT>
__device__ __forceinline__ void load_right_rows(FragmentB (&fragments)[COUNT], const unsigned char *tile, uint32_t first,
                                                uint32_t step) {
    static_assert(COUNT % 2 == 0, "two at a time");
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < COUNT; i += 2) {
        uint32_t word[4];
        load_matrices<true>(word, tile + tile_offset(16 * step + lane % 16, first / 8 + i + lane / 16));
        fragments[i] = FragmentB{{word[0], word[1]}};
        fragments[i + 1] = FragmentB{{word[2], word[3]}};
    }
}

// Sums of ROWS × COLUMNS elements.
template <int ROWS, int COLUMNS>
struct WarpTile {
    static constexpr int DOWN = ROWS / 16, ACROSS = COLUMNS / 8;
    // Floats between rows when the sums lie in shared memory: stores of four rows hit all banks once.
    static constexpr uint32_t PITCH = COLUMNS + 8;
    static constexpr uint32_t SHARED_BYTES = ROWS * PITCH * 4;

    FragmentC sum[DOWN][ACROSS];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < DOWN; i++)
#pragma unroll
            for (int j = 0; j < ACROSS; j++) sum[i][j] = FragmentC{};
    }

    __device__ __forceinline__ void multiply(const FragmentA (&left)[DOWN], const FragmentB (&right)[ACROSS]) {
#pragma unroll
        for (int i = 0; i < DOWN; i++)
#pragma unroll
            for (int j = 0; j < ACROSS; j++) multiply_add(sum[i][j], left[i], right[j]);
    }

    __device__ __forceinline__ void scale(float by) {
#pragma unroll
        for (int i = 0; i < DOWN; i++)
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
#pragma unroll
                for (int v = 0; v < 4; v++) sum[i][j].value[v] *= by;
    }

    // Leaves the sums in the warp's own part of shared memory, row by row, for its lanes to read along rows.
    __device__ __forceinline__ void spread(float *shared) const {
#pragma unroll
        for (int part = 0; part < 2 * DOWN; part++) spread_part(shared + 8 * part * PITCH, part);
        __syncwarp();
    }

    // The same for rows 8·part … +7, which come to the beginning.
    __device__ __forceinline__ void spread_eight(float *shared, int part) const {
        spread_part(shared, part);
        __syncwarp();
    }

  private:
    __device__ __forceinline__ void spread_part(float *shared, int part) const {
        const uint32_t lane = threadIdx.x % WARP;
        float *mine = shared + lane / 4 * PITCH + lane % 4 * 2;
#pragma unroll
        for (int j = 0; j < ACROSS; j++) {
            mine[8 * j] = sum[part / 2][j].value[part % 2 * 2];
            mine[8 * j + 1] = sum[part / 2][j].value[part % 2 * 2 + 1];
        }
    }
};
