"""What a model costs: parameters, multiply-accumulates, bytes, time; before and after a cut."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.relations import Axis
from onnxprune.model.derived import constant_values
from onnxprune.model.einsum import einsum_terms
from onnxprune.model.tensors import packed_bytes
from onnxprune.model.view import Node, View
from onnxprune.model.weights import inputs_of, parameter_counts, plain
from onnxprune.runtime.trace import Trace

__all__ = ["Cost", "CostModel", "Term", "fractions"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model, a part of it or a saving amounts to.

    Attributes
    ----------
    params : float
        See `parameter_counts`; each constant is counted once.
    macs : float
        Multiply-accumulates.
    bytes : float
        Of constants.
    latency : float
        Predicted nanoseconds of one run; 0 where no latency table was asked for.
    """

    params: float
    macs: float
    bytes: float
    latency: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.params + other.params,
            self.macs + other.macs,
            self.bytes + other.bytes,
            self.latency + other.latency,
        )

    def __sub__(self, other: "Cost") -> "Cost":
        return self + other * -1.0

    def __mul__(self, share: float) -> "Cost":
        return Cost(
            self.params * share, self.macs * share, self.bytes * share, self.latency * share
        )


@dataclass(frozen=True, slots=True)
class Term:
    """A cost that shrinks with its axes; ``node`` is "" for constants.

    ``left`` says which share of the cost is left when these shares of the axes are kept: their
    product, unless it is a time.
    """

    node: str
    cost: Cost
    axes: tuple[Axis, ...]
    left: Callable[[Sequence[float]], float] = prod


class CostModel:
    """Prices a model under any cut.

    Parameters
    ----------
    view : View
    trace : Trace
        At the sizes the cost is to be counted for (batch 1 unless the user says otherwise).
    times : sequence of Term
        What the operators take, where that is known.
    """

    def __init__(self, view: View, trace: Trace, times: Sequence[Term] = ()) -> None:
        self.terms = (*_constant_terms(view), *_mac_terms(view, trace), *times)
        self._by_axis: dict[Axis, list[int]] = defaultdict(list)
        for number, term in enumerate(self.terms):
            for axis in term.axes:
                self._by_axis[axis].append(number)
        self.total = self._sum(dict.fromkeys(range(len(self.terms)), 1.0))

    def touched(self, axes: Iterable[Axis]) -> set[int]:
        """Return the numbers of the terms that depend on any of the axes."""
        return {number for axis in axes for number in self._by_axis.get(axis, ())}

    def price(self, kept: Mapping[Axis, float]) -> Cost:
        """Price the model with a fraction of some axes kept.

        Parameters
        ----------
        kept : mapping of Axis to float
            Share of the axis's positions that stay, 0-1.

        Returns
        -------
        Cost
        """
        return self.total - self.saved(kept)

    def saved(self, kept: Mapping[Axis, float], terms: Set[int] | None = None) -> Cost:
        """Return what a cut saves, of all terms or of those with these numbers."""
        numbers = self.touched(kept)
        return self._sum(
            {
                number: 1.0 - term.left([kept.get(axis, 1.0) for axis in term.axes])
                for number in sorted(numbers if terms is None else numbers & terms)
                for term in (self.terms[number],)
            }
        )

    def _sum(self, shares: Mapping[int, float]) -> Cost:
        found = (self.terms[number].cost * share for number, share in shares.items())
        return sum(found, Cost(0, 0, 0))


def fractions(keeps: Mapping[Axis, NDArray[np.bool_]]) -> dict[Axis, float]:
    """Turn keep masks into shares."""
    return {axis: np.count_nonzero(mask) / len(mask) for axis, mask in keeps.items()}


def _constant_terms(view: View) -> Iterator[Term]:
    """Price every constant once, by the first of its uses."""
    seen = set()
    counts = parameter_counts(view)
    for value, use in view.uses.items():
        if use.original in seen:
            continue
        seen.add(use.original)
        array = view.constant(value)
        axes = tuple(Axis(value, axis) for axis in range(array.ndim))
        yield Term("", Cost(counts.get(use.original, 0), 0, packed_bytes(array)), axes)


def _mac_terms(view: View, trace: Trace) -> Iterator[Term]:
    """Price what runs; what depends on constants alone is computed once, when a runtime loads."""
    constants = constant_values(view)
    for node in view.nodes:
        known = all(v in trace.shapes for v in (*node.inputs, *node.outputs) if v)
        runs = not constants.issuperset(node.outputs)
        if runs and known and node.domain in ("", "com.microsoft"):
            turns = _turns(view, trace, node)
            for macs, axes in _macs(node, trace):
                yield Term(node.name, Cost(0, turns * macs, 0), axes)


