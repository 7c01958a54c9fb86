// The K-th largest magnitude of every expert's task vector, exactly, over each tensor or over all of them.
//
// Magnitudes compare like their bits. `sample` counts the upper bits of a few entries; `guess` takes from these an interval
// that most likely holds the threshold. `count` then counts what lies above the interval, and what lies in it by bins, each in
// two halves: entries that equal the bin's lower edge, and the rest. Among the former `narrow` has found the threshold (values
// of 16 bits have so few magnitudes that it is always there); among the rest it makes the bin the next interval, and `count`
// runs again. A guess that missed is followed by the interval of all magnitudes. Nothing waits for the host: passes that find
// nothing left to do return at once.
//
// Bound by memory: a pass reads each expert once, T bytes an entry. Because the interval is narrow, nearly every entry takes
// two comparisons in registers and touches no table. With `bases` the experts are weights, and Θ₀ is subtracted first.

#include "../include/pieces.cuh"
#include "../include/searches.cuh"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t SAMPLE_SHIFT = 18; // exponent and five bits of mantissa
constexpr uint32_t SAMPLE_BINS = 1u << (31 - SAMPLE_SHIFT);
constexpr uint32_t SAMPLE_GROUPS = 4096; // of eight entries each, that a block looks at
constexpr uint32_t INTERVAL_BITS = 9;
constexpr uint32_t HALVES = 2u << INTERVAL_BITS;
constexpr uint32_t ROUNDS = 4; // groups of eight entries that a thread loads at once
constexpr uint64_t CHUNK = 1u << 17; // entries that a block counts
constexpr double DOUBT = 8.0; // standard deviations of a sample's rank that a guess allows for
constexpr uint32_t ALL_WIDTH = 0x80000000u;

using Count = unsigned long long; // what CUDA's atomics take

// One tensor. Arrays begin on 16 bytes.
struct SearchPiece {
    const void *base; // Θ₀ where the experts are weights, else null
    uint64_t numel;
    uint64_t first_tile; // tiles of the pieces before it; a tile is for one expert after the other
    uint64_t scope; // its searches are searches[scope · experts …]
    uint64_t stride; // one group of so many makes the sample
};

// What a block works on.
struct Part {
    SearchPiece piece;
    const void *vector;
    uint64_t tile; // within the piece
    uint64_t search;
};

__device__ __forceinline__ Part part_of_block(const SearchPiece *pieces, uint32_t piece_count, const void *const *experts,
                                              uint32_t expert_count) {
    Part part;
    const uint64_t tile = blockIdx.x / expert_count;
    const uint32_t expert = blockIdx.x % expert_count; // experts of a tile one after the other: Θ₀ stays in the cache
    const uint32_t index = piece_of_tile(pieces, piece_count, tile);
    part.piece = pieces[index];
    part.vector = experts[uint64_t(index) * expert_count + expert];
    part.tile = tile - part.piece.first_tile;
    part.search = part.piece.scope * expert_count + expert;
    return part;
}

// Eight entries of the task vector as they are, from memory.
template <class Number>
struct Entries {
    Eight<Number> vector, base;

    __device__ __forceinline__ void load(const Part &part, uint64_t at) {
        using Stored = typename Number::Stored;
        vector = load_eight<Number>(static_cast<const Stored *>(part.vector), at, part.piece.numel);
        if (part.piece.base) base = load_eight<Number>(static_cast<const Stored *>(part.piece.base), at, part.piece.numel);
    }

    __device__ __forceinline__ void magnitudes(const Part &part, uint32_t (&bits)[8]) const {
        float values[8];
        vector.widen(values);
        if (part.piece.base) {
            float theta[8];
            base.widen(theta);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] -= theta[i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) bits[i] = magnitude_bits(values[i]);
    }
};

template <class Number>
__device__ __forceinline__ void sample(const SearchPiece *pieces, uint32_t piece_count, const void *const *experts,
                                       uint32_t expert_count, const Search *searches, uint32_t *tables) {
    SHARED_MEMORY(shared);
    uint32_t *bins = reinterpret_cast<uint32_t *>(shared);
    const Part part = part_of_block(pieces, piece_count, experts, expert_count);
    if (!searches[part.search].sought) return;
    for (uint32_t bin = threadIdx.x; bin < SAMPLE_BINS; bin += THREADS) bins[bin] = 0;
    __syncthreads();
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < SAMPLE_GROUPS; i += THREADS) {
        const uint64_t at = (part.tile * SAMPLE_GROUPS + i) * part.piece.stride * 8;
        if (at >= part.piece.numel) break;
        Entries<Number> entries;
        entries.load(part, at);
        uint32_t bits[8];
        entries.magnitudes(part, bits);
#pragma unroll
        for (int j = 0; j < 8; j++)
            if (at + j < part.piece.numel) atomicAdd(&bins[bits[j] >> SAMPLE_SHIFT], 1u);
    }
    __syncthreads();
    uint32_t *table = tables + part.search * SAMPLE_BINS;
    for (uint32_t bin = threadIdx.x; bin < SAMPLE_BINS; bin += THREADS)
        if (bins[bin]) atomicAdd(&table[bin], bins[bin]);
}

