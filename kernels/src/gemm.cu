// y = x · Wᵀ + bias, then what the caller wants of y while it is in registers: GELU, a residual, a gate, ReLU.
// x is rows × inner, W columns × inner (as PyTorch stores a linear layer), all row by row, bf16, summed in f32.
//
// Bound by the matrix units, for few rows by reading W. Four warps share a tile of y; steps of 64 along `inner` come to
// shared memory by asynchronous copies, STAGES - 1 ahead. Where tiles are too few for the GPU, blocks in z share a tile,
// each with a part of `inner`: they leave their sums in scratch memory, and whichever warp comes last adds them up, always
// in the same order.

#include "../include/linear.cuh"
#include "../include/parts.cuh"
#include "../include/warp_tile.cuh"

namespace {

constexpr uint32_t THREADS = 128;
// Elements of `inner` in a step: a row of a tile.
constexpr uint32_t STEP = TILE_ROW_BYTES / 2;

// A block's tile of y is SIDE × SIDE, a warp's quarter of it SIDE/2 × SIDE/2.
template <uint32_t SIDE, int STAGES>
struct Shape {
    static constexpr uint32_t HALF = SIDE / 2;
    static constexpr uint32_t OPERAND_BYTES = SIDE * TILE_ROW_BYTES, STAGE_BYTES = 2 * OPERAND_BYTES;
    using Sums = WarpTile<HALF, HALF>;
    static_assert(4 * Sums::SHARED_BYTES <= STAGES * STAGE_BYTES, "sums lie where the operands lay");

    // Starts the copies of one operand's step: SIDE rows from `first_row` on, columns from `first` on.
    static __device__ __forceinline__ void fetch(unsigned char *tile, const uint16_t *matrix, uint32_t first_row, uint32_t rows,
                                                 uint32_t first, uint32_t inner) {
        const uint32_t piece = threadIdx.x % TILE_ROW_PIECES, column = first + piece * 8;
#pragma unroll
        for (uint32_t row = threadIdx.x / TILE_ROW_PIECES; row < SIDE; row += THREADS / TILE_ROW_PIECES) {
            const bool present = first_row + row < rows && column < inner;
            const uint64_t at = present ? uint64_t(first_row + row) * inner + column : 0;
            copy_async(tile + tile_offset(row, piece), matrix + at, present);
        }
    }

