// The K-th largest |τ| of every expert, exactly, without sorting: counts of magnitudes (as integers, magnitude.cuh) in an
// interval that narrows.
//
// A sample of the elements guesses an interval of few magnitudes that should hold the K-th largest; one sweep over
// everything then only compares, and counts the few elements that lie within. Where the sample misled, or magnitudes are
// too many for the bins (f32), later sweeps go on with what is left; blocks whose search has ended return at once. All is
// decided on the device, so that the sweeps are asked for together.
//
// Bound by memory: T bytes an element and expert a sweep; one sweep, mostly, of bf16 and f16, two of f32.

#include "../include/magnitude.cuh"
#include "../include/pieces.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t ROUNDS = 4;
constexpr uint64_t CHUNK = uint64_t(THREADS) * ROUNDS * 8;
constexpr uint32_t BINS = 8192;

// One tensor.
struct ThresholdPiece {
    uint64_t numel;
    uint64_t first_tile; // chunks of the pieces before it
};

// Smallest shift that lets an interval have few enough bins.
__device__ __forceinline__ uint32_t shift_for(uint32_t low, uint32_t high) {
    uint32_t shift = 0;
    while ((high - low - 1) >> shift >= BINS) shift++;
    return shift;
}

// Adds every `stride`-th chunk of the pieces to the counts of the searches: `above` those at or over the interval, `bins`
// those within. Blocks in y are experts.
template <class Number>
__device__ __forceinline__ void count(const ThresholdPiece *pieces, uint32_t piece_count, const void *const *vectors,
                                      uint32_t per_piece, const Search *searches, unsigned long long *above,
                                      unsigned long long *bins, uint32_t stride, uint64_t chunk_count) {
    using Stored = typename Number::Stored;
    SHARED_MEMORY(shared);
    unsigned int *own_bins = reinterpret_cast<unsigned int *>(shared);
    const uint32_t experts = gridDim.y, expert = blockIdx.y;
    uint32_t current = 0xffffffffu, bin_count = 0;
    uint64_t own_above = 0;
    Search search = {};

    // Hands over what was counted for the current search.
    auto flush = [&] {
        __syncthreads();
        for (uint32_t bin = threadIdx.x; bin < bin_count; bin += THREADS)
            if (own_bins[bin] != 0)
                atomicAdd(&bins[uint64_t(current) * BINS + bin], static_cast<unsigned long long>(own_bins[bin]));
        for (uint32_t step = WARP / 2; step > 0; step /= 2) own_above += __shfl_xor_sync(WHOLE_WARP, own_above, step);
        if (threadIdx.x % WARP == 0 && own_above != 0)
            atomicAdd(&above[current], static_cast<unsigned long long>(own_above));
        own_above = 0;
    };

    for (uint64_t chunk = uint64_t(blockIdx.x) * stride; chunk < chunk_count; chunk += uint64_t(gridDim.x) * stride) {
        const uint32_t index = piece_of_tile(pieces, piece_count, chunk);
        const ThresholdPiece piece = pieces[index];
        const uint32_t wanted = per_piece ? index * experts + expert : expert;
        if (wanted != current) {
            if (bin_count != 0) flush();
            current = wanted;
            search = searches[current];
            bin_count = search.found ? 0 : ((search.high - search.low - 1) >> search.shift) + 1;
            // No barrier before: a thread sets those to zero that it handed over itself.
            for (uint32_t bin = threadIdx.x; bin < bin_count; bin += THREADS) own_bins[bin] = 0;
            __syncthreads();
        }
        if (bin_count == 0) {
            if (!per_piece) return;
            continue;
        }
        const Stored *vector = static_cast<const Stored *>(vectors[uint64_t(index) * experts + expert]);
        const uint64_t first = (chunk - piece.first_tile) * CHUNK + threadIdx.x * 8;
        Eight<Number> eights[ROUNDS];
#pragma unroll
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint64_t at = first + uint64_t(round) * THREADS * 8;
            if (at < piece.numel) eights[round] = load_eight<Number>(vector, at, piece.numel);
        }
#pragma unroll
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint64_t at = first + uint64_t(round) * THREADS * 8;
            if (at >= piece.numel) continue;
            uint32_t keys[8];
            magnitudes<Number>(eights[round], keys);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (at + i >= piece.numel) continue;
                own_above += keys[i] >= search.high;
                if (keys[i] >= search.low && keys[i] < search.high)
                    atomicAdd(&own_bins[(keys[i] - search.low) >> search.shift], 1u);
            }
        }
    }
    if (bin_count != 0) flush();
}

