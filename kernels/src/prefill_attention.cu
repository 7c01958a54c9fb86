// softmax(q kᵀ / √d) v for many queries of bf16: heads that may share keys, sequences one after the other, causal or not.
//
// Bound by matrix units and exponentials; scores never leave registers. A block takes 64 queries of one head and walks over
// the keys in tiles, with the next tile's copies under way. Four warps take 16 queries each and the first half of a tile's
// keys, four more the same queries and the second half: sequences of a few hundred tokens leave most of a GPU idle
// otherwise. Both halves keep their own running maximum and sum, and meet at the end. Sums and softmax are f32; the
// probabilities are rounded to bf16 for the second product, as on the CPU.

#include "../include/exponent.cuh"
#include "../include/matrix.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t QUERIES = 64;
constexpr float LOWEST = -1e30f; // below every score, and finite, so that differences are no NaN
constexpr float HIDDEN = -INFINITY;

struct Operand {
    const uint16_t *first; // of this sequence and head
    uint32_t stride;
};

// Rows first … first + COUNT − 1 of an operand to shared memory; those from `rows` on, and columns from `head_dim` on, are
// zeros. A thread has one place in a row and takes every so many rows: addresses cost an addition each.
template <uint32_t COUNT, uint32_t CHUNKS, uint32_t PITCH>
__device__ __forceinline__ void copy_tile(uint16_t *tile, Operand from, uint32_t first, uint32_t rows, uint32_t head_dim) {
    constexpr uint32_t PLACES = CHUNKS <= 2 ? 2 : CHUNKS <= 4 ? 4 : CHUNKS <= 8 ? 8 : 16; // of a row, a power of two
    constexpr uint32_t STEP = THREADS / PLACES;
    const uint32_t column = threadIdx.x % PLACES * 8, row = threadIdx.x / PLACES;
    if (column >= CHUNKS * 8) return;
    const uint16_t *at = from.first + uint64_t(first + row) * from.stride + column;
    uint16_t *to = tile + row * PITCH + column;
    const uint32_t present = column < head_dim && rows > first ? rows - first : 0; // rows of this column
#pragma unroll
    for (uint32_t i = 0; i < COUNT; i += STEP) {
        if (COUNT < STEP && row >= COUNT) return;
        const bool there = row + i < present;
        copy_async(to + i * PITCH, there ? at : from.first, there);
        at += uint64_t(STEP) * from.stride;
    }
}

// Heads of at most STEPS · 16 elements; tiles of KEYS keys.
template <uint32_t STEPS, uint32_t KEYS>
struct Attention {
    static constexpr uint32_t DIM = STEPS * 16;
    static constexpr uint32_t CHUNKS = DIM / 8;
    static constexpr uint32_t PITCH = DIM + 8; // an odd number of 16 bytes: eight rows lie in different banks
    static constexpr uint32_t HALF = KEYS / 2; // keys that one warp takes of a tile
    static constexpr uint32_t TILES = HALF / 8;
    static constexpr uint32_t STAGE = 2 * KEYS * PITCH; // keys, then values

    FragmentA queries[STEPS];
    FragmentC sums[CHUNKS];
    float largest[2], total[2]; // of rows g and g + 8; `total` of this lane's columns alone