    // Sums of the block's tile over steps `step` … `end - 1`.
    static __device__ __forceinline__ void product(Sums &sums, const Linear &linear, unsigned char *shared, uint32_t step,
                                                   uint32_t end) {
        const uint32_t warp = threadIdx.x / WARP, first_row = blockIdx.x * SIDE, first_column = blockIdx.y * SIDE;
        auto begin_step = [&](uint32_t which, uint32_t stage) {
            if (which < end) {
                unsigned char *tile = shared + stage * STAGE_BYTES;
                fetch(tile, static_cast<const uint16_t *>(linear.x), first_row, linear.rows, which * STEP, linear.inner);
                fetch(tile + OPERAND_BYTES, static_cast<const uint16_t *>(linear.weight), first_column, linear.columns,
                      which * STEP, linear.inner);
            }
            copy_group(); // one a step, also past the end, so that counting groups counts steps
        };
        for (uint32_t i = 0; i + 1 < uint32_t(STAGES); i++) begin_step(step + i, i);
        uint32_t stage = 0;
        for (; step < end; step++) {
            copy_wait<STAGES - 2>();
            __syncthreads();
            // Every warp is done with the stage that was multiplied last.
            begin_step(step + STAGES - 1, stage == 0 ? STAGES - 1 : stage - 1);
            const unsigned char *x = shared + stage * STAGE_BYTES, *w = x + OPERAND_BYTES;
            FragmentA left[2][Sums::DOWN];
            FragmentB right[2][Sums::ACROSS];
            load_left(left[0], x, warp / 2 * HALF, 0);
            load_right(right[0], w, warp % 2 * HALF, 0);
#pragma unroll
            for (uint32_t k = 0; k < STEP / 16; k++) {
                if (k + 1 < STEP / 16) {
                    load_left(left[(k + 1) % 2], x, warp / 2 * HALF, k + 1);
                    load_right(right[(k + 1) % 2], w, warp % 2 * HALF, k + 1);
                }
                sums.multiply(left[k % 2], right[k % 2]);
            }
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
    }

    // Adds the parts of the other blocks that share the tile. True for the warp that came last and has the whole.
    static __device__ __forceinline__ bool gather(Sums &sums, float *scratch, uint32_t *arrivals) {
        constexpr uint32_t PART = HALF * HALF; // floats of a warp's part
        const uint32_t parts = gridDim.z, lane = threadIdx.x % WARP;
        const uint64_t place = (uint64_t(blockIdx.y) * gridDim.x + blockIdx.x) * 4 + threadIdx.x / WARP;
        float *first = scratch + place * parts * PART + lane * 4;
        for_each_word(sums, [&](uint32_t i, FragmentC &c) {
            float *at = first + uint64_t(blockIdx.z) * PART + i * 4 * WARP;
            leave_four(at, c.value);
        });
        __threadfence();
        __syncwarp();
        uint32_t before = 0;
        if (lane == 0) before = atomicAdd(&arrivals[place], 1u);
        if (__shfl_sync(WHOLE_WARP, before, 0) != parts - 1) return false;
        __threadfence();
        if (lane == 0) arrivals[place] = 0; // as the next launch wants it
        for_each_word(sums, [&](uint32_t i, FragmentC &c) { fetch_four(c.value, first + i * 4 * WARP); });
        for (uint32_t part = 1; part < parts; part++)
            for_each_word(sums, [&](uint32_t i, FragmentC &c) {
                float other[4];
                fetch_four(other, first + uint64_t(part) * PART + i * 4 * WARP);
#pragma unroll
                for (int j = 0; j < 4; j++) c.value[j] += other[j];
            });
        return true;
    }

    template <class Do>
    static __device__ __forceinline__ void for_each_word(Sums &sums, Do &&act) {
#pragma unroll
        for (int i = 0; i < Sums::DOWN; i++)
#pragma unroll
            for (int j = 0; j < Sums::ACROSS; j++) act(i * Sums::ACROSS + j, sums.sum[i][j]);
    }

    // Writes the warp's part of y.
    template <class Y>
    static __device__ __forceinline__ void write(const Sums &sums, const Linear &linear, float *shared) {
        const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        float *mine = shared + warp * (Sums::SHARED_BYTES / 4);
        sums.spread(mine);
        constexpr uint32_t LANES = HALF / 8; // that share a row, eight columns each
        const uint32_t column = blockIdx.y * SIDE + warp % 2 * HALF + lane % LANES * 8;
        for (uint32_t i = lane / LANES; i < HALF; i += WARP / LANES) {
            const uint32_t row = blockIdx.x * SIDE + warp / 2 * HALF + i;
            if (row < linear.rows && column < linear.columns)
                finish_eight<Y>(linear, row, column, mine + i * Sums::PITCH + lane % LANES * 8);
        }
    }
};

template <class Y, uint32_t SIDE, int STAGES>
__device__ __forceinline__ void gemm(const Linear &linear, float *scratch, uint32_t *arrivals, uint32_t steps_of_part) {
    SHARED_MEMORY(shared);
    using Block = Shape<SIDE, STAGES>;
    const uint32_t steps = (linear.inner + STEP - 1) / STEP, first = blockIdx.z * steps_of_part;
    typename Block::Sums sums;
    sums.clear();
    Block::product(sums, linear, shared, first, min(steps, first + steps_of_part));
    __syncthreads(); // no warp still reads what `write` will overwrite
    if (gridDim.z > 1 && !Block::gather(sums, scratch, arrivals)) return;
    Block::template write<Y>(sums, linear, reinterpret_cast<float *>(shared));
}

} // namespace

#define GEMM(suffix, Y, SIDE, STAGES)                                                                      \
    KERNEL(THREADS, gemm_##SIDE##_##suffix,                                                                \
           (LINEAR_PARAMETERS, float *scratch, uint32_t *arrivals, uint32_t steps_of_part)) {              \
        gemm<Y, SIDE, STAGES>(LINEAR_ARGUMENTS, scratch, arrivals, steps_of_part);                         \
    }

GEMM(bf16, Bf16, 64, 4)
GEMM(f32, F32, 64, 4)
GEMM(bf16, Bf16, 128, 3)
GEMM(f32, F32, 128, 3)