def _turns(view: View, trace: Trace, node: Node) -> int:
    """Count how often a run comes to a node: as often as the bodies around it are entered."""
    turns = 1
    while node.owner >= 0:
        scope = next(s for s in reversed(view.scopes) if s.first <= node.index)
        node = view.by_index[node.owner]
        turns *= trace.turns.get(node.index, {}).get(scope.attribute, 1)
    return turns


def _macs(node: Node, trace: Trace) -> Iterator[tuple[int, tuple[Axis, ...]]]:
    """Count a node's multiply-accumulates, and name the axes they are a product of."""
    inputs = list(inputs_of(node))
    shapes = [trace.shapes.get(value, ()) for value in inputs]
    match plain(node).op_type:
        case "Conv" | "ConvTranspose":
            places = trace.shapes[node.outputs[0]] if plain(node).op_type == "Conv" else shapes[0]
            weight = inputs[1]
            macs = places[0] * prod(places[2:]) * prod(shapes[1])
            yield macs, (Axis(weight, 0), Axis(weight, 1))
        case "MatMul" | "Gemm":
            y = node.outputs[0]
            inner = _inner(node, len(shapes[0]))
            out = trace.shapes[y]
            axes = (*(Axis(y, i) for i in range(len(out))), Axis(inputs[0], inner))
            yield prod(out) * shapes[0][inner], axes
        case "Einsum":
            yield _einsum(node, shapes)
        case "Attention" if node.domain:
            weight, y = inputs[1], node.outputs[0]
            tokens, both = prod(shapes[0][:2]), (Axis(inputs[1], 0), Axis(inputs[1], 1))
            yield tokens * prod(shapes[1]), both
            keys = trace.shapes[y][1]
            yield tokens * keys * shapes[1][1] // 3, (Axis(weight, 1),)
            yield prod(trace.shapes[y]) * keys, (Axis(y, 2),)
        case "Attention" | "MultiHeadAttention" | "DecoderMaskedMultiHeadAttention":
            yield from _attention(node, trace)
        case "GroupQueryAttention":
            yield from _attention(node, trace)
        case "MoE":
            rows = prod(shapes[0][:-1]) * int(str(node.attributes.get("k", 1)))
            for slot in (2, 4, 6):
                if slot < len(inputs) and inputs[slot]:
                    axes = (Axis(inputs[slot], 1), Axis(inputs[slot], 2))
                    yield rows * prod(shapes[slot][1:]), axes
        case "LSTM" | "GRU" | "RNN":
            steps, batch = shapes[0][:2]
            for slot in (1, 2):  # the input's and the recurrence's products
                axes = (Axis(inputs[slot], 1), Axis(inputs[slot], 2))
                yield steps * batch * prod(shapes[slot]), axes


def _inner(node: Node, rank: int) -> int:
    """Return the axis of the first factor that is summed over."""
    if not node.attributes.get("transA"):
        return rank - 1
    return 0 if node.attributes.get("transBatchA") else rank - 2


def _attention(node: Node, trace: Trace) -> Iterator[tuple[int, tuple[Axis, ...]]]:
    """Queries with keys, then scores with values: for every channel as many as there are keys."""
    q, k, y = (*node.inputs[:2], node.outputs[0])
    stored = node.outputs[1] if len(node.outputs) > 1 else ""
    keys = trace.shapes[stored or k or q][-2]
    for value in (q, y):
        rank = len(trace.shapes[value])
        channels = tuple(Axis(value, i) for i in ((2,) if rank == 3 else (1, 3)))
        yield prod(trace.shapes[y if value == y or not k else q]) * keys, channels


def _einsum(node: Node, shapes: list[tuple[int, ...]]) -> tuple[int, tuple[Axis, ...]]:
    equation = node.attributes["equation"]
    assert isinstance(equation, bytes)
    letters: dict[str, tuple[int, Axis]] = {}
    terms, _ = einsum_terms(equation.decode(), [len(shape) for shape in shapes])
    for value, shape, term in zip(node.inputs, shapes, terms, strict=True):
        for axis, letter in enumerate(term):
            if letters.get(letter, (1,))[0] == 1:  # broadcast from
                letters[letter] = (shape[axis], Axis(value, axis))
    return prod(size for size, _ in letters.values()), tuple(axis for _, axis in letters.values())
