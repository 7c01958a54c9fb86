// The whole action expert in one cooperative launch: every block of it, its queries, attention, output and feed-forward
// layers, as src/expert.cu and src/gated_attention.cu compute them.
//
// Bound by latency: 8.5 MB a block are two microseconds of memory, but its five steps hang on one another, and between two
// of them all multiprocessors tell each other 28 KB. So
// - numbers are handed over without barriers, in words that tell whether they have arrived (exchange.cuh), straight into
//   the registers that multiply them,
// - weights, keys and values of the next block's same step are copied to shared memory as soon as this block's are used:
//   every thread to places that only it reads, so that no barrier belongs to them,
// - every block of threads keeps the same features, and the trunk's own rows of them, from step to step.
//
// Steps: queries of all heads | parts of a head's keys | a head's parts combined | output layer and residual | LayerNorm,
// feed-forward layer, ReLU.

#include "../include/attention.cuh"
#include "../include/exchange.cuh"
#include "../include/matrix.cuh"
#include "../include/skinny.cuh"
#include "../include/expert_launch.cuh"

namespace {

// What a block of threads holds throughout. TILES: of eight features, those of an output or feed-forward layer that are
// prefetched and multiplied together; of the queries twice as many. ONCE: that is all that a block has, and a warp has one
// tile of keys at most, so nothing needs a loop.
template <int TILES, bool ONCE>
struct Worker {
    static constexpr uint32_t QUERY_SLOT = 0, OUT_SLOT = 2 * TILES * STEPS, FEED_SLOT = OUT_SLOT + TILES * STEPS;
    static constexpr uint32_t KEY_SLOT = FEED_SLOT + TILES * STEPS, VALUE_SLOT = KEY_SLOT + 2 * WIDE;
    static constexpr uint32_t SLOTS = VALUE_SLOT + 2 * WIDE;

    const Sizes &sizes;
    uint32_t warps, warp, lane, g, t, width;
    Bytes16 *slots;     // SLOTS a thread, each thread's own
    float *sums;        // twice TILES · 128 a warp
    float *own;         // the trunk's rows of this block's features, each thread's own
    Moments *moments;   // 8 a warp
    AttentionParts parts;
    uint32_t turn = 0;  // of `sums`, so that one barrier an exchange is enough
    bool present[STEPS];                         // whether there are inputs for this lane
    float count, inverse_count, inverse_width; // inputs that the warp has of a row

    __device__ __forceinline__ Worker(const Sizes &sizes, unsigned char *shared) : sizes(sizes) {
        warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        g = lane / 4, t = lane % 4, width = sizes.heads * sizes.head_dim;
        slots = reinterpret_cast<Bytes16 *>(shared);
        parts.sum = reinterpret_cast<float *>(slots + SLOTS * blockDim.x);
        parts.largest = parts.sum + sizes.most_parts * QUERIES * sizes.head_dim;
        parts.weight = parts.largest + sizes.most_parts * QUERIES;
        sums = parts.weight + sizes.most_parts * QUERIES;
        moments = reinterpret_cast<Moments *>(sums + 2 * warps * 2 * TILES * ROWS * FEATURES);
        own = reinterpret_cast<float *>(moments + warps * ROWS);
        count = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) {
            present[i] = input(i) < width;
            count += present[i] ? 8.0f : 0.0f;
        }
        count = sum_of_four_lanes(count);
        inverse_count = count > 0.0f ? 1.0f / count : 0.0f;
        inverse_width = 1.0f / float(width);
    }

    __device__ __forceinline__ Bytes16 *slot(uint32_t index) const { return slots + index * blockDim.x + threadIdx.x; }
    __device__ __forceinline__ uint32_t input(uint32_t step) const { return INPUTS * (warp + step * warps) + 8 * t; }

