// What `threshold` finds and `merge` uses: how much of a task vector trimming keeps.
#pragma once

#include "numbers.cuh"

// The search for one expert's threshold over one tensor, or over several.
struct Search {
    double density; // share of the entries that is kept, the largest ones
    uint64_t numel; // entries in all
    uint64_t sampled; // entries that the guess is made of
    uint32_t global; // ranked as over a whole task vector, all that equal the threshold are kept; else as over one tensor
    uint32_t sought; // 0: nothing is looked for, what is kept is said from the start
    uint32_t open; // not found yet
    // Magnitudes low … low + width - 1, as bits of f32, are looked at in bins of 2^shift.
    uint32_t low, width, shift;
    // Kept are entries above the magnitude, and of those that equal it all, or the ones whose random number is below this.
    float magnitude; // -1: everything is kept; NaN: nothing
    uint32_t equal_below;
    uint32_t all_equal;
    // How it went: passes that counted the entries, and how often there was no guess to go by.
    uint32_t passes, unguided;
    uint32_t unused;
};

// The bits of a value's magnitude: they compare like the magnitudes.
__device__ __forceinline__ uint32_t magnitude_bits(float value) { return bits_of_float(value) & 0x7fffffffu; }
