// score of a task = mean over its subspaces P of (mean over tokens h of ‖P h‖₂), for all tasks in one launch.
//
// Bound by latency: the hidden states of one task are a megabyte, P has a few rows. A block takes eight tokens of one
// subspace, its warps share the inputs (skinny.cuh; both factors are two tf32 each), and the last block of a task adds up
// what its blocks left, in their order, so that a score is the same every time.

#include "../include/pieces.cuh"
#include "../include/skinny.cuh"

namespace {

constexpr uint32_t MOST_THREADS = 512;
constexpr uint32_t MOST_WARPS = MOST_THREADS / WARP;

// One subspace of one task. Rows begin on 16 bytes.
struct RouterPiece {
    const float *subspace; // rank × width
    const void *hidden;    // tokens × width
    uint64_t first_tile;   // blocks of the pieces before it
    uint32_t tokens, rank, task, unused;
};

struct RouterTask {
    uint64_t first_tile, tiles;
    double subspaces; // number of them
};

__device__ __forceinline__ double warp_sum_of_doubles(double value) {
    for (uint32_t step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(WHOLE_WARP, value, step);
    return value;
}

// Shared memory: twice 64 sums a warp.
template <class Number>
__device__ __forceinline__ void score(const RouterPiece *pieces, uint32_t piece_count, const RouterTask *tasks, uint32_t width,
                                      double *partials, uint32_t *counters, float *scores) {
    SHARED_MEMORY(shared);
    using Stored = typename Number::Stored;
    const uint32_t warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const uint64_t tile = blockIdx.x;
    const RouterPiece piece = pieces[piece_of_tile(pieces, piece_count, tile)];
    const uint32_t token = uint32_t(tile - piece.first_tile) * ROWS + g;
    const Stored *hidden = static_cast<const Stored *>(piece.hidden) + uint64_t(token) * width;
    const uint32_t steps = (width + INPUTS - 1) / INPUTS;

    float squares = 0.0f; // of the token's projection
    uint32_t turn = 0;
    for (uint32_t first = 0; first < piece.rank; first += FEATURES) {
        const float *row = piece.subspace + uint64_t(first + g) * width;
        float sum[1][4] = {};
#pragma unroll 2
        for (uint32_t step = warp; step < steps; step += warps) {
            const uint32_t input = INPUTS * step + 8 * t;
            RowStep x;
            load_eight_if<Number>(token < piece.tokens && input < width, hidden + input).widen(x.element);
            uint32_t basis[2][8];
            Tf32Eight<F32>::split(load_eight_if<F32>(first + g < piece.rank && input < width, row + input), basis);
#pragma unroll
            for (uint32_t i = 0; i < 8; i += 2) {
                const Tf32Pair even = split_tf32(x.element[i]), odd = split_tf32(x.element[i + 1]);
                const uint32_t a[4] = {even.high, even.low, odd.high, odd.low};
#pragma unroll
                for (int part = 0; part < 2; part++) {
                    const uint32_t b[2] = {basis[part][i], basis[part][i + 1]};
                    multiply_add_tf32(sum[0], a, b);
                }
            }
        }
        // Two places in turn, so that one barrier a round is enough.
        float *parts = reinterpret_cast<float *>(shared) + turn * warps * ROWS * FEATURES;
        turn ^= 1u;
        leave_sums(parts + warp * ROWS * FEATURES, sum);
        __syncthreads(); // the sums of all warps are there
        if (warp != 0) continue;
        float low = 0.0f, high = 0.0f;
#pragma unroll
        for (uint32_t other = 0; other < MOST_WARPS; other++) {
            if (other >= warps) continue;
            low += parts[other * ROWS * FEATURES + 2 * lane];
            high += parts[other * ROWS * FEATURES + 2 * lane + 1];
        }
        squares += sum_of_four_lanes(low * low + high * high);
    }
    if (warp != 0) return;
    const double norms = warp_sum_of_doubles(t == 0 ? double(sqrtf(squares)) : 0.0);
    const RouterTask task = tasks[piece.task];
    uint32_t last = 0;
    if (lane == 0) {
        partials[tile] = norms / (double(piece.tokens) * task.subspaces);
        last = add_in_order(&counters[piece.task], 1) == task.tiles - 1;
    }
    if (__shfl_sync(WHOLE_WARP, last, 0) == 0) return;
    double total = 0.0;
    for (uint64_t i = lane; i < task.tiles; i += WARP) total += partials[task.first_tile + i];
    total = warp_sum_of_doubles(total);
    if (lane == 0) {
        scores[piece.task] = float(total);
        counters[piece.task] = 0; // for the next launch
    }
}

} // namespace

#define ROUTER(suffix, Number)                                                                                           \
    KERNEL(MOST_THREADS, router_##suffix,                                                                                \
           (const RouterPiece *pieces, uint32_t piece_count, const RouterTask *tasks, uint32_t width, double *partials,  \
            uint32_t *counters, float *scores)) {                                                                        \
        score<Number>(pieces, piece_count, tasks, width, partials, counters, scores);                                    \
    }

ROUTER(bf16, Bf16)
ROUTER(f32, F32)