    // Starts copying the weights of the block's first features.
    template <int COUNT>
    __device__ __forceinline__ void prefetch_weights(uint32_t first_slot, const uint16_t *weights, const Range &range) const {
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++)
#pragma unroll
            for (uint32_t tile = 0; tile < COUNT; tile++) {
                const uint32_t feature = range.first + FEATURES * tile + g;
                copy_async(slot(first_slot + i * COUNT + tile), weights + feature * width + input(i),
                           present[i] && feature < range.end);
            }
    }

    // Rows that other blocks hand over, placed as `exchange_place` says.
    __device__ __forceinline__ void receive_rows(RowStep (&x)[STEPS], const float *from, uint32_t tag) const {
        const float *at[2 * STEPS];
        bool wanted[2 * STEPS];
        Bytes16 values[2 * STEPS];
#pragma unroll
        for (uint32_t i = 0; i < 2 * STEPS; i++) {
            at[i] = from + exchange_place(g, input(i / 2) + i % 2 * 4);
            wanted[i] = present[i / 2];
        }
        receive(values, at, wanted, tag);
#pragma unroll
        for (uint32_t i = 0; i < 8 * STEPS; i++) x[i / 8].element[i % 8] = float_of_bits(values[i / 4].word[i % 4]);
    }

    // Calls finish(index, row, feature, Σ x · weight) for every row and feature of the block's, in one thread each; `index`
    // counts a thread's. Weights of the first COUNT tiles come from the thread's slots.
    template <int COUNT, class Finish>
    __device__ __forceinline__ void multiply(const RowStep (&x)[STEPS], uint32_t first_slot, const uint16_t *weights,
                                             const Range &range, const Finish &finish) {
        uint32_t index = 0;
        for (uint32_t first = range.first; first < range.end; first += COUNT * FEATURES, index++) {
            float tile_sums[COUNT][4] = {};
#pragma unroll
            for (uint32_t i = 0; i < STEPS; i++) {
                WeightStep step[COUNT];
#pragma unroll
                for (uint32_t tile = 0; tile < COUNT; tile++) {
                    if (ONCE || index == 0)
                        step[tile].half[0] = *slot(first_slot + i * COUNT + tile);
                    else
                        step[tile] = load_weights(weights, width, first + FEATURES * tile + g, range.end, warp + i * warps);
                }
                multiply_step(tile_sums, x[i], step);
            }
            float *left = sums + turn * warps * 2 * TILES * ROWS * FEATURES;
            turn ^= 1u;
            leave_sums(left + warp * COUNT * ROWS * FEATURES, tile_sums);
            __syncthreads(); // the sums of all warps are there, and all have read what others handed over
            const uint32_t place = threadIdx.x % (ROWS * FEATURES);
            const uint32_t feature = first + threadIdx.x / (ROWS * FEATURES) * FEATURES + place % FEATURES;
            if (threadIdx.x < COUNT * ROWS * FEATURES && feature < range.end) {
                float total = 0.0f;
#pragma unroll
                for (uint32_t other = 0; other < MOST_WARPS; other++)
                    if (other < warps) total += left[other * COUNT * ROWS * FEATURES + threadIdx.x];
                finish(index, place / FEATURES, feature, total);
            }
            if (ONCE) break;
        }
    }

    // LayerNorm of rows that every warp has a part of.
    __device__ __forceinline__ void normalise_rows(RowStep (&x)[STEPS], const RowStep (&gains)[STEPS],
                                                   const RowStep (&shifts)[STEPS]) const {
        const Moments mine = moments_of(x, present, count, inverse_count);
        if (t == 0) moments[warp * ROWS + g] = mine;
        __syncthreads(); // the moments of all warps are there
        const Norm norm = norm_of<MOST_WARPS>(moments, warps, inverse_width, sizes.epsilon);
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) normalise(x[i], norm, gains[i], shifts[i]);
    }

    __device__ __forceinline__ void load_affine(RowStep (&gains)[STEPS], RowStep (&shifts)[STEPS], const float *gain,
                                                const float *shift) const {
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) {
            gains[i] = load_rows(gain, 1, width, 0, warp + i * warps);
            shifts[i] = load_rows(shift, 1, width, 0, warp + i * warps);
        }
    }
};

// Which keys tile `tile` of a layer's is: those of a group from `first` on.
struct TilePlace {
    uint32_t group, first;
};