    // Scores of this warp's queries and half of a tile's keys, and what the values weighted by them add.
    __device__ __forceinline__ void step(const uint16_t *keys, const uint16_t *values, uint32_t first_key, uint32_t key_count,
                                         uint32_t first_query, bool causal, float scale) {
        const uint32_t lane = threadIdx.x % WARP, matrix = lane / 8, in_matrix = lane % 8;
        FragmentC scores[TILES];
#pragma unroll
        for (uint32_t n = 0; n < TILES; n++) scores[n] = {};
#pragma unroll
        for (uint32_t k = 0; k < STEPS; k++) {
#pragma unroll
            for (uint32_t n = 0; n < TILES; n += 2) {
                uint32_t word[4];
                load_matrices<false>(word, keys + (n * 8 + matrix / 2 * 8 + in_matrix) * PITCH + k * 16 + matrix % 2 * 8);
                multiply_add(scores[n], queries[k], FragmentB{{word[0], word[1]}});
                multiply_add(scores[n + 1], queries[k], FragmentB{{word[2], word[3]}});
            }
        }
        hide(scores, first_key, key_count, first_query, causal);

        float shift[2];
#pragma unroll
        for (uint32_t row = 0; row < 2; row++) {
            float highest = fmaxf(scores[0].value[2 * row], scores[0].value[2 * row + 1]);
#pragma unroll
            for (uint32_t n = 1; n < TILES; n++)
                highest = fmaxf(highest, fmaxf(scores[n].value[2 * row], scores[n].value[2 * row + 1]));
            highest = fmaxf(largest[row], highest * scale);
            highest = fmaxf(highest, __shfl_xor_sync(WHOLE_WARP, highest, 1));
            highest = fmaxf(highest, __shfl_xor_sync(WHOLE_WARP, highest, 2));
            shift[row] = highest;
            const float shrink = power_of_two(largest[row] - highest);
            largest[row] = highest;
            total[row] *= shrink;
#pragma unroll
            for (uint32_t n = 0; n < CHUNKS; n++) {
                sums[n].value[2 * row] *= shrink;
                sums[n].value[2 * row + 1] *= shrink;
            }
        }
#pragma unroll
        for (uint32_t n = 0; n < TILES; n++)
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                scores[n].value[i] = power_of_two(scores[n].value[i] * scale - shift[i / 2]);
                total[i / 2] += scores[n].value[i];
            }
#pragma unroll
        for (uint32_t k = 0; k < TILES / 2; k++) {
            FragmentA weights; // two tiles of results lie as one of operands does
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                const FragmentC &from = scores[2 * k + i / 2];
                weights.word[i] = Bf16::round_pair(from.value[i % 2 * 2], from.value[i % 2 * 2 + 1]);
            }
#pragma unroll
            for (uint32_t n = 0; n < CHUNKS; n += 2) {
                uint32_t word[4];
                load_matrices<true>(word, values + (k * 16 + matrix % 2 * 8 + in_matrix) * PITCH + n * 8 + matrix / 2 * 8);
                multiply_add(sums[n], weights, FragmentB{{word[0], word[1]}});
                multiply_add(sums[n + 1], weights, FragmentB{{word[2], word[3]}});
            }
        }
    }

    // Scores of keys that are not there, or come after their query.
    __device__ __forceinline__ void hide(FragmentC (&scores)[TILES], uint32_t first_key, uint32_t key_count,
                                         uint32_t first_query, bool causal) const {
        if (first_key + HALF <= key_count && !(causal && first_key + HALF > first_query + 1)) return;
        const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t n = 0; n < TILES; n++)
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                const uint32_t key = first_key + n * 8 + lane % 4 * 2 + i % 2;
                const uint32_t query = first_query + lane / 4 + i / 2 * 8;
                if (key >= key_count || (causal && key > query)) scores[n].value[i] = HIDDEN;
            }
    }

    __device__ __forceinline__ void run(unsigned char *shared, Operand q, Operand k, Operand v, uint16_t *out,
                                        uint32_t out_stride, uint32_t length, uint32_t head_dim, bool causal, float scale) {
        uint16_t *query_tile = reinterpret_cast<uint16_t *>(shared);
        uint16_t *stages = query_tile + QUERIES * PITCH;
        const uint32_t lane = threadIdx.x % WARP, strip = threadIdx.x / WARP % 4, second = threadIdx.x / WARP / 4;
        // The longest rows of a causal triangle first.
        const uint32_t first = (causal ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * QUERIES;
        const uint32_t mine = first + strip * 16;
        const uint32_t seen = causal ? min(length, first + QUERIES) : length;

        auto copy = [&](uint32_t tile) {
            uint16_t *stage = stages + tile % 2 * STAGE;
            copy_tile<KEYS, CHUNKS, PITCH>(stage, k, tile * KEYS, seen, head_dim);
            copy_tile<KEYS, CHUNKS, PITCH>(stage + KEYS * PITCH, v, tile * KEYS, seen, head_dim);
        };
        copy_tile<QUERIES, CHUNKS, PITCH>(query_tile, q, first, length, head_dim);
        copy(0);
        copy_group();
#pragma unroll
        for (uint32_t n = 0; n < CHUNKS; n++) sums[n] = {};
        largest[0] = largest[1] = LOWEST;
        total[0] = total[1] = 0.0f;

        for (uint32_t tile = 0; tile * KEYS < seen; tile++) {
            copy_wait<0>();
            __syncthreads(); // the tile is there, and nobody reads the one before it any more
            if ((tile + 1) * KEYS < seen) copy(tile + 1);
            copy_group();
            if (tile == 0) {
#pragma unroll
                for (uint32_t step = 0; step < STEPS; step++)
                    load_matrices<false>(queries[step].word,
                                         query_tile + (strip * 16 + lane % 16) * PITCH + step * 16 + lane / 16 * 8);
            }
            const uint32_t key = tile * KEYS + second * HALF;
            if (key >= seen || (causal && key > mine + 15)) continue; // all hidden; the same for the whole warp
            const uint16_t *keys = stages + tile % 2 * STAGE + second * HALF * PITCH;
            step(keys, keys + KEYS * PITCH, key, seen, mine, causal, scale);
        }
#pragma unroll
        for (uint32_t row = 0; row < 2; row++) {
            total[row] += __shfl_xor_sync(WHOLE_WARP, total[row], 1);
            total[row] += __shfl_xor_sync(WHOLE_WARP, total[row], 2);
        }
        meet(reinterpret_cast<float *>(stages), strip, second);
        if (!second) write(out, out_stride, mine, length, head_dim);
    }

    // Adds what the second four warps found to what the first four did.
    __device__ __forceinline__ void meet(float *exchange, uint32_t strip, uint32_t second) {
        constexpr uint32_t VALUES = CHUNKS * 4 + 4;
        float *mine = exchange + strip * VALUES * WARP + threadIdx.x % WARP;
        __syncthreads(); // nobody reads the tiles any more
        if (second) {
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS * 4; i++) mine[i * WARP] = sums[i / 4].value[i % 4];
#pragma unroll
            for (uint32_t row = 0; row < 2; row++) {
                mine[(CHUNKS * 4 + row) * WARP] = largest[row];
                mine[(CHUNKS * 4 + 2 + row) * WARP] = total[row];
            }
        }
        __syncthreads();
        if (second) return;
#pragma unroll
        for (uint32_t row = 0; row < 2; row++) {
            const float other = mine[(CHUNKS * 4 + row) * WARP], highest = fmaxf(largest[row], other);
            const float here = power_of_two(largest[row] - highest), there = power_of_two(other - highest);
            const float factor = 1.0f / (total[row] * here + mine[(CHUNKS * 4 + 2 + row) * WARP] * there);
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS * 2; i++) {
                const uint32_t at = i / 2 * 4 + row * 2 + i % 2;
                float &sum = sums[i / 2].value[row * 2 + i % 2];
                sum = (sum * here + mine[at * WARP] * there) * factor;
            }
        }
    }

    __device__ __forceinline__ void write(uint16_t *out, uint32_t out_stride, uint32_t first, uint32_t length,
                                          uint32_t head_dim) const {
        const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (uint32_t row = 0; row < 2; row++) {
            const uint32_t query = first + lane / 4 + row * 8;
            if (query >= length) continue;
            uint16_t *to = out + uint64_t(query) * out_stride + lane % 4 * 2;
#pragma unroll
            for (uint32_t n = 0; n < CHUNKS; n++)
                if (n * 8 < head_dim)
                    *reinterpret_cast<uint32_t *>(to + n * 8) =
                        Bf16::round_pair(sums[n].value[2 * row], sums[n].value[2 * row + 1]);
        }
    }
};

} // namespace

