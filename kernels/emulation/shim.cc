// The fibers behind shim.h, and the few functions that Rust calls.

#include "shim.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <ucontext.h>
#include <vector>

namespace emulation {
namespace {

constexpr size_t STACK_BYTES = 128 * 1024;
constexpr size_t WARP_SIZE = 32;
constexpr unsigned char POISON = 0xff; // NaN in every float format
constexpr unsigned MOST_IDLE_ROUNDS = 64;

struct Kernel {
    unsigned threads;
    size_t parameters;
    std::function<void(void **)> call;
};

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

enum class Wait { Nothing, Block, Named, Warp, Grid, Done };

struct Block;

struct Fiber {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
    Position position;
    Block *block = nullptr;
    unsigned index = 0; // in the block
    Wait wait = Wait::Nothing;
    unsigned mask = 0; // of the warp barrier it waits at
    unsigned barrier = 0, barrier_threads = 0; // the named barrier it waits at
    unsigned exchanges = 0; // of its whole warp
};

struct Block {
    std::vector<Fiber *> fibers;
    std::vector<unsigned char> shared;
    unsigned char *aligned = nullptr;
    // What each lane of each warp left, for the exchanges of whole warps twice: a fast lane may already leave the next
    // value while a slow one reads.
    std::vector<uint64_t> slots;
};

struct Run {
    ucontext_t scheduler;
    Fiber *current = nullptr;
    std::mt19937_64 random;
    const Kernel *kernel = nullptr;
    void **arguments = nullptr;
    int dropped_line = 0;
    size_t pauses = 0; // times that a thread looked in vain, in this round
    std::set<int> lines;
};

thread_local Run *run = nullptr;
thread_local std::vector<std::unique_ptr<Fiber>> idle;

void suspend(Wait wait) {
    Fiber *self = run->current;
    self->wait = wait;
    swapcontext(&self->context, &run->scheduler);
}

void enter() {
    run->kernel->call(run->arguments);
    run->current->wait = Wait::Done;
    swapcontext(&run->current->context, &run->scheduler);
}

std::unique_ptr<Fiber> new_fiber() {
    std::unique_ptr<Fiber> fiber;
    if (idle.empty()) {
        fiber = std::make_unique<Fiber>();
        fiber->stack.reset(new unsigned char[STACK_BYTES]);
    } else {
        fiber = std::move(idle.back());
        idle.pop_back();
    }
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = STACK_BYTES;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, enter, 0);
    fiber->wait = Wait::Nothing;
    fiber->exchanges = 0;
    return fiber;
}

// Up to 32 neighbouring threads of a block.
struct Warp {
    Fiber *const *fibers;
    size_t count;