__device__ __forceinline__ TilePlace place_of_tile(const Layer &layer, uint32_t tile) {
    const uint32_t before = (layer.counts[0] + KEYS - 1) / KEYS;
    return tile < before ? TilePlace{0, tile * KEYS} : TilePlace{1, (tile - before) * KEYS};
}

__device__ __forceinline__ uint32_t tiles_of(const Layer &layer) {
    return (layer.counts[0] + KEYS - 1) / KEYS + (layer.counts[1] + KEYS - 1) / KEYS;
}

template <int TILES, bool ONCE>
__device__ __forceinline__ void prefetch_keys(const Worker<TILES, ONCE> &worker, const Layer &layer, uint32_t item) {
    const Sizes &sizes = worker.sizes;
    const uint32_t tile = worker.warp * sizes.splits + item % sizes.splits;
    if (item >= sizes.heads * sizes.splits || tile >= tiles_of(layer)) return;
    const TilePlace at = place_of_tile(layer, tile);
    const uint32_t column = item / sizes.splits * sizes.head_dim, count = layer.counts[at.group];
    const uint16_t *keys = layer.keys[at.group] + column, *values = layer.values[at.group] + column;
#pragma unroll
    for (uint32_t s = 0; s < 2 * WIDE; s++) {
        const uint32_t dim = 32 * s + 8 * worker.t, key = at.first + worker.g;
        const bool present = dim < sizes.head_dim && key < count;
        copy_async(worker.slot(worker.KEY_SLOT + s), keys + uint64_t(key) * worker.width + dim, present);
    }
#pragma unroll
    for (uint32_t i = 0; i < 2 * WIDE; i++) {
        const uint32_t dim = WIDE_DIMS * (i / 2) + 8 * worker.g, key = at.first + 2 * worker.t + i % 2;
        const bool present = dim < sizes.head_dim && key < count;
        copy_async(worker.slot(worker.VALUE_SLOT + i), values + uint64_t(key) * worker.width + dim, present);
    }
}

// What one warp sees of part `item` of a head's keys; `first_item`: its first tile was prefetched.
template <int TILES, bool ONCE>
__device__ __forceinline__ void attend(const Worker<TILES, ONCE> &worker, const Layer &layer, uint32_t item, bool first_item,
                                       const float *queries, uint32_t tag, const float *cosines, const float *sines,
                                       Attended<WIDE> &attended) {
    const Sizes &sizes = worker.sizes;
    const uint32_t head_dim = sizes.head_dim, column = item / sizes.splits * head_dim, tiles = tiles_of(layer);
    const uint32_t first_tile = worker.warp * sizes.splits + item % sizes.splits;
    attended.clear();
    QueryTile<WIDE> query;
    uint32_t have = GROUPS;
    for (uint32_t tile = first_tile; tile < tiles; tile += sizes.splits * worker.warps) {
        const TilePlace at = place_of_tile(layer, tile);
        const uint32_t count = layer.counts[at.group];
        if (ONCE || have != at.group) {
            const float *from[4 * WIDE];
            bool wanted[4 * WIDE];
            Bytes16 got[4 * WIDE];
            const float *rows =
                queries + (item / sizes.splits * GROUPS + at.group) * QUERIES * whole_steps(head_dim);
#pragma unroll
            for (uint32_t i = 0; i < 4 * WIDE; i++) {
                const uint32_t dim = 32 * (i / 2) + 8 * worker.t;
                from[i] = rows + exchange_place(worker.g, dim + i % 2 * 4);
                wanted[i] = dim < head_dim;
            }
            receive(got, from, wanted, tag);
            RotaryTile<WIDE> table;
            table.load(cosines, sines, min(worker.g, sizes.rows - 1), head_dim);
#pragma unroll
            for (uint32_t i = 0; i < 16 * WIDE; i++)
                query.element[i / 8][i % 8] = float_of_bits(got[i / 4].word[i % 4]);
            query.turn(table);
            query.scale(layer.scales[at.group] * LOG2_E);
            have = at.group;
        }
        const bool fetched = ONCE || (first_item && tile == first_tile);
        KeyTile<Bf16, WIDE> keys;
        if (fetched) {
#pragma unroll
            for (uint32_t s = 0; s < 2 * WIDE; s++) keys.key[s].half[0] = *worker.slot(worker.KEY_SLOT + s);
        } else {
            keys.load(layer.keys[at.group] + column, worker.width, at.first, count, head_dim);
        }
        float first, second;
        attended.weigh(query, keys, min(KEYS, count - at.first), first, second);
#pragma unroll
        for (uint32_t w = 0; w < WIDE; w++) {
            ValueTile<Bf16> values;
            if (fetched) {
#pragma unroll
                for (uint32_t i = 0; i < 2; i++) values.value[i].half[0] = *worker.slot(worker.VALUE_SLOT + 2 * w + i);
            } else {
                values.load(layer.values[at.group] + column, worker.width, at.first, count, w, head_dim);
            }
            attended.add(attended.sum[w], values, first, second);
        }
        if (ONCE) break;
    }
}

