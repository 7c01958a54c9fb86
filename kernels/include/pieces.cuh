// Many tensors in one launch: a table of pieces, each cut into tiles, one tile a block.
#pragma once

#include "platform.cuh"

// The piece that a tile belongs to. Pieces are sorted by `first_tile`; the first one's is 0.
template <class Piece>
__device__ __forceinline__ uint32_t piece_of_tile(const Piece *pieces, uint32_t count, uint64_t tile) {
    uint32_t low = 0, high = count; // low is not after the piece, high is
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (pieces[middle].first_tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return low;
}