// `scale` is log₂(e) / √head_dim; strides and widths are in elements, addresses and strides multiples of 16 bytes.
// Grid: tiles of queries, heads, sequences.
#define PREFILL_ATTENTION(STEPS, KEYS)                                                                                 \
    KERNEL(THREADS, prefill_attention_##STEPS,                                                                         \
           (const uint16_t *q, const uint16_t *k, const uint16_t *v, uint32_t q_stride, uint32_t k_stride,             \
            uint32_t v_stride, uint16_t *out, uint32_t out_stride, uint32_t length, uint32_t sharing,                  \
            uint32_t head_dim, uint32_t causal, float scale)) {                                                        \
        SHARED_MEMORY(shared);                                                                                         \
        const uint64_t row = uint64_t(blockIdx.z) * length;                                                            \
        const uint32_t column = blockIdx.y * head_dim, kv_column = blockIdx.y / sharing * head_dim;                    \
        Attention<STEPS, KEYS> attention;                                                                              \
        attention.run(shared, Operand{q + row * q_stride + column, q_stride},                                          \
                      Operand{k + row * k_stride + kv_column, k_stride},                                               \
                      Operand{v + row * v_stride + kv_column, v_stride}, out + row * out_stride + column, out_stride,  \
                      length, head_dim, causal != 0, scale);                                                           \
    }

PREFILL_ATTENTION(1, 128)
PREFILL_ATTENTION(2, 128)
PREFILL_ATTENTION(3, 128)
PREFILL_ATTENTION(4, 128)
PREFILL_ATTENTION(5, 64)
PREFILL_ATTENTION(6, 64)
PREFILL_ATTENTION(7, 64)
PREFILL_ATTENTION(8, 64)