// Combines a share of head `item / splits`'s elements from all parts: a part a lane, four elements at a time.
template <int TILES, bool ONCE>
__device__ __forceinline__ void combine_parts(const Worker<TILES, ONCE> &worker, const Exchange &exchange, uint32_t item,
                                              uint32_t tag) {
    const Sizes &sizes = worker.sizes;
    const uint32_t head = item / sizes.splits, fours = QUERIES * sizes.head_dim / 4;
    const uint32_t each = (fours + sizes.splits - 1) / sizes.splits, part = threadIdx.x % sizes.lanes;
    const uint32_t begin = item % sizes.splits * each, end = min(begin + each, fours);
    for (uint32_t round = begin; round < end; round += blockDim.x / sizes.lanes) {
        const uint32_t four = round + threadIdx.x / sizes.lanes;
        const bool mine = four < end && part < sizes.splits;
        const uint32_t query = four * 4 / sizes.head_dim, element = four * 4 % sizes.head_dim;
        const uint64_t row = (uint64_t(head) * sizes.splits + part) * QUERIES + query;
        const float *const from[2] = {exchange.part_scales + row * 4, exchange.parts + row * sizes.head_dim + element};
        const bool wanted[2] = {mine, mine};
        Bytes16 got[2];
        receive(got, from, wanted, tag);
        const float largest = mine ? float_of_bits(got[0].word[0]) : NOTHING;
        float most = largest;
        for (uint32_t step = 1; step < sizes.lanes; step *= 2) most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, step));
        const float by = exp2f(largest - most);
        float weight = by * float_of_bits(got[0].word[1]), sum[4];
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] = by * float_of_bits(got[1].word[i]);
        for (uint32_t step = 1; step < sizes.lanes; step *= 2) {
            weight += __shfl_xor_sync(WHOLE_WARP, weight, step);
#pragma unroll
            for (int i = 0; i < 4; i++) sum[i] += __shfl_xor_sync(WHOLE_WARP, sum[i], step);
        }
        const float inverse = 1.0f / weight;
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] *= inverse;
        if (mine && part == 0)
            store_strong(exchange.attended + exchange_place(query, head * sizes.head_dim + element), tagged_four(sum, tag));
    }
}

