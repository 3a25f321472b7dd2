"""Heads whose dims may be turned: queries with keys, and values with the output projection.

Where nothing but moved and scaled numbers lies between the layers that make queries and keys and
the product of the two, any invertible map of a head's dims on one side is undone by its inverse on
the other. So it is between the layer that makes values and the one that reads what attention makes
of them. Rotary embeddings, normalizations and activations in between act on each dim: then nothing
may be turned. What goes where is not read off the operators but probed with numbered channels.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.layers.operands import (
    KEYS,
    LINEAR,
    VALUES,
    ends_of,
    heads_along,
    heads_of,
    is_fused,
    lies_flat,
)
from onnxprune.layers.sites import Site
from onnxprune.model.view import Edge, Node, View
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Pair", "find_pairs"]

Places = NDArray[np.int64]
_FEWEST = 2  # dims of a head that there is something to turn in
_NEAR = 1e-2  # how near to a whole number a channel's must be


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers that share the dims of heads.

    Attributes
    ----------
    one : Site
        Makes queries, or values.
    other : Site
        Makes keys, or reads what attention makes of the values.
    ours : int array, shape (heads, dims)
        Outputs of ``one``. Where heads share keys or values, their rows are the same on that side.
    theirs : int array, shape (heads, dims)
        The outputs of ``other`` that they meet, or the inputs of ``other`` that they end in.
    product : int
        The node in which queries meet keys, or in which values are summed up.
    read : bool
        Whether ``other`` reads (values) or makes (keys) them.
    """

    one: Site
    other: Site
    ours: Places
    theirs: Places
    product: int
    read: bool

    @property
    def shared(self) -> Places:
        """Numbers that are the same for heads that share dims, shape (heads,)."""
        found = [np.unique(side, axis=0, return_inverse=True) for side in (self.ours, self.theirs)]
        return np.asarray(min(found, key=lambda pair: len(pair[0]))[1].reshape(-1))


def find_pairs(view: View, trace: Trace, sites: Sequence[Site], feed: Feeds) -> list[Pair]:
    """Find the heads that may be turned.

    Parameters
    ----------
    view, trace
        Of the original.
    sites : sequence of Site
        Dense layers.
    feed : Feeds
        The inputs of the trace: what moves may depend on their shapes.

    Returns
    -------
    list of Pair
    """
    linear = [s for s in sites if _simple(view, s)]
    search = _Search(view, trace, feed, {s.output: s for s in linear})
    products = sorted({edge.node for found in search.ends.values() for edge in found})
    matched = [p for node in products if (p := search.matched(view.by_index[node])) is not None]
    return search.apart([*matched, *search.read(products, linear)])


def _simple(view: View, site: Site) -> bool:
    """Whether a layer's constant weight is read by it alone."""
    weight = site.node.inputs[1]
    fixed = view.is_constant(weight) and len(view.consumers.get(weight, ())) == 1
    return fixed and site.node.op_type in LINEAR


def _probed(
    view: View, feed: Feeds, numbers: Mapping[str, NDArray[np.generic]], names: Sequence[str]
) -> dict[str, Places]:
    """Return which channel each element of some values is, -1 where none is to be seen.

    Parameters
    ----------
    view : View
    feed : Feeds
    numbers : mapping of value to array
        Fed instead of what the values are: one more than the channel at each place.
    names : sequence of str
    """
    first = {name: array.astype(np.float32) for name, array in numbers.items()}
    model = with_outputs(view.real, names, first)
    session, read = Session(model), {value.name for value in model.graph.input}
    found, scale = (
        session.run({n: a for n, a in {**feed, **given}.items() if n in read}, names)
        for given in (first, {n: np.ones_like(a) for n, a in first.items()})
    )
    return {name: _channels(found[name], scale[name]) for name in names}


def _channels(found: NDArray[np.generic], scale: NDArray[np.generic]) -> Places:
    with np.errstate(divide="ignore", invalid="ignore"):
        number = found.astype(np.float64) / scale.astype(np.float64)
    number = np.where(np.isfinite(number), number, 0.0)
    near = np.abs(number - np.round(number)) < _NEAR
    return np.where(near, np.round(number), 0).astype(np.int64) - 1


