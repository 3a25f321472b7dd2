"""Rows of the least-squares problem: what an operator multiplies its weight with.

A layer is ``groups`` independent problems of the same size: one for a dense layer, one per group
of a grouped convolution, one per channel of a depthwise one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.layers.sites import Site
from onnxprune.model.view import Node
from onnxprune.runtime.trace import Trace

__all__ = ["Draw", "Places", "input_rows", "output_rows", "places_of", "weight_blocks", "weight_of"]

_PLACES = (64, 1024)  # output positions per sample: least, most
_ENOUGH = 16_384  # rows that say all; few samples give more positions each
_CONVOLUTIONS = ("Conv", "ConvTranspose")

Rows = NDArray[np.float32]
Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Places:
    """Output positions that are looked at, the same in every sample.

    ``index`` holds one array per spatial axis, of equal length. Neighbouring positions say nearly
    the same, so a sample of them is as good as all.
    """

    index: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """At most so many rows of a feed (tokens of all its samples), the same of every layer."""

    most: int

    def rows(self, values: Array) -> Rows:
        """Draw rows (n, channels) from values with channels on the last axis."""
        rows = values.reshape(-1, values.shape[-1])
        if len(rows) > self.most:
            rng = np.random.default_rng(len(rows))
            rows = rows[np.sort(rng.choice(len(rows), self.most, replace=False))]
        return rows.astype(np.float32)


def places_of(
    trace: Trace, site: Site, rng: np.random.Generator, samples: int = _ENOUGH, batch: int = 1
) -> Places | Draw:
    """Choose what to look at: output positions of a convolution, rows of other layers.

    Parameters
    ----------
    trace : Trace
    site : Site
    rng : Generator
    samples, batch : int
        How many there are to look at, and how many of them in a feed.

    Returns
    -------
    Places or Draw
    """
    most = int(np.clip(_ENOUGH // max(samples, 1), *_PLACES))
    if site.node.op_type not in _CONVOLUTIONS:
        return Draw(most * batch)
    return _choose(trace.shapes[site.output][2:], most, rng)


def output_rows(values: Array, places: Places | Draw) -> Rows:
    """Return a layer's output as rows (n, channels)."""
    if isinstance(places, Places):
        return _place_rows(values, places)
    return places.rows(values)


def input_rows(
    site: Site, values: Array, weight: Array, places: Places | Draw, groups: int = 1
) -> Rows:
    """Return what a layer multiplies its weight with.

    Parameters
    ----------
    site : Site
    values : array
        What the layer reads, channels on axis 1 for convolutions and on the last axis otherwise.
    weight : array
        As the operator holds it.
    places : Places or Draw
        Output positions of a convolution, rows of another layer.
    groups : int
        Of the convolution that is looked at (a cut one may have fewer than the original).

    Returns
    -------
    float32 array, shape (groups, n, D)
    """
    if isinstance(places, Draw):
        return places.rows(values)[None]
    return _patches(values, site.node, weight.shape[2:], places, groups)


