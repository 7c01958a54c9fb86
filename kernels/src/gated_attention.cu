// out = softmax([s_1 · q_1 k_1ᵀ, s_2 · q_2 k_2ᵀ, …]) [v_1; v_2; …] for every head: one softmax over up to three groups of
// keys, each with its own queries and scale. Queries may be turned by a rotary embedding first.
//
// Bound by latency: keys and values of one layer of an action expert are 2 MB, a microsecond of memory. So the keys of a
// head are spread over many blocks and over their warps, eight keys a warp at a time, in registers (attention.cuh). Warps of
// a block meet in shared memory, blocks of a head in global memory, where the last one to arrive combines them all.

#include "../include/attention.cuh"

namespace {

constexpr uint32_t MOST_THREADS = 256;
constexpr uint32_t GROUPS = 3;

// Keys of one kind. Rows of all three are tokens; those of keys and values are as wide as all heads.
struct Group {
    const void *queries, *keys, *values;
    uint32_t count;
    float scale;
};

struct Shape {
    uint32_t rows; // queries
    uint32_t head_dim;
    uint32_t query_stride; // elements between two rows of queries
    uint32_t bf16;         // bit 0: queries are bf16, bit 1: out is; else f32
};

template <class Number, int WIDE>
__device__ __forceinline__ void load_queries(QueryTile<WIDE> &tile, const void *queries, const Shape &shape, uint32_t row,
                                             uint32_t column) {
    using Stored = typename Number::Stored;
    const Stored *from = static_cast<const Stored *>(queries) + uint64_t(row) * shape.query_stride + column;
#pragma unroll
    for (uint32_t s = 0; s < 2 * WIDE; s++) {
        const uint32_t dim = 32 * s + 8 * (threadIdx.x % 4);
        load_eight_if<Number, Order::FRESH>(dim < shape.head_dim && row < shape.rows, from + dim).widen(tile.element[s]);
    }
}

// Bytes of shared memory: for each warp 8 largest scores, 8 weights, 8 · head_dim sums; and a flag.
template <class Number, int WIDE>
__device__ __forceinline__ void attend(const Group (&groups)[GROUPS], const Shape &shape, const float *cosines,
                                       const float *sines, void *out, float *workspace, uint32_t *counters) {
    SHARED_MEMORY(shared);
    const uint32_t warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const uint32_t split = blockIdx.x, splits = gridDim.x, head = blockIdx.y, heads = gridDim.y;
    const uint32_t first_row = blockIdx.z * QUERIES, g = lane / 4;
    const uint32_t head_dim = shape.head_dim, column = head * head_dim;
    const AttentionParts warp_parts = {reinterpret_cast<float *>(shared), reinterpret_cast<float *>(shared) + warps * QUERIES,
                              reinterpret_cast<float *>(shared) + 2 * warps * QUERIES};
    uint32_t *last = reinterpret_cast<uint32_t *>(warp_parts.sum + warps * QUERIES * head_dim);
    if (threadIdx.x == 0) *last = 0;
    let_next_begin();

    // Tiles of all groups are dealt out to all warps of the head in turn.
    Attended<WIDE> attended;
    attended.clear();
    // Where they fit, values are loaded before the scores are computed.
    constexpr bool EARLY = WIDE * Tf32Eight<Number>::PARTS <= 2;
    uint32_t before = 0, next = split * warps + warp; // tiles of the groups before, and the one that this warp takes next
#pragma unroll 1
    for (uint32_t index = 0; index < GROUPS; index++) {
        const Group group = index == 0 ? groups[0] : index == 1 ? groups[1] : groups[2];
        const uint32_t tiles = (group.count + KEYS - 1) / KEYS;
        QueryTile<WIDE> query;
        bool have_query = false;
        for (; next < before + tiles; next += splits * warps) {
            using Stored = typename Number::Stored;
            const uint32_t first = (next - before) * KEYS;
            const uint64_t row_stride = uint64_t(heads) * head_dim;
            const Stored *group_values = static_cast<const Stored *>(group.values) + column;
            KeyTile<Number, WIDE> keys;
            keys.load(static_cast<const Stored *>(group.keys) + column, row_stride, first, group.count, head_dim);
            ValueTile<Number> values[EARLY ? WIDE : 1];
            if (EARLY)
#pragma unroll
                for (int w = 0; w < WIDE; w++)
                    values[EARLY ? w : 0].load(group_values, row_stride, first, group.count, w, head_dim);
            if (!have_query) {
                const uint32_t row = first_row + g;
                wait_for_kernel_before(); // it may have written the queries, but neither keys nor values
                if (shape.bf16 & 1u)
                    load_queries<Bf16>(query, group.queries, shape, row, column);
                else
                    load_queries<F32>(query, group.queries, shape, row, column);
                if (cosines != nullptr) {
                    RotaryTile<WIDE> table;
                    table.load(cosines, sines, min(row, shape.rows - 1), head_dim);
                    query.turn(table);
                }
                query.scale(group.scale * LOG2_E);
                have_query = true;
            }
            float weight_0, weight_1;
            attended.weigh(query, keys, min(KEYS, group.count - first), weight_0, weight_1);
#pragma unroll
            for (int w = 0; w < WIDE; w++) {
                ValueTile<Number> &part = values[EARLY ? w : 0];
                if (!EARLY) part.load(group_values, row_stride, first, group.count, w, head_dim);
                attended.add(attended.sum[w], part, weight_0, weight_1);
            }
        }
        before += tiles;
    }
    wait_for_kernel_before(); // warps without keys do, too: it may have read what is written here
    leave_part(warp_parts, warp, attended, head_dim);
    __syncthreads(); // every warp's part is there

    const uint32_t team = blockIdx.z * heads + head, teams = gridDim.z * heads;
    const AttentionParts block_parts = {workspace + uint64_t(team) * splits * QUERIES,
                               workspace + uint64_t(teams + team) * splits * QUERIES,
                               workspace + uint64_t(2 * teams) * splits * QUERIES +
                                   uint64_t(team) * splits * QUERIES * head_dim};
    const auto write_out = [&](uint32_t query, uint32_t element, float all, const float(&sum)[4]) {
        const uint32_t row = first_row + query;
        if (row >= shape.rows) return;
        const uint64_t at = (uint64_t(row) * heads + head) * head_dim + element;
        const float by = 1.0f / all;
        if (shape.bf16 & 2u) {
            uint32_t *to = reinterpret_cast<uint32_t *>(static_cast<uint16_t *>(out) + at);
            to[0] = Bf16::round_pair(sum[0] * by, sum[1] * by);
            to[1] = Bf16::round_pair(sum[2] * by, sum[3] * by);
        } else {
            *reinterpret_cast<Bytes16 *>(static_cast<float *>(out) + at) =
                Bytes16{bits_of_float(sum[0] * by), bits_of_float(sum[1] * by), bits_of_float(sum[2] * by),
                        bits_of_float(sum[3] * by)};
        }
    };
    // Warps take queries, lanes elements: nothing to divide.
    const auto for_my_outputs = [&](const auto &work) {
        for (uint32_t query = warp; query < QUERIES; query += warps)
            for (uint32_t element = 4 * lane; element < head_dim; element += 4 * WARP) work(query, element);
    };
    for_my_outputs([&](uint32_t query, uint32_t element) {
        float most, all, sum[4];
        combine<8>(warp_parts, warps, query, element, head_dim, most, all, sum);
        if (splits == 1) {
            write_out(query, element, all, sum);
            return;
        }
        const uint32_t row = split * QUERIES + query;
        if (element == 0) {
            block_parts.largest[row] = most;
            block_parts.weight[row] = all;
        }
        *reinterpret_cast<Bytes16 *>(block_parts.sum + uint64_t(row) * head_dim + element) =
            Bytes16{bits_of_float(sum[0]), bits_of_float(sum[1]), bits_of_float(sum[2]), bits_of_float(sum[3])};
    });
    if (splits == 1) return;

    // Whose warp is the last of the head finds all parts written.
    __syncwarp();
    if (lane == 0 && add_in_order(&counters[team], 1) == splits * warps - 1) {
        counters[team] = 0; // for the next launch
        *last = 1;
    }
    __syncthreads(); // the flag is said
    if (*last == 0) return;
    for_my_outputs([&](uint32_t query, uint32_t element) {
        float most, all, sum[4];
        combine<16>(block_parts, splits, query, element, head_dim, most, all, sum);
        write_out(query, element, all, sum);
    });
}

} // namespace

