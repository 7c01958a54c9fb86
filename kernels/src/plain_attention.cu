// softmax over the keys of up to three groups, each with its own queries and scale: exact in f32, and slow. For models in
// f32, and for whatever has too few queries for matrix units.
//
// A block takes four queries of one head. Scores of all keys lie in shared memory; a thread computes those of every
// 128th key, then a warp the softmax of one query, then a thread the columns of the result.

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 128;
constexpr uint32_t QUERIES = THREADS / WARP;
constexpr uint32_t GROUPS = 3;

template <class Query, class Key>
struct Group {
    const typename Query::Stored *queries;
    const typename Key::Stored *keys;
    const typename Key::Stored *values;
    uint32_t key_count; // of one sequence
    float scale;
};

// How rows of all groups lie, in elements.
struct Layout {
    uint32_t q_stride, k_stride, v_stride, out_stride;
    uint32_t length; // queries of one sequence
    uint32_t sharing; // heads of queries that share one of keys
    uint32_t head_dim;
    uint32_t causal; // only with one group
};

// Dot products of one key with the block's queries, which are f32 and lie one after the other.
template <class Key>
__device__ __forceinline__ void dots(const typename Key::Stored *key, const float *queries, uint32_t head_dim, bool aligned,
                                     float (&sums)[QUERIES]) {
#pragma unroll
    for (uint32_t q = 0; q < QUERIES; q++) sums[q] = 0.0f;
    if (aligned) {
#pragma unroll 2
        for (uint32_t j = 0; j < head_dim; j += 8) {
            float values[8];
            read_eight<Key>(key + j, values);
#pragma unroll
            for (uint32_t q = 0; q < QUERIES; q++)
#pragma unroll
                for (uint32_t i = 0; i < 8; i++) sums[q] += values[i] * queries[q * head_dim + j + i];
        }
    } else {
        for (uint32_t j = 0; j < head_dim; j++)
#pragma unroll
            for (uint32_t q = 0; q < QUERIES; q++) sums[q] += Key::widen(key[j]) * queries[q * head_dim + j];
    }
}

// Shared memory: the queries of every group times its scale, the scores, one factor a query.
template <class Query, class Key>
__device__ __forceinline__ void attend(const Group<Query, Key> (&groups)[GROUPS], Layout layout,
                                       typename Query::Stored *out, float *shared) {
    const uint32_t head_dim = layout.head_dim, first = blockIdx.x * QUERIES, thread = threadIdx.x;
    const uint32_t column = blockIdx.y * head_dim, kv_column = blockIdx.y / layout.sharing * head_dim;
    const uint64_t sequence = blockIdx.z;
    uint32_t keys = 0;
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) keys += groups[g].key_count;
    float *queries = shared, *scores = queries + GROUPS * QUERIES * head_dim, *factors = scores + QUERIES * keys;

#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        if (groups[g].key_count == 0) continue;
        for (uint32_t i = thread; i < QUERIES * head_dim; i += THREADS) {
            const uint32_t query = first + i / head_dim;
            const uint64_t at = (sequence * layout.length + query) * layout.q_stride + column + i % head_dim;
            queries[g * QUERIES * head_dim + i] =
                query < layout.length ? Query::widen(groups[g].queries[at]) * groups[g].scale : 0.0f;
        }
    }
    __syncthreads();
    const bool aligned = head_dim % 8 == 0;
    uint32_t before = 0;
#pragma unroll
    for (uint32_t g = 0; g < GROUPS; g++) {
        const uint32_t count = groups[g].key_count;
        for (uint32_t key = thread; key < count; key += THREADS) {
            float sums[QUERIES];
            dots<Key>(groups[g].keys + (sequence * count + key) * layout.k_stride + kv_column,
                      queries + g * QUERIES * head_dim, head_dim, aligned, sums);
#pragma unroll
            for (uint32_t q = 0; q < QUERIES; q++)
                scores[q * keys + before + key] = layout.causal && key > first + q ? -INFINITY : sums[q];
        }
        before += count;
    }
    __syncthreads();
    float *mine = scores + thread / WARP * keys;
    float highest = -INFINITY, total = 0.0f;
    for (uint32_t key = thread % WARP; key < keys; key += WARP) highest = fmaxf(highest, mine[key]);
    highest = warp_max(highest);
    for (uint32_t key = thread % WARP; key < keys; key += WARP) {
        mine[key] = expf(mine[key] - highest);
        total += mine[key];
    }
    total = warp_sum(total);
    if (thread % WARP == 0) factors[thread / WARP] = 1.0f / total;
    __syncthreads();
    // The last head's block also writes the zeros that follow a row.
    const uint32_t zeros = blockIdx.y + 1 == gridDim.y ? layout.out_stride - column - head_dim : 0;
    const uint32_t width = head_dim + zeros;
    for (uint32_t i = thread; i < QUERIES * width; i += THREADS) {
        const uint32_t q = i / width, j = i % width;
        if (first + q >= layout.length) break;
        const uint64_t at = (sequence * layout.length + first + q) * layout.out_stride + column + j;
        if (j >= head_dim) {
            out[at] = 0;
            continue;
        }
        const float *weights = scores + q * keys;
        float sum = 0.0f;
#pragma unroll
        for (uint32_t g = 0; g < GROUPS; g++) {
            const uint32_t count = groups[g].key_count;
            const typename Key::Stored *values = groups[g].values + sequence * count * layout.v_stride + kv_column + j;
#pragma unroll 4
            for (uint32_t key = 0; key < count; key++)
                sum += weights[key] * Key::widen(values[uint64_t(key) * layout.v_stride]);
            weights += count;
        }
        out[at] = Query::round(sum * factors[q]);
    }
}

} // namespace

// Grid: fours of queries, heads, sequences. A group that is not there has no keys.
#define PLAIN_ATTENTION(query, Query, key, Key)                                                                        \
    KERNEL(THREADS, plain_attention_##query##_##key,                                                                   \
           (const Query::Stored *q0, const Key::Stored *k0, const Key::Stored *v0, uint32_t count0, float scale0,      \
            const Query::Stored *q1, const Key::Stored *k1, const Key::Stored *v1, uint32_t count1, float scale1,      \
            const Query::Stored *q2, const Key::Stored *k2, const Key::Stored *v2, uint32_t count2, float scale2,      \
            uint32_t q_stride, uint32_t k_stride, uint32_t v_stride, Query::Stored *out, uint32_t out_stride,          \
            uint32_t length, uint32_t sharing, uint32_t head_dim, uint32_t causal)) {                                  \
        SHARED_MEMORY(shared);                                                                                         \
        const Group<Query, Key> groups[GROUPS] = {                                                                     \
            {q0, k0, v0, count0, scale0}, {q1, k1, v1, count1, scale1}, {q2, k2, v2, count2, scale2}};                 \
        const Layout layout = {q_stride, k_stride, v_stride, out_stride, length, sharing, head_dim, causal};           \
        attend<Query, Key>(groups, layout, out, reinterpret_cast<float *>(shared));                                    \
    }

PLAIN_ATTENTION(f32, F32, f32, F32)
PLAIN_ATTENTION(f32, F32, bf16, Bf16)
PLAIN_ATTENTION(bf16, Bf16, bf16, Bf16)