def weight_blocks(site: Site, weight: Array, groups: int = 1) -> Array:
    """Return the weight as one matrix per group, shape (groups, D, O)."""
    op_type = site.node.op_type
    if op_type == "Conv":
        split = weight.reshape(groups, len(weight) // groups, -1)
        return np.asarray(split.transpose(0, 2, 1))
    if op_type == "ConvTranspose":
        inputs, outputs = len(weight) // groups, weight.shape[1]
        blocks = weight.reshape(groups, inputs, outputs, -1).transpose(0, 1, 3, 2)
        return np.asarray(blocks.reshape(groups, -1, outputs))
    if op_type == "Gemm" and site.node.attributes.get("transB"):
        return np.asarray(weight.T[None])
    return np.asarray(weight[None])


def weight_of(site: Site, blocks: Array, shape: tuple[int, ...]) -> Array:
    """Return matrices per group as the operator holds them: the inverse of `weight_blocks`."""
    op_type, (groups, _, outputs) = site.node.op_type, blocks.shape
    if op_type == "Conv":
        return np.asarray(blocks.transpose(0, 2, 1).reshape(shape))
    if op_type == "ConvTranspose":
        inputs = shape[0] // groups
        turned = blocks.reshape(groups, inputs, -1, outputs).transpose(0, 1, 3, 2)
        return np.asarray(turned.reshape(shape))
    if op_type == "Gemm" and site.node.attributes.get("transB"):
        return np.asarray(blocks[0].T)
    return np.asarray(blocks[0])


def _choose(shape: tuple[int, ...], most: int, rng: np.random.Generator) -> Places:
    """Choose at most ``most`` positions of an output's spatial axes."""
    total = int(np.prod(shape))
    flat = np.arange(total) if total <= most else np.sort(rng.choice(total, most, replace=False))
    return Places(tuple(np.unravel_index(flat, shape)))


def _place_rows(values: NDArray[np.generic], places: Places) -> Rows:
    """Return an output [n, channels, ...] at some places, as rows [n * places, channels]."""
    at: tuple[Any, ...] = (slice(None), slice(None), *places.index)
    picked = values[at]
    return (
        np.ascontiguousarray(np.moveaxis(picked, 1, -1))
        .reshape(-1, values.shape[1])
        .astype(np.float32)
    )


def _patches(
    values: NDArray[np.generic], node: Node, kernel: tuple[int, ...], places: Places, groups: int
) -> Rows:
    """Return the patches that a convolution sees at some places.

    Parameters
    ----------
    values : array, shape (n, channels, *spatial)
    node : Node
        For strides, dilations and pads.
    kernel : tuple of int
    places : Places
    groups : int

    Returns
    -------
    float32 array, shape (groups, n * places, channels / groups * kernel size), channel-major
    """
    at, seen = _taps(values.shape[2:], node, kernel, places)
    everything: tuple[Any, ...] = (slice(None), slice(None), *at)
    picked = np.where(seen, values[everything], np.float32(0))  # n, channels, places, kernel
    n, channels, count, taps = picked.shape
    split = picked.reshape(n, groups, channels // groups, count, taps)
    rows: Rows = split.transpose(1, 0, 3, 2, 4).astype(np.float32)
    return rows.reshape(groups, n * count, channels // groups * taps)


def _taps(
    size: tuple[int, ...], node: Node, kernel: tuple[int, ...], places: Places
) -> tuple[tuple[NDArray[np.int64], ...], NDArray[np.bool_]]:
    """Return which input positions the taps of the places read, and which of these exist.

    A transposed convolution reads, for output position p and tap k, the input position i with
    i * stride - pad + k * dilation = p, where there is one.
    """
    rank = len(kernel)
    strides = _ints(node, "strides", [1] * rank)
    dilations = _ints(node, "dilations", [1] * rank)
    offsets = np.indices(kernel).reshape(rank, -1)
    at, seen = [], np.ones((len(places.index[0]), offsets.shape[1]), bool)
    for d, (begin, _) in enumerate(_pads(node, size, kernel, strides, dilations)):
        place, reach = places.index[d][:, None], offsets[d][None, :] * dilations[d]
        if node.op_type == "ConvTranspose":
            position, rest = np.divmod(place + begin - reach, strides[d])
            seen &= rest == 0
        else:
            position = place * strides[d] + reach - begin
        seen &= (position >= 0) & (position < size[d])
        at.append(np.clip(position, 0, size[d] - 1))
    return tuple(at), seen


def _ints(node: Node, name: str, default: list[int]) -> list[int]:
    value = node.attributes.get(name, default)
    assert isinstance(value, list)
    return value


def _pads(
    node: Node,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: list[int],
    dilations: list[int],
) -> list[tuple[int, int]]:
    rank = len(kernel)
    mode = node.attributes.get("auto_pad", b"NOTSET")
    if mode in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = []
        for d in range(rank):
            out = -(-size[d] // strides[d])
            total = max((out - 1) * strides[d] + (kernel[d] - 1) * dilations[d] + 1 - size[d], 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if mode == b"SAME_UPPER" else (large, small))
        return pads
    flat = _ints(node, "pads", [0] * (2 * rank))
    return [(flat[d], flat[d + rank]) for d in range(rank)]