// Element `index` of an array that must stay in registers.
__device__ __forceinline__ uint32_t pick(const uint32_t (&values)[8], uint32_t index) {
    uint32_t quarter[4], half[2];
#pragma unroll
    for (int i = 0; i < 4; i++) quarter[i] = index & 1u ? values[2 * i + 1] : values[2 * i];
#pragma unroll
    for (int i = 0; i < 2; i++) half[i] = index & 2u ? quarter[2 * i + 1] : quarter[2 * i];
    return index & 4u ? half[1] : half[0];
}

// Eight entries beside an interval: which of them lie within, and where in it.
template <class Number>
struct Beside {
    uint32_t places[8], within; // bit i: entry i

    // Adds those above to `above`, the sum of its halves.
    __device__ __forceinline__ void look(const Entries<Number> &entries, const Part &part, const Search &search,
                                         uint32_t &above) {
        entries.magnitudes(part, places);
        within = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            places[i] -= search.low;
            // Magnitudes have 31 bits, so that a place below the interval is negative.
            if (int32_t(places[i]) >= 0 && places[i] >= search.width) above++;
            if (places[i] < search.width) within |= 1u << i;
        }
    }
    __device__ __forceinline__ void keep_first(uint32_t count) { within &= (1u << count) - 1; }
    // Takes one out.
    __device__ __forceinline__ uint32_t next_place(const Search &) {
        const uint32_t place = pick(places, uint32_t(__ffs(int(within))) - 1);
        within &= within - 1;
        return place;
    }
};

// The same for bf16 as it is stored, two entries in each word. An interval of bf16 begins and ends on whole bf16 numbers.
struct BesideBf16 {
    uint32_t words[4], within; // bit j: entry 2j; bit 16 + j: entry 2j + 1

    __device__ __forceinline__ void look(const Entries<Bf16> &entries, const Part &, const Search &search, uint32_t &above) {
        // What carries a magnitude that is not smaller than the end into bit 15, in both halves.
        const uint32_t from_low = (0x8000u - (search.low >> 16)) * 0x10001u;
        const uint32_t from_end = (0x8000u - ((search.low + search.width) >> 16)) * 0x10001u;
        within = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            words[j] = entries.vector.half[0].word[j] & 0x7fff7fffu;
            const uint32_t at_least_low = words[j] + from_low, at_least_end = words[j] + from_end;
            above += at_least_end >> 15 & 0x10001u;
            within |= (at_least_low & ~at_least_end & 0x80008000u) >> (15 - j);
        }
    }
    __device__ __forceinline__ void keep_first(uint32_t count) {
        within &= ((1u << (count + 1) / 2) - 1) | ((1u << count / 2) - 1) << 16;
    }
    __device__ __forceinline__ uint32_t next_place(const Search &search) {
        const uint32_t bit = uint32_t(__ffs(int(within))) - 1;
        within &= within - 1;
        const uint32_t low = bit & 1u ? words[1] : words[0], high = bit & 1u ? words[3] : words[2];
        const uint32_t word = bit & 2u ? high : low;
        return (bit & 16u ? word & 0xffff0000u : word << 16) - search.low;
    }
};