class _Search:
    """Where makers of queries, keys and values end, with numbered channels on the way."""

    def __init__(self, view: View, trace: Trace, feed: Feeds, makers: Mapping[str, Site]) -> None:
        self.view, self.trace, self.feed, self.makers = view, trace, feed, makers
        self.ends = {name: found for name in makers if (found := ends_of(view, trace, name))}
        self.sources = {edge: makers[name] for name, es in self.ends.items() for edge in es}
        operands = sorted({view.by_index[e.node].inputs[e.slot] for e in self.sources})
        numbers = {
            name: np.broadcast_to(np.arange(1, 1 + trace.shapes[name][-1]), trace.shapes[name])
            for name in self.ends
        }
        self.codes = _probed(view, feed, numbers, operands) if operands else {}

    def operand(self, node: Node, slot: int, axis: int = -1) -> tuple[Site, Places] | None:
        """Return who makes what a product reads, and its heads' channels, (..., heads, dims)."""
        site = self.sources.get(Edge(node.index, slot))
        if site is None:
            return None
        found = heads_along(self.trace, node, slot, self.codes[node.inputs[slot]], axis)
        return None if found is None or found.shape[-1] < _FEWEST else (site, found)

    def matched(self, node: Node) -> Pair | None:
        """Pair the heads of queries with those of keys; None where they share some dims only."""
        queries, keys = self.operand(node, 0), self.operand(node, 1, KEYS[is_fused(node)])
        if queries is None or keys is None:
            return None
        dims, read = queries[1].shape[-1], keys[1]
        if is_fused(node):  # of heads of queries, neighbours share keys
            read = np.repeat(read, queries[1].shape[-2] // read.shape[-2], axis=-2)
        if queries[1].shape[-1] != read.shape[-1]:
            return None
        met = np.concatenate(np.broadcast_arrays(queries[1], read), axis=-1)
        heads = np.unique(met.reshape(-1, 2 * dims), axis=0)
        ours, theirs = heads[:, :dims], heads[:, dims:]
        if not (_apart(ours) and _apart(theirs)):
            return None
        return Pair(queries[0], keys[0], ours, theirs, node.index, read=False)

    def read(self, products: Sequence[int], sites: Sequence[Site]) -> list[Pair]:
        """Follow what attention makes of values to the layers that read it."""
        found: dict[int, tuple[Site, Places, Site]] = {}
        numbers: dict[str, NDArray[np.int64]] = {}
        for number in products:
            node = self.view.by_index[number]
            value, reader = node.outputs[0], self.reader(node, sites)
            made = self.operand(node, VALUES[is_fused(node)])
            if made is None or reader is None or self.mixed(node):
                continue
            heads = made[1]
            if is_fused(node):
                heads = np.repeat(heads, self.queries(node) // heads.shape[-2], axis=-2)
            carried = heads[..., None, :]
            if lies_flat(self.trace, node):
                carried = heads.reshape(len(heads), 1, -1)
            if carried.shape[-1] == self.trace.shapes[value][-1]:
                numbers[value] = np.broadcast_to(carried + 1, self.trace.shapes[value])
                found[number] = (made[0], made[1], reader)
        names = sorted({reader.source for _, _, reader in found.values()})
        met = _probed(self.view, self.feed, numbers, names) if names else {}
        pairs = [
            self.carried(number, maker, heads, reader, met[reader.source])
            for number, (maker, heads, reader) in found.items()
        ]
        return [pair for pair in pairs if pair is not None]

    def queries(self, node: Node) -> int:
        """Return how many heads of queries an attention operator has."""
        shape = self.trace.shapes[node.inputs[0]]
        return heads_of(node, 0) if lies_flat(self.trace, node) else shape[-3]

    def mixed(self, node: Node) -> bool:
        """Whether a product sums up values by other things that layers make."""
        return not is_fused(node) and Edge(node.index, 0) in self.sources

    def reader(self, node: Node, sites: Sequence[Site]) -> Site | None:
        """Return the only layer that reads what a product makes."""
        ends = ends_of(self.view, self.trace, node.outputs[0])
        if len(ends) != 1 or ends[0].slot != 0:
            return None
        return next((s for s in sites if s.node.index == ends[0].node), None)

    def carried(
        self, node: int, maker: Site, carried: Places, reader: Site, met: Places
    ) -> Pair | None:
        """Pair the heads of values with the inputs that they end in, each as often as it does."""
        rows = met.reshape(-1, met.shape[-1])
        heads = np.unique(carried.reshape(-1, carried.shape[-1]), axis=0)
        inputs, counts = np.argsort(rows[0], kind="stable"), np.bincount(rows[0][rows[0] >= 0])
        times = counts.max(initial=0)
        whole = np.array_equal(rows[0][inputs], np.repeat(np.sort(heads.ravel()), times))
        if not whole or (rows != rows[0]).any() or len(np.unique(heads)) != heads.size:
            return None
        first = np.searchsorted(rows[0][inputs], heads)
        theirs = np.concatenate([inputs[first + turn] for turn in range(times)])
        ours = np.tile(heads, (times, 1))
        return Pair(maker, reader, ours, theirs, node, read=True)

    def apart(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Drop pairs whose channels end in other products as well."""
        uses: Counter[tuple[str, int]] = Counter()
        for edge, site in self.sources.items():
            value = self.view.by_index[edge.node].inputs[edge.slot]
            uses.update((site.output, int(code)) for code in np.unique(self.codes[value]))

        def once(site: Site, places: Places) -> bool:
            return all(uses[site.output, place] == 1 for place in places.ravel().tolist())

        return [p for p in pairs if once(p.one, p.ours) and (p.read or once(p.other, p.theirs))]


def _apart(heads: Places) -> bool:
    """Whether heads, some of them the same, have no dim in common otherwise."""
    different = np.unique(heads, axis=0)
    return len(np.unique(different)) == different.size
