"""Rows of the least-squares problem: what an operator multiplies its weight with."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.layers.sites import Site
from onnxprune.model.view import Node
from onnxprune.runtime.trace import Trace

__all__ = ["Places", "input_rows", "output_rows", "places_of", "weight_matrix"]

_PLACES = 64  # output positions per sample

Rows = NDArray[np.float32]
Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Places:
    """Output positions that are looked at, the same in every sample; None: all of them.

    ``rows`` and ``columns`` are arrays of equal length. Neighbouring positions say nearly the
    same, so a sample of them is as good as all.
    """

    index: tuple[NDArray[np.int64], ...]


def places_of(trace: Trace, site: Site, rng: np.random.Generator) -> Places | None:
    """Choose the output positions to look at; None where the layer has no spatial axes."""
    if site.node.op_type != "Conv":
        return None
    return _choose(trace.shapes[site.output][2:], _PLACES, rng)


def output_rows(values: Array, places: Places | None) -> Rows:
    """Return a layer's output as rows (n, channels)."""
    if places is not None:
        return _place_rows(values, places)
    return values.reshape(-1, values.shape[-1]).astype(np.float32)


def input_rows(site: Site, values: Array, weight: Array, places: Places | None) -> Rows:
    """Return what a layer multiplies its weight with, as rows (n, D)."""
    if places is None:
        return values.reshape(-1, values.shape[-1]).astype(np.float32)
    return _patches(values, site.node, weight.shape[2:], places)


def weight_matrix(site: Site, weight: Array) -> Array | None:
    """Return the weight as (D, O); None where the operator is grouped."""
    if site.node.op_type == "Conv":
        group = site.node.attributes.get("group", 1)
        return weight.reshape(len(weight), -1).T if group == 1 else None
    if site.node.op_type == "Gemm" and site.node.attributes.get("transB"):
        return weight.T
    return weight


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
    values: NDArray[np.generic], node: Node, kernel: tuple[int, ...], places: Places
) -> Rows:
    """Return the patches a convolution sees at some places.

    Parameters
    ----------
    values : array, shape (n, channels, *spatial)
    node : Node
        The Conv, for strides, dilations and pads.
    kernel : tuple of int
    places : Places

    Returns
    -------
    float32 array, shape (n * places, channels * kernel size), channel-major
    """
    rank = len(kernel)
    strides = _ints(node, "strides", [1] * rank)
    dilations = _ints(node, "dilations", [1] * rank)
    pads = _pads(node, values.shape[2:], kernel, strides, dilations)
    padded = np.pad(values, [(0, 0), (0, 0), *pads])
    offsets = np.indices(kernel).reshape(rank, -1)
    at = tuple(
        (places.index[d] * strides[d])[:, None] + (offsets[d] * dilations[d])[None, :]
        for d in range(rank)
    )
    everything: tuple[Any, ...] = (slice(None), slice(None), *at)
    picked = padded[everything]  # n, channels, places, kernel
    rows = np.moveaxis(picked, 1, 2)
    return np.ascontiguousarray(rows, np.float32).reshape(-1, values.shape[1] * offsets.shape[1])


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
