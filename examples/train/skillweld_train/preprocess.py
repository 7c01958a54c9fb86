"""Pictures as the policy sees them: `skillweld_policy::image` is the same in Rust."""

import numpy as np

#: Of the picture, cut from its middle: published policies train and run with it.
CROP_AREA = 0.9


def center_crop(images, area=CROP_AREA):
    """… × height × width × 3 bytes → the same shape: each side times √area, enlarged bilinearly to the old size.

    TensorFlow's `crop_and_resize`: the grid is aligned to the corners, values are mapped to 0 … 1 before and by
    v → ⌊255.5 v⌋ after.
    """
    x = images.astype(np.float32) * np.float32(1 / 255)
    for axis in (-2, -3):
        before, after, share = grid(images.shape[axis], area)
        shape = [1] * x.ndim
        shape[axis] = -1
        low, high = np.take(x, before, axis), np.take(x, after, axis)
        x = low + (high - low) * share.reshape(shape)
    return (np.clip(x, 0, 1) * np.float32(255.5)).astype(np.uint8)


def grid(length, area):
    """Of every output pixel: the two input pixels around it, and how far it is from the first."""
    side = np.sqrt(np.float32(area))
    begin = (1 - side) / 2
    position = begin * (length - 1) + np.arange(length, dtype=np.float32) * side
    position = np.minimum(position, np.float32(length - 1))
    before = np.floor(position)
    return before.astype(int), np.ceil(position).astype(int), position - before