// Counts a thread's entries of a chunk: those within into `halves`, those above are the result.
template <class Number, class Looking>
__device__ __forceinline__ uint32_t count_chunk(const Part &part, const Search &search, uint32_t *halves) {
    const uint64_t begin = part.tile * CHUNK + threadIdx.x * 8;
    const uint64_t end = min(part.piece.numel, (part.tile + 1) * CHUNK);
    const uint32_t rest = (1u << search.shift) - 1;
    uint32_t above = 0;
#pragma unroll 1
    for (uint64_t start = begin; start < end; start += THREADS * ROUNDS * 8) {
        Entries<Number> entries[ROUNDS];
#pragma unroll
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint64_t at = start + uint64_t(round) * THREADS * 8;
            if (at < end) entries[round].load(part, at);
        }
#pragma unroll
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const uint64_t at = start + uint64_t(round) * THREADS * 8;
            if (at >= end) break;
            Looking beside;
            beside.look(entries[round], part, search, above);
            // Zeros stand for what lies past the end, and are below or within, never above.
            if (at + 8 > end) beside.keep_first(uint32_t(end - at));
            while (beside.within) {
                const uint32_t place = beside.next_place(search);
                atomicAdd(&halves[(place >> search.shift) * 2 + ((place & rest) != 0)], 1u);
            }
        }
    }
    return (above & 0xffffu) + (above >> 16); // neither half reaches 2^16 in a chunk
}

template <class Number>
__device__ __forceinline__ uint32_t count_entries(const Part &part, const Search &search, uint32_t *halves) {
    return count_chunk<Number, Beside<Number>>(part, search, halves);
}
template <>
__device__ __forceinline__ uint32_t count_entries<Bf16>(const Part &part, const Search &search, uint32_t *halves) {
    if (part.piece.base) return count_chunk<Bf16, Beside<Bf16>>(part, search, halves);
    return count_chunk<Bf16, BesideBf16>(part, search, halves);
}

template <class Number>
__device__ __forceinline__ void count(const SearchPiece *pieces, uint32_t piece_count, const void *const *experts,
                                      uint32_t expert_count, const Search *searches, Count *tables) {
    SHARED_MEMORY(shared);
    uint32_t *halves = reinterpret_cast<uint32_t *>(shared); // and behind them how many lie above
    const Part part = part_of_block(pieces, piece_count, experts, expert_count);
    const Search search = searches[part.search];
    if (!search.open) return;
    for (uint32_t half = threadIdx.x; half <= HALVES; half += THREADS) halves[half] = 0;
    __syncthreads();
    uint32_t above = count_entries<Number>(part, search, halves);
    for (uint32_t step = WARP / 2; step > 0; step /= 2) above += __shfl_xor_sync(WHOLE_WARP, above, step);
    if (threadIdx.x % WARP == 0) atomicAdd(&halves[HALVES], above);
    __syncthreads();
    Count *table = tables + part.search * (HALVES + 1);
    for (uint32_t half = threadIdx.x; half <= HALVES; half += THREADS)
        if (halves[half]) atomicAdd(&table[half], Count(halves[half]));
}

// Where a rank lies in a table.
struct Place {
    uint32_t bin; // NO_BIN: nowhere
    Count rank; // within the bin, from above, 1 is the largest
    Count count; // entries in the bin
};
constexpr uint32_t NO_BIN = 0xffffffffu;

// A table of BINS counts in the hands of a block: each thread has neighbouring ones.
template <class Number, uint32_t BINS>
struct Table {
    static constexpr uint32_t EACH = BINS / THREADS;
    Number own[EACH];
    Count sum;

    // Takes the thread's bins, and leaves zeros for the next time. `sums` is complete after a barrier.
    __device__ __forceinline__ void take(Number *table, Count *sums) {
        sum = 0;
#pragma unroll
        for (uint32_t i = 0; i < EACH; i++) {
            own[i] = table[threadIdx.x * EACH + i];
            table[threadIdx.x * EACH + i] = 0;
            sum += own[i];
        }
        sums[threadIdx.x] = sum;
    }

    // The thread in whose bins the `rank`-th entry from above lies says so.
    __device__ __forceinline__ void find(Count above, Count rank, Place *place) const {
        if (rank <= above || rank > above + sum) return;
        rank -= above;
        bool found = false;
#pragma unroll
        for (int i = EACH - 1; i >= 0; i--) {
            if (found) continue;
            found = rank <= own[i];
            if (found)
                *place = Place{threadIdx.x * EACH + i, rank, own[i]};
            else
                rank -= own[i];
        }
    }
};

// Entries in the bins of the threads after this one.
__device__ __forceinline__ Count sum_after(const Count *sums) {
    Count after = 0;
    for (uint32_t i = threadIdx.x + 1; i < THREADS; i++) after += sums[i];
    return after;
}

__device__ __forceinline__ void search_in(Search *search, uint32_t low, uint32_t width) {
    search->low = low;
    search->width = width;
    // The fewest bits that 2^INTERVAL_BITS bins of them reach over the interval.
    const uint32_t bits = 32 - uint32_t(__clz(width - 1));
    search->shift = bits > INTERVAL_BITS ? bits - INTERVAL_BITS : 0;
}