// Draws the conclusion from the counts of one search (a block each), and leaves them zero. `sampled`: they are of a sample.
__device__ __forceinline__ void narrow(Search *searches, unsigned long long *above, unsigned long long *bins,
                                       uint32_t per_piece, uint32_t full, uint32_t sampled) {
    constexpr uint32_t EACH = BINS / THREADS;
    SHARED_MEMORY(shared);
    uint64_t *sums = reinterpret_cast<uint64_t *>(shared); // of each thread's bins
    Search search = searches[blockIdx.x];
    if (search.found) return;
    unsigned long long *mine = bins + uint64_t(blockIdx.x) * BINS;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < EACH; i++) sum += mine[threadIdx.x * EACH + i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint64_t total = above[blockIdx.x];
        for (uint32_t i = 0; i < THREADS; i++) total += sums[i];
        // From the top down: the bin in which the count reaches `target`, and the count before it. BINS: not reached.
        auto reach = [&](uint64_t target, uint64_t &before) {
            before = above[blockIdx.x];
            for (uint32_t group = THREADS; group-- > 0;) {
                if (before + sums[group] < target) {
                    before += sums[group];
                    continue;
                }
                for (uint32_t bin = (group + 1) * EACH; bin-- > group * EACH;) {
                    if (before + mine[bin] >= target) return bin;
                    before += mine[bin];
                }
            }
            return BINS;
        };
        const uint32_t low = search.low, high = search.high, shift = search.shift;
        uint64_t before;
        if (sampled) {
            // Five standard deviations to both sides of where the sample has its K-th largest.
            const double share = double(search.rank) / double(search.numel);
            const double margin = 5.0 * sqrt(double(total) * share * (1.0 - share)) + 2.0;
            const double middle = double(total) * share;
            const uint32_t lowest = reach(uint64_t(middle + margin) + 1, before);
            const uint32_t highest = middle - margin < 1.0 ? BINS : reach(uint64_t(middle - margin), before);
            if (lowest != BINS) search.low = low + (lowest << shift);
            if (highest != BINS) search.high = min(high, low + ((highest + 1) << shift));
        } else if (search.rank <= above[blockIdx.x]) {
            search.low = high; // all that is looked for lies over the interval
            search.high = full;
        } else if (search.rank > total) {
            search.high = low; // or under it
            search.low = 0;
        } else {
            const uint32_t bin = reach(search.rank, before);
            search.low = low + (bin << shift);
            search.high = min(high, search.low + (1u << shift));
            if (shift == 0) {
                search.found = 1;
                search.threshold.key = search.low;
                const uint64_t rank = search.rank - before, equal = mine[bin];
                search.threshold.below = per_piece && rank < equal
                                             ? uint64_t(double(rank) / double(equal) * 4294967296.0)
                                             : uint64_t(1) << 32;
            }
        }
        search.shift = shift_for(search.low, search.high);
        searches[blockIdx.x] = search;
    }
    __syncthreads();
    for (uint32_t i = 0; i < EACH; i++) mine[threadIdx.x * EACH + i] = 0;
    if (threadIdx.x == 0) above[blockIdx.x] = 0;
}

} // namespace

#define COUNT(suffix, Number)                                                                                            \
    KERNEL(THREADS, thresholds_count_##suffix,                                                                           \
           (const ThresholdPiece *pieces, uint32_t piece_count, const void *const *vectors, uint32_t per_piece,          \
            const Search *searches, unsigned long long *above, unsigned long long *bins, uint32_t stride,                \
            uint64_t chunk_count)) {                                                                                     \
        count<Number>(pieces, piece_count, vectors, per_piece, searches, above, bins, stride, chunk_count);              \
    }

COUNT(bf16, Bf16)
COUNT(f16, F16)
COUNT(f32, F32)

KERNEL(THREADS, thresholds_narrow,
       (Search * searches, unsigned long long *above, unsigned long long *bins, uint32_t per_piece, uint32_t full,
        uint32_t sampled)) {
    narrow(searches, above, bins, per_piece, full, sampled);
}