#define GATED_ATTENTION(suffix, Number, WIDE)                                                                            \
    KERNEL(MOST_THREADS, gated_attention_##suffix##_##WIDE,                                                              \
           (const void *queries_0, const void *keys_0, const void *values_0, uint32_t count_0, float scale_0,            \
            const void *queries_1, const void *keys_1, const void *values_1, uint32_t count_1, float scale_1,            \
            const void *queries_2, const void *keys_2, const void *values_2, uint32_t count_2, float scale_2,            \
            uint32_t rows, uint32_t head_dim, uint32_t query_stride, uint32_t bf16, const float *cosines,                \
            const float *sines, void *out, float *workspace, uint32_t *counters)) {                                      \
        const Group groups[GROUPS] = {{queries_0, keys_0, values_0, count_0, scale_0},                                   \
                                      {queries_1, keys_1, values_1, count_1, scale_1},                                   \
                                      {queries_2, keys_2, values_2, count_2, scale_2}};                                  \
        attend<Number, WIDE>(groups, Shape{rows, head_dim, query_stride, bf16}, cosines, sines, out, workspace, counters); \
    }

// Heads up to 128 wide, and up to 256.
GATED_ATTENTION(bf16, Bf16, 2)
GATED_ATTENTION(bf16, Bf16, 4)
GATED_ATTENTION(f32, F32, 2)
GATED_ATTENTION(f32, F32, 4)