    // Lets go the lanes that have all come to their barrier.
    bool release() const {
        bool any = false;
        for (size_t lane = 0; lane < count; lane++) {
            if (fibers[lane]->wait != Wait::Warp) continue;
            const unsigned mask = fibers[lane]->mask;
            bool complete = true;
            for (size_t other = 0; other < count; other++)
                if (mask >> other & 1u) complete &= fibers[other]->wait == Wait::Warp && fibers[other]->mask == mask;
            if (!complete) continue;
            for (size_t other = 0; other < count; other++)
                if (mask >> other & 1u) fibers[other]->wait = Wait::Nothing;
            any = true;
        }
        return any;
    }
};

bool release_named(const Block &block) {
    std::map<unsigned, unsigned> waiting; // threads at each named barrier
    for (Fiber *fiber : block.fibers)
        if (fiber->wait == Wait::Named) waiting[fiber->barrier]++;
    bool any = false;
    for (Fiber *fiber : block.fibers)
        if (fiber->wait == Wait::Named && waiting[fiber->barrier] == fiber->barrier_threads)
            fiber->wait = Wait::Nothing, any = true;
    return any;
}

// Lets go whoever waits for a whole block or grid that has come. Threads that have ended do not count, as on a GPU.
bool release(const std::vector<std::unique_ptr<Block>> &blocks) {
    bool any = false, all_at_grid = true;
    for (auto &block : blocks) {
        bool all_at_block = true;
        for (Fiber *fiber : block->fibers) {
            if (fiber->wait == Wait::Done) continue;
            all_at_block &= fiber->wait == Wait::Block;
            all_at_grid &= fiber->wait == Wait::Grid;
        }
        for (Fiber *fiber : block->fibers)
            if (all_at_block && fiber->wait == Wait::Block) fiber->wait = Wait::Nothing, any = true;
        any |= release_named(*block);
    }
    if (all_at_grid)
        for (auto &block : blocks)
            for (Fiber *fiber : block->fibers)
                if (fiber->wait == Wait::Grid) fiber->wait = Wait::Nothing, any = true;
    return any;
}

// Runs the given blocks until all their threads have ended. False: they wait for each other for ever.
//
// Warps take turns in random order. How long a turn lasts is drawn once a launch: short turns keep warps close together,
// long ones let one run ahead until it waits for the others.
bool run_blocks(const std::vector<std::unique_ptr<Block>> &blocks) {
    std::vector<Warp> warps;
    for (auto &block : blocks)
        for (size_t first = 0; first < block->fibers.size(); first += WARP_SIZE)
            warps.push_back(Warp{&block->fibers[first], std::min(WARP_SIZE, block->fibers.size() - first)});
    const uint64_t turn = run->random() % 2 ? 2 : 256;
    std::vector<Fiber *> ready;
    // Rounds in which every thread that could go on only looked, and waited again.
    unsigned idle_rounds = 0;
    while (idle_rounds < MOST_IDLE_ROUNDS) {
        std::shuffle(warps.begin(), warps.end(), run->random);
        run->pauses = 0;
        size_t steps = 0;
        bool any = false;
        for (const Warp &warp : warps) {
            size_t pauses;
            do {
                pauses = run->pauses;
                ready.clear();
                for (size_t lane = 0; lane < warp.count; lane++)
                    if (warp.fibers[lane]->wait == Wait::Nothing) ready.push_back(warp.fibers[lane]);
                std::shuffle(ready.begin(), ready.end(), run->random);
                for (Fiber *fiber : ready) {
                    run->current = fiber;
                    swapcontext(&run->scheduler, &fiber->context);
                }
                steps += ready.size();
                any |= warp.release() || !ready.empty();
                // A warp that spins lets the others go on.
            } while (!ready.empty() && run->pauses == pauses && run->random() % turn != 0);
        }
        any |= release(blocks);
        idle_rounds = steps > 0 && run->pauses == steps ? idle_rounds + 1 : 0;
        if (any) continue;
        for (auto &block : blocks)
            for (Fiber *fiber : block->fibers)
                if (fiber->wait != Wait::Done) return false;
        return true;
    }
    return false;
}

std::unique_ptr<Block> new_block(dim3 at, dim3 grid, unsigned threads, size_t shared_bytes,
                                 std::vector<std::unique_ptr<Fiber>> &owned) {
    auto block = std::make_unique<Block>();
    block->shared.assign(shared_bytes + 256, POISON);
    uintptr_t address = reinterpret_cast<uintptr_t>(block->shared.data());
    block->aligned = block->shared.data() + (128 - address % 128) % 128;
    block->slots.assign((threads + 31) / 32 * 32 * 3 * EXCHANGE_WORDS, 0);
    for (unsigned i = 0; i < threads; i++) {
        auto fiber = new_fiber();
        fiber->position = Position{dim3{i, 0, 0}, at, dim3{threads, 1, 1}, grid};
        fiber->block = block.get();
        fiber->index = i;
        block->fibers.push_back(fiber.get());
        owned.push_back(std::move(fiber));
    }
    return block;
}

} // namespace

void Registered::add(const char *name, unsigned threads, size_t parameters, std::function<void(void **)> kernel) {
    kernels()[name] = Kernel{threads, parameters, std::move(kernel)};
}

const Position &position() { return run->current->position; }
unsigned char *shared_memory() { return run->current->block->aligned; }
unsigned lane() { return run->current->index % 32; }