// `uses` counts the blocks of the expert that were ever computed with this exchange.
template <int TILES, bool ONCE>
__device__ __forceinline__ void run(const Sizes &sizes, const Layer *layers, const float *start, const float *cosines,
                                    const float *sines, const Layer &last, float *out, float *exchange_memory,
                                    uint32_t *uses) {
    SHARED_MEMORY(shared);
    Worker<TILES, ONCE> worker(sizes, shared);
    const uint32_t width = worker.width, g = worker.g, items = sizes.heads * sizes.splits;
    const uint32_t used = *uses;
    const Range query_range = features_of_block(2 * width), range = features_of_block(width);
    using W = Worker<TILES, ONCE>;

    if (sizes.layers > 0) {
        const Layer &layer = layers[0];
        worker.template prefetch_weights<2 * TILES>(W::QUERY_SLOT, layer.query_weights, query_range);
        copy_group();
        prefetch_keys(worker, layer, blockIdx.x);
        copy_group();
        worker.template prefetch_weights<TILES>(W::OUT_SLOT, layer.out_weights, range);
        copy_group();
        worker.template prefetch_weights<TILES>(W::FEED_SLOT, layer.feed_weights, range);
        copy_group();
    }
    // A bias of the first features, before anything is waited for.
    const uint32_t my_feature = threadIdx.x / (ROWS * FEATURES) * FEATURES + threadIdx.x % FEATURES;
    const auto first_bias = [&](const float *bias, const Range &of) {
        return of.first + my_feature < of.end ? bias[of.first + my_feature] : 0.0f;
    };
    // Where a query goes; that of the first features is worked out once, for it takes divisions.
    const auto place_of_query = [&](uint32_t row, uint32_t feature) {
        const uint32_t group = feature / width, column = feature % width;
        return (column / sizes.head_dim * GROUPS + group) * QUERIES * whole_steps(sizes.head_dim) +
               exchange_place(row, column % sizes.head_dim);
    };
    const uint32_t query_place =
        place_of_query(threadIdx.x % (ROWS * FEATURES) / FEATURES, query_range.first + my_feature);
    RowStep x[STEPS];
    for (uint32_t index = 0; index < sizes.layers; index++) {
        const Layer &layer = layers[index];
        const bool more = index + 1 < sizes.layers;
        const Layer &next = layers[more ? index + 1 : index];
        const uint32_t use = used + index, tag = tag_of(use);
        const Exchange exchange(exchange_memory, place_of(use), width, sizes);

        float bias = first_bias(layer.query_bias, query_range);
        if (index == 0) {
#pragma unroll
            for (uint32_t i = 0; i < STEPS; i++) x[i] = load_rows(start, sizes.rows, width, g, worker.warp + i * worker.warps);
        } else {
            const Exchange before(exchange_memory, place_of(use - 1), width, sizes);
            worker.receive_rows(x, before.trunk, tag_of(use - 1));
        }
        copy_wait<3>();
        worker.template multiply<2 * TILES>(
            x, W::QUERY_SLOT, layer.query_weights, query_range, [&](uint32_t i, uint32_t row, uint32_t feature, float sum) {
                sum += i == 0 ? bias : layer.query_bias[feature];
                store_strong(exchange.queries + (i == 0 ? query_place : place_of_query(row, feature)), tagged(sum, tag));
            });
        if (more) worker.template prefetch_weights<2 * TILES>(W::QUERY_SLOT, next.query_weights, query_range);
        copy_group();

        copy_wait<3>();
        for (uint32_t item = blockIdx.x; item < items; item += ONCE ? items : gridDim.x) {
            Attended<WIDE> attended;
            attend(worker, layer, item, item == blockIdx.x, exchange.queries, tag, cosines, sines, attended);
            const uint32_t split = item % sizes.splits, tiles = tiles_of(layer);
            const uint32_t parts = min(worker.warps, split < tiles ? (tiles - split - 1) / sizes.splits + 1 : 0);
            if (!ONCE && item != blockIdx.x) __syncthreads(); // the parts of the item before are combined
            if (worker.warp < parts) leave_part(worker.parts, worker.warp, attended, sizes.head_dim);
            __syncthreads(); // the parts of all warps are there
            // Warps take queries, lanes elements: nothing to divide.
            for (uint32_t query = worker.warp; query < QUERIES; query += worker.warps) {
                for (uint32_t element = 4 * worker.lane; element < sizes.head_dim; element += 4 * WARP) {
                    float most, weight, sum[4];
                    combine<8>(worker.parts, parts, query, element, sizes.head_dim, most, weight, sum);
                    const uint64_t row = uint64_t(item) * QUERIES + query;
                    const float scales[4] = {most, weight, 0.0f, 0.0f};
                    if (element == 0) store_strong(exchange.part_scales + row * 4, tagged_four(scales, tag));
                    store_strong(exchange.parts + row * sizes.head_dim + element, tagged_four(sum, tag));
                }
            }
        }
        if (more) prefetch_keys(worker, next, blockIdx.x);
        copy_group();
        for (uint32_t item = blockIdx.x; item < items; item += ONCE ? items : gridDim.x) combine_parts(worker, exchange, item, tag);

        bias = first_bias(layer.out_bias, range);
        worker.receive_rows(x, exchange.attended, tag);
        copy_wait<3>();
        worker.template multiply<TILES>(
            x, W::OUT_SLOT, layer.out_weights, range, [&](uint32_t i, uint32_t row, uint32_t feature, float sum) {
                sum += i == 0 ? bias : layer.out_bias[feature];
                if (index > 0)
                    sum += worker.own[i * blockDim.x + threadIdx.x];
                else if (row < sizes.rows)
                    sum += start[uint64_t(row) * width + feature];
                store_strong(exchange.sums + exchange_place(row, feature), tagged(sum, tag));
            });
        if (more) worker.template prefetch_weights<TILES>(W::OUT_SLOT, next.out_weights, range);
        copy_group();

        bias = first_bias(layer.feed_bias, range);
        RowStep gains[STEPS], shifts[STEPS];
        worker.load_affine(gains, shifts, layer.gain, layer.shift);
        worker.receive_rows(x, exchange.sums, tag);
        worker.normalise_rows(x, gains, shifts);
        copy_wait<3>();
        worker.template multiply<TILES>(
            x, W::FEED_SLOT, layer.feed_weights, range, [&](uint32_t i, uint32_t row, uint32_t feature, float sum) {
                sum = fmaxf(sum + (i == 0 ? bias : layer.feed_bias[feature]), 0.0f);
                worker.own[i * blockDim.x + threadIdx.x] = sum;
                store_strong(exchange.trunk + exchange_place(row, feature), tagged(sum, tag));
            });
        if (more) worker.template prefetch_weights<TILES>(W::FEED_SLOT, next.feed_weights, range);
        copy_group();
    }

    const Range action_range = features_of_block(sizes.actions);
    if (action_range.first == action_range.end) return;
    worker.template prefetch_weights<TILES>(W::OUT_SLOT, last.out_weights, action_range);
    copy_group();
    RowStep gains[STEPS], shifts[STEPS];
    worker.load_affine(gains, shifts, last.gain, last.shift);
    if (sizes.layers > 0) {
        const uint32_t use = used + sizes.layers - 1;
        worker.receive_rows(x, Exchange(exchange_memory, place_of(use), width, sizes).trunk, tag_of(use));
    } else {
#pragma unroll
        for (uint32_t i = 0; i < STEPS; i++) x[i] = load_rows(start, sizes.rows, width, g, worker.warp + i * worker.warps);
    }
    worker.normalise_rows(x, gains, shifts);
    copy_wait<0>();
    worker.template multiply<TILES>(x, W::OUT_SLOT, last.out_weights, action_range,
                                    [&](uint32_t, uint32_t row, uint32_t feature, float sum) {
                                        if (row < sizes.rows)
                                            out[uint64_t(row) * sizes.actions + feature] = sum + last.out_bias[feature];
                                    });
    // Every block has handed over the last trunk, so each knows `used`.
    if (blockIdx.x == 0 && threadIdx.x == 0) *uses = used + sizes.layers;
}

} // namespace

// At least TILES · 128 threads.
#define EXPERT_PERSISTENT(name, TILES, ONCE)                                                                             \
    KERNEL(MOST_THREADS, name,                                                                                           \
           (const Layer *layers, uint32_t layer_count, const float *start, const float *cosines, const float *sines,     \
            const float *gain, const float *shift, const uint16_t *weights, const float *bias, float *out,               \
            float *exchange, uint32_t *uses, uint32_t rows, uint32_t heads, uint32_t head_dim, uint32_t actions,         \
            uint32_t splits, uint32_t lanes, uint32_t most_parts, float epsilon)) {                                      \
        const Sizes sizes = {rows, heads, head_dim, layer_count, actions, splits, lanes, most_parts, epsilon};           \
        Layer last = {};                                                                                                 \
        last.out_weights = weights, last.out_bias = bias, last.gain = gain, last.shift = shift;                          \
        run<TILES, ONCE>(sizes, layers, start, cosines, sines, last, out, exchange, uses);                               \
    }

EXPERT_PERSISTENT(expert_persistent_once, 1, true)
EXPERT_PERSISTENT(expert_persistent_loop, 1, false)