__device__ __forceinline__ void search_everywhere(Search *search) {
    search_in(search, 0, ALL_WIDTH);
    search->unguided++;
}

// How many entries are kept. A tensor keeps ⌊density · n⌋ but at least one, a whole task vector ⌊density · n⌋ + 1.
__device__ __forceinline__ Count wanted(const Search &search) {
    const double share = floor(search.density * double(search.numel));
    return search.global ? Count(share) + 1 : Count(share < 1.0 ? 1.0 : share);
}

} // namespace

#define SAMPLE(suffix, Number)                                                                                              \
    KERNEL(THREADS, threshold_sample_##suffix,                                                                              \
           (const SearchPiece *pieces, uint32_t piece_count, const void *const *experts, uint32_t expert_count,            \
            const Search *searches, uint32_t *tables)) {                                                                    \
        sample<Number>(pieces, piece_count, experts, expert_count, searches, tables);                                       \
    }

#define COUNT(suffix, Number)                                                                                               \
    KERNEL(THREADS, threshold_count_##suffix,                                                                               \
           (const SearchPiece *pieces, uint32_t piece_count, const void *const *experts, uint32_t expert_count,            \
            const Search *searches, unsigned long long *tables)) {                                                          \
        count<Number>(pieces, piece_count, experts, expert_count, searches, tables);                                        \
    }

SAMPLE(bf16, Bf16)
SAMPLE(f16, F16)
SAMPLE(f32, F32)
COUNT(bf16, Bf16)
COUNT(f16, F16)
COUNT(f32, F32)

// A block a search: where the sample puts the threshold.
KERNEL(THREADS, threshold_guess, (Search *searches, uint32_t *tables)) {
    SHARED_MEMORY(shared);
    Count *sums = reinterpret_cast<Count *>(shared);
    Place *places = reinterpret_cast<Place *>(sums + THREADS); // upper and lower end
    Search *search = searches + blockIdx.x;
    if (!search->sought) return;
    Table<uint32_t, SAMPLE_BINS> table;
    table.take(tables + uint64_t(blockIdx.x) * SAMPLE_BINS, sums);
    if (threadIdx.x < 2) places[threadIdx.x].bin = NO_BIN;
    __syncthreads();
    const Count after = sum_after(sums);
    Count all = 0;
    for (uint32_t i = 0; i < THREADS; i++) all += sums[i];
    const double sampled = double(all), rank = search->density * sampled;
    const double doubt = DOUBT * sqrt(sampled * search->density * (1.0 - search->density)) + 1.0;
    const double high = rank - doubt, low = rank + doubt;
    table.find(after, high < 1.0 ? 1 : Count(high), &places[0]);
    table.find(after, low > sampled ? all : Count(low), &places[1]);
    __syncthreads();
    if (threadIdx.x > 0) return;
    search->open = 1;
    search->sampled = all;
    if (places[0].bin == NO_BIN || places[1].bin == NO_BIN)
        search_everywhere(search);
    else
        search_in(search, places[1].bin << SAMPLE_SHIFT, (places[0].bin + 1 - places[1].bin) << SAMPLE_SHIFT);
}

// A block a search: what the counts say.
KERNEL(THREADS, threshold_narrow, (Search *searches, unsigned long long *tables)) {
    SHARED_MEMORY(shared);
    Count *sums = reinterpret_cast<Count *>(shared);
    Place *found = reinterpret_cast<Place *>(sums + THREADS);
    Search *search = searches + blockIdx.x;
    if (!search->open) return;
    Count *counts = tables + uint64_t(blockIdx.x) * (HALVES + 1);
    Table<Count, HALVES> table;
    table.take(counts, sums);
    if (threadIdx.x == 0) found->bin = NO_BIN;
    __syncthreads();
    table.find(sum_after(sums) + counts[HALVES], wanted(*search), found);
    __syncthreads();
    if (threadIdx.x > 0) return;
    counts[HALVES] = 0;
    search->passes++;
    if (found->bin == NO_BIN) {
        search_everywhere(search);
        return;
    }
    const uint32_t low = search->low + (found->bin / 2 << search->shift);
    if (found->bin % 2) {
        search_in(search, low, 1u << search->shift);
        return;
    }
    search->open = 0;
    search->magnitude = float_of_bits(low);
    search->all_equal = search->global || found->rank == found->count;
    // Of equals as many as there is room for, chosen by their place.
    search->equal_below = uint32_t(double(found->rank) / double(found->count) * 4294967296.0);
}
