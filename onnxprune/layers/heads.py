"""The basis of a head's dims in which the fewest of them say the most.

Values are turned so that their readers hear most of the first dims, queries and keys so that the
first dims make up most of what their products vary between keys: a softmax does not see what is the
same for all of them. Both are singular vectors of a product, the moments of what it is fed in it
(data-aware SVD): for values the root of their moments times the reader's weight, for queries and
keys the roots of both moments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from onnxprune.layers.attention import Pair
from onnxprune.layers.readers import Reader, read_wholly
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Head", "Turned", "turned_heads"]

Array = NDArray[np.float64]
_RIDGE = 1e-5  # of the mean diagonal: dims in which queries or keys do not vary
_ROWS = 2  # rows per dim that moments need


@dataclass(frozen=True, eq=False)
class Head:
    """A basis for the dims of one head, the dim that counts most first.

    Attributes
    ----------
    ours : float array, shape (dims, dims)
        What the outputs of the pair's first layer are multiplied by.
    theirs : float array, shape (dims, dims)
        What the other layer's outputs, or its weights' rows, are multiplied by: the inverse,
        transposed.
    mean : float array, shape (dims,)
        Of what the other layer reads; zeros for keys.
    errors : float array, shape (dims + 1,)
        What is lost with the last k dims, relative to all of the layer's (values) or the head's.
    worth : float array, shape (dims,)
        The same of each dim as it was.
    """

    ours: Array
    theirs: Array
    mean: Array
    errors: Array
    worth: Array

    def through(self, width: int) -> Array:
        """Return what goes through the first dims, as a map of the dims as they were."""
        return np.asarray(self.ours[:width].T @ self.theirs[:width])


@dataclass(frozen=True, eq=False)
class Turned:
    """A pair with a basis for each of its heads."""

    pair: Pair
    heads: tuple[Head, ...]


def turned_heads(
    view: View, trace: Trace, pairs: Sequence[Pair], feeds: Sequence[Feeds], *, seed: int
) -> list[Turned]:
    """Find the bases of all heads.

    Parameters
    ----------
    view, trace
        Of the original.
    pairs : sequence of Pair
    feeds : sequence of Feeds
        Samples to fit on.
    seed : int

    Returns
    -------
    list of Turned
        Pairs with fewer than two rows per number to estimate are left out.
    """
    readers = read_wholly(view, trace, [p.other for p in pairs if p.read], feeds, seed=seed)
    met = _met(view, [p for p in pairs if not p.read], feeds)
    found = []
    for pair in pairs:
        if pair.read:
            reader = readers.get(pair.other.node.index)
            heads = [] if reader is None else _heard(reader, pair)
        else:
            heads = _matched(met[pair.product], pair) if pair.product in met else []
        if heads:
            found.append(Turned(pair, tuple(heads)))
    return found


def _heard(reader: Reader, pair: Pair) -> list[Head]:
    """Turn all values that a layer reads: those in several places by what all of these hear."""
    shared = pair.shared
    ones = [_values(reader, pair.theirs[shared == n]) for n in range(shared.max() + 1)]
    means = reader.mean[pair.theirs]
    return [replace(ones[n], mean=mean) for n, mean in zip(shared.tolist(), means, strict=True)]


def _matched(met: Array, pair: Pair) -> list[Head]:
    """Turn all queries and keys: those that several share by what they meet in all."""
    shared = pair.shared
    ones = [_products(*met[:, shared == n].mean(axis=1)) for n in range(shared.max() + 1)]
    return [ones[n] for n in shared]


def _values(reader: Reader, inputs: NDArray[np.int64]) -> Head:
    """Turn a head's values, read at one or more places (places, dims): each head by itself."""
    moments = np.mean([reader.moments[np.ix_(at, at)] for at in inputs], axis=0)
    heard = np.hstack([reader.weight[at] * np.sqrt(reader.worth) for at in inputs])
    root = _root(moments)
    left, sizes, _ = linalg.svd(root @ heard, lapack_driver="gesvd")
    worth = np.diag(moments) * (heard**2).sum(axis=1) / len(inputs)
    ours, theirs = linalg.solve(root, left).T, (root @ left).T
    errors = _tails(sizes, len(root)) / len(inputs)
    return Head(ours, theirs, np.zeros(len(root)), errors, worth)


def _products(queries: Array, keys: Array) -> Head:
    """Turn a head's queries and keys, by their second moments."""
    one, other = _root(queries), _root(keys)
    left, sizes, right = linalg.svd(one @ other, lapack_driver="gesvd")
    scale = np.sqrt(sizes)[:, None]
    ours, theirs = scale * linalg.solve(one, left).T, scale * linalg.solve(other, right.T).T
    total = max(float((sizes**2).sum()), 1e-30)
    worth = np.diag(queries) * np.diag(keys) / total
    return Head(ours, theirs, np.zeros(len(sizes)), _tails(sizes, len(sizes)) / total, worth)


def _root(moments: Array) -> Array:
    """Return the square root of moments, no dim of it quite without size."""
    values, vectors = linalg.eigh(moments)
    ridge = _RIDGE * max(float(np.trace(moments)) / len(moments), 1e-12)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0) + ridge)) @ vectors.T)


def _tails(sizes: Array, dims: int) -> Array:
    """Return the sum of the squares of the last k sizes, for each k up to the dims."""
    energy = np.zeros(dims)
    energy[: len(sizes)] = sizes**2
    return np.concatenate([[0.0], np.cumsum(energy[::-1])])


def _met(view: View, pairs: Sequence[Pair], feeds: Sequence[Feeds]) -> Mapping[int, Array]:
    """Sum up the second moments of queries, and of keys about the mean of their sample.

    Both are of shape (heads, dims, dims), in one array.
    """
    names = list(dict.fromkeys(s.output for p in pairs for s in (p.one, p.other)))
    if not names:
        return {}
    session = Session(with_outputs(view.real, names))
    sums = {p.product: np.zeros((2, len(p.ours), *2 * p.ours.shape[1:])) for p in pairs}
    rows = dict.fromkeys(sums, 0)
    for feed in feeds:
        values = session.run(feed, names)
        for pair in pairs:
            queries, keys = values[pair.one.output], values[pair.other.output]
            keys = keys - keys.mean(axis=-2, keepdims=True)
            rows[pair.product] += queries[..., 0].size
            sums[pair.product][0] += [_square(queries[..., dims]) for dims in pair.ours]
            sums[pair.product][1] += [_square(keys[..., dims]) for dims in pair.theirs]
    return {
        p.product: sums[p.product] / rows[p.product]
        for p in pairs
        if rows[p.product] >= _ROWS * p.ours.shape[1]
    }


def _square(values: NDArray[np.generic]) -> Array:
    rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
    return np.asarray(rows.T @ rows)
