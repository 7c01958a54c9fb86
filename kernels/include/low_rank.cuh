// Matrices of the low-rank kernels: Θ₀ + M ⊙ Σ_k s_k · B_k A_k, and what is done with the sums of a tile.
#pragma once

#include "numbers.cuh"
#include "warp_tile.cuh"

// One matrix, rows × columns, row by row; it may lack Θ₀, the mask, or both.
struct LowRankPiece {
    const void *base;
    const uint8_t *mask; // bit i of byte j belongs to element 8j + i
    void *out;
    uint64_t first_tile; // tiles of the matrices before it
    uint32_t rows, columns;
    uint32_t first_product, product_count;
};

// One product of bf16 factors. After it all sums so far are multiplied by `ratio`, the scale of this expert over the
// next one's (of the last one: its scale), so that the factors themselves need not be rounded again.
struct LowRankProduct {
    const uint16_t *left;  // rows × inner, inner a multiple of 8
    const uint16_t *right; // inner × right_pitch; columns rounded up to 8 are there
    uint32_t inner, right_pitch;
    float ratio;
    uint32_t unused;
};

// Elements of the inner length that are multiplied at once, a row of a tile; counted anew in every product.
constexpr uint32_t STEP = TILE_ROW_BYTES / 2;

// A step of one of a matrix's products. What the next product is, is read one step before it is needed.
struct Cursor {
    const LowRankProduct *next, *end;
    LowRankProduct product;
    uint32_t first; // element of its inner length
    bool more;

    static __device__ __forceinline__ Cursor begin(const LowRankPiece &piece, const LowRankProduct *products) {
        Cursor cursor;
        cursor.next = products + piece.first_product;
        cursor.end = cursor.next + piece.product_count;
        cursor.take();
        return cursor;
    }
    __device__ __forceinline__ void take() {
        first = 0;
        more = next != end;
        if (more) product = *next++;
    }
    __device__ __forceinline__ void advance() {
        first += STEP;
        if (first >= product.inner) take();
    }
};

// Adds the products of a step, of which `rest` or STEP elements are left: rows of a left tile from `row` on, all columns of a
// right one.
template <int ROWS>
__device__ __forceinline__ void multiply_step(WarpTile<ROWS, 64> &sums, const unsigned char *left, uint32_t row,
                                              const unsigned char *right, uint32_t rest) {
    using Sums = WarpTile<ROWS, 64>;
    FragmentA a[2][Sums::DOWN];
    FragmentB b[2][Sums::ACROSS];
    if (rest > STEP - 16) {
        // The usual case, without branches: the next fragments come while these are multiplied.
        load_left(a[0], left, row, 0);
        load_right_rows(b[0], right, 0, 0);
#pragma unroll
        for (uint32_t k = 0; k < STEP / 16; k++) {
            if (k + 1 < STEP / 16) {
                load_left(a[(k + 1) % 2], left, row, k + 1);
                load_right_rows(b[(k + 1) % 2], right, 0, k + 1);
            }
            sums.multiply(a[k % 2], b[k % 2]);
        }
        return;
    }
#pragma unroll 1
    for (uint32_t k = 0; 16 * k < rest; k++) {
        load_left(a[0], left, row, k);
        load_right_rows(b[0], right, 0, k);
        sums.multiply(a[0], b[0]);
    }
}

// Writes eight elements of a row from `column` on, a multiple of 8; `values` are Σ_k s_k · B_k A_k and begin on 16 bytes.
template <class Number>
__device__ __forceinline__ void write_eight(const LowRankPiece &piece, uint32_t row, uint32_t column, const float *values) {
    using Stored = typename Number::Stored;
    const Stored *base = static_cast<const Stored *>(piece.base);
    Stored *out = static_cast<Stored *>(piece.out);
    const uint64_t at = uint64_t(row) * piece.columns + column;
    if (piece.columns % 8 != 0) { // rows begin anywhere
#pragma unroll 1
        for (uint32_t i = 0; i < 8 && column + i < piece.columns; i++) {
            const uint64_t here = at + i;
            const bool kept = !piece.mask || (piece.mask[here / 8] >> (here % 8) & 1u);
            const float weight = base ? Number::widen(base[here]) : 0.0f;
            out[here] = Number::round(kept ? weight + values[i] : weight);
        }
        return;
    }
    float weights[8] = {}, result[8];
    if (base) load_eight<Number>(base, at, at + 8).widen(weights);
    const uint32_t bits = piece.mask ? piece.mask[at / 8] : 0xffu;
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) result[i] = bits >> i & 1u ? weights[i] + values[i] : weights[i];
    store_eight<Number>(out, at, at + 8, result);
}

// Asks the L2 for a rectangle of Θ₀ that will be added to, while there is other work; by `threads` threads, of which this
// is `thread`.
template <class Number>
__device__ __forceinline__ void expect_base(const LowRankPiece &piece, uint32_t first_row, uint32_t rows, uint32_t first_column,
                                            uint32_t columns, uint32_t thread, uint32_t threads) {
    using Stored = typename Number::Stored;
    constexpr uint32_t LINE = 128 / sizeof(Stored);
    const uint32_t lines = columns / LINE;
    if (!piece.base) return;
    for (uint32_t i = thread; i < rows * lines; i += threads) {
        const uint32_t row = first_row + i / lines, column = first_column + i % lines * LINE;
        if (row < piece.rows && column < piece.columns)
            prefetch(static_cast<const Stored *>(piece.base) + uint64_t(row) * piece.columns + column);
    }
}