void block_barrier(int line) {
    run->lines.insert(line);
    if (line != run->dropped_line) suspend(Wait::Block);
}
void named_barrier(int line, unsigned id, unsigned threads) {
    run->lines.insert(line);
    run->current->barrier = id;
    run->current->barrier_threads = threads;
    if (line != run->dropped_line) suspend(Wait::Named);
}
void warp_barrier(unsigned mask) {
    run->current->mask = mask;
    suspend(Wait::Warp);
}
void grid_barrier() { suspend(Wait::Grid); }
void pause() {
    run->pauses++;
    suspend(Wait::Nothing);
}

void exchange(unsigned mask, const void *mine, size_t bytes, uint64_t *all) {
    Fiber *self = run->current;
    const bool whole = mask == 0xffffffffu;
    const size_t words = (bytes + 7) / 8, set = whole ? self->exchanges++ % 2 : 2;
    uint64_t *slots = self->block->slots.data() + (self->index / 32 * 3 + set) * 32 * EXCHANGE_WORDS;
    uint64_t *own = slots + self->index % 32 * words;
    own[words - 1] = 0;
    std::memcpy(own, mine, bytes);
    warp_barrier(mask);
    std::memcpy(all, slots, 32 * words * sizeof(uint64_t));
    if (!whole) warp_barrier(mask);
}

float float_of_half(uint16_t bits) {
    uint32_t sign = uint32_t(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 1023u;
    if (exponent == 31) return bit_cast<float>(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * std::ldexp(float(fraction), -24);
    return bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t half_of_float(float value) {
    uint32_t bits = bit_cast<uint32_t>(value);
    uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
    float size = std::fabs(value);
    if (size != size) return uint16_t(sign | 0x7e00u | (bits >> 13 & 0x3ffu));
    if (size >= 65520.0f) return uint16_t(sign | 0x7c00u);
    // Below the smallest normal number every step is 2^-24; the sum with 0.5 leaves it in the low bits, rounded to even.
    if (size < 6.103515625e-05f) return uint16_t(sign | (bit_cast<uint32_t>(size + 0.5f) - 0x3f000000u));
    uint32_t rounded = (bits & 0x7fffffffu) + 0xfffu + (bits >> 13 & 1u);
    return uint16_t(sign | ((rounded - (112u << 23)) >> 13));
}

} // namespace emulation

using namespace emulation;

// 0: done; 1: no such kernel; 2: too many threads; 3: another number of arguments; 4: deadlock.
extern "C" int skillweld_emulate(const char *name, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned threads,
                                 size_t shared_bytes, int cooperative, void **arguments, size_t argument_count,
                                 uint64_t seed, int dropped_line, int *lines, size_t *line_count) {
    auto found = kernels().find(name);
    if (found == kernels().end()) return 1;
    if (threads == 0 || threads > found->second.threads) return 2;
    if (argument_count != found->second.parameters) return 3;
    Run here;
    here.random.seed(seed);
    here.kernel = &found->second;
    here.arguments = arguments;
    here.dropped_line = dropped_line;
    run = &here;
    dim3 grid{grid_x, grid_y, grid_z};
    std::vector<std::unique_ptr<Fiber>> owned;
    bool finished = true;
    std::vector<dim3> order;
    for (unsigned z = 0; z < grid_z; z++)
        for (unsigned y = 0; y < grid_y; y++)
            for (unsigned x = 0; x < grid_x; x++) order.push_back(dim3{x, y, z});
    std::shuffle(order.begin(), order.end(), here.random);
    // Blocks of an ordinary launch promise nothing about each other: one after the other, in any order.
    size_t together = cooperative ? order.size() : 1;
    for (size_t first = 0; finished && first < order.size(); first += together) {
        std::vector<std::unique_ptr<Block>> blocks;
        for (size_t i = 0; i < together; i++)
            blocks.push_back(new_block(order[first + i], grid, threads, shared_bytes, owned));
        finished = run_blocks(blocks);
        if (finished) // else their stacks hold live objects and cannot be used again
            for (auto &fiber : owned) idle.push_back(std::move(fiber));
        owned.clear();
    }
    size_t count = 0;
    for (int line : here.lines)
        if (count < *line_count) lines[count++] = line;
    *line_count = count;
    run = nullptr;
    return finished ? 0 : 4;
}
