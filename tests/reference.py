"""What `resample` is, in float64 NumPy: written from the definition, not from the C++."""

import numpy as np


def _weights(axis, kind, antialias, extent):
    """The matrix [cells, pixels] of one axis."""
    low, span = (axis.start, axis.span) if axis.span > 0 else (axis.start + axis.span, -axis.span)
    low = np.round(low * 2**24) / 2**24  # so that a reversed axis reads exactly the cells of the forward one
    high = np.round((low + span) * 2**24) / 2**24
    edges = low + np.arange(axis.size + 1) * span / axis.size
    centres = low + (np.arange(axis.size) + 0.5) * span / axis.size
    pixels = np.arange(np.floor(low), np.ceil(high))
    if kind == "frame":
        weights = np.floor(edges[:-1, None]) == pixels
    elif kind == "nearest":
        weights = np.floor(centres[:, None]) == pixels
    elif kind == "area":
        weights = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    else:
        scale = max(1, span / axis.size) if antialias else 1
        weights = 1 - np.abs(pixels + 0.5 - centres[:, None]) / scale
    weights = np.maximum(weights, 0) / np.maximum(weights, 0).sum(1, keepdims=True)
    full = np.zeros((axis.size, max(extent, int(pixels[-1]) + 1)))
    full[:, pixels.astype(int)] = weights
    return full[::-1] if axis.span < 0 else full


def resample(video, grid, *, mode="linear", temporal="nearest", antialias=True, mean=0, std=1, scale=1):
    """T x H x W x C to C x T x H x W; `scale` is 1/255 for a uint8 video that becomes float."""
    t, h, w, _ = video.shape
    time = _weights(grid.t, "linear" if temporal == "linear" else "frame", False, t)
    frames = np.arange(time.shape[1])
    frames = frames % t if grid.beyond == "loop" else np.minimum(frames, t - 1)
    rows, columns = _weights(grid.h, mode, antialias, h), _weights(grid.w, mode, antialias, w)
    clip = np.zeros((grid.t.size, grid.h.size, grid.w.size, video.shape[3]))
    for i, j in zip(*np.nonzero(time), strict=True):
        wide = np.einsum("yh,hwc->ywc", rows, video[frames[j]].astype(np.float64))
        clip[i] += time[i, j] * np.einsum("xw,ywc->yxc", columns, wide)
    return ((clip * scale - mean) / std).transpose(3, 0, 1, 2)


def philox(key, counter):
    """Philox4x32-10 (Salmon et al. 2011): four random words for a 64-bit key and four words of a counter."""
    words, low, high = list(counter), key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        a, b = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [b >> 32 ^ words[1] ^ low, b & 0xFFFFFFFF, a >> 32 ^ words[3] ^ high, a & 0xFFFFFFFF]
        low, high = (low + 0x9E3779B9) & 0xFFFFFFFF, (high + 0xBB67AE85) & 0xFFFFFFFF
    return words
