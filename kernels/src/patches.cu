// Square patches of images as rows, for the product that embeds them: in a row channel, then row, then column.
//
// Bound by memory: pixels are read once, in runs of a patch's side, and rows written once. A thread writes eight elements.

#include "../include/rows.cuh"

namespace {

constexpr uint32_t THREADS = 128;

template <class Out>
__device__ __forceinline__ void patches(const float *pixels, uint64_t channel_stride, uint32_t images,
                                        uint32_t channels_per_image, uint32_t first_channel, uint32_t channels,
                                        uint32_t image_side, uint32_t patch_side, typename Out::Stored *out) {
    const uint32_t across = image_side / patch_side, area = patch_side * patch_side;
    const uint32_t columns = channels * area, eights = (columns + 7) / 8;
    const uint64_t index = uint64_t(blockIdx.x) * THREADS + threadIdx.x;
    const uint64_t row = index / eights;
    if (row >= uint64_t(images) * across * across) return;
    const uint32_t image = uint32_t(row / (across * across)), patch = uint32_t(row % (across * across));
    const uint32_t top = patch / across * patch_side, left = patch % across * patch_side;
    const uint32_t first = uint32_t(index % eights) * 8;
    const float *mine = pixels + uint64_t(image * channels_per_image + first_channel) * channel_stride;
    float values[8];
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t column = first + i, channel = column / area, in_patch = column % area;
        const uint32_t y = top + in_patch / patch_side, x = left + in_patch % patch_side;
        values[i] = column < columns ? mine[channel * channel_stride + uint64_t(y) * image_side + x] : 0.0f;
    }
    write_eight<Out>(out + (row * eights * 8 + first), values);
}

} // namespace

#define PATCHES(suffix, Out)                                                                                        \
    KERNEL(THREADS, patches_##suffix,                                                                               \
           (const float *pixels, uint64_t channel_stride, uint32_t images, uint32_t channels_per_image,             \
            uint32_t first_channel, uint32_t channels, uint32_t image_side, uint32_t patch_side, Out::Stored *out)) { \
        patches<Out>(pixels, channel_stride, images, channels_per_image, first_channel, channels, image_side, patch_side, \
                     out);                                                                                          \
    }

PATCHES(f32, F32)
PATCHES(bf16, Bf16)
