"""The law: cutting commutes with running, judged twice.

``run(cut(op), take(inputs, keep)) == take(run(op, mask(inputs, keep)), keep)``, where the mask
zeroes what a removed channel would have added. Statistics over a cut axis are taken over what
stays; that reference is written here in NumPy, apart from the gates of the package.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from onnxprune.coupling.collect import collect
from onnxprune.coupling.groups import Coupling, make_groups
from onnxprune.coupling.keeps import counted
from onnxprune.coupling.relations import Axis
from onnxprune.coupling.solver import Solution, solve
from onnxprune.model.upcast import upcast
from onnxprune.model.view import View, build_view
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Session
from onnxprune.runtime.trace import Trace, trace
from tests.coupling.opcase import Array, K, OpCase, P, make_model, parse_axes

RTOL = 1e-4
Feeds = Mapping[str, Array]
Keeps = dict[Axis, np.ndarray]


@dataclass(frozen=True, eq=False)
class Bench:
    """A single-operator model, looked at."""

    case: OpCase
    feed: Feeds
    view: View
    trace: Trace
    coupling: Coupling
    solutions: list[Solution]

    @property
    def sizes(self) -> dict[Axis, int]:
        """All axes but those of parameters: a list of numbers has no channels."""
        given = self.case.inputs
        found = self.coupling.collected.sizes
        return {a: n for a, n in found.items() if not isinstance(given.get(a.value), K | P)}

    @property
    def free(self) -> set[Axis]:
        """Axes of which some position may go under some reading."""
        return {
            axis
            for solution in self.solutions
            for axis, labels in solution.labels.items()
            if axis in self.sizes and not np.isin(labels, list(solution.frozen)).all()
        }

    def judges(self) -> dict[str, Callable[[onnx.ModelProto, Feeds], list[Array]]]:
        found = {"reference": run_reference, "onnxruntime": run_onnxruntime}
        return {name: run for name, run in found.items() if name not in self.case.skip}


def set_up(case: OpCase) -> Bench:
    """Collect and solve the relations of one operator, its inputs and outputs left open.

    The trace is of another feed than the one that judges: what is true of one run is not a rule.
    """
    model, (first, feed) = make_model(case)
    view = build_view(model, Path())
    seen = _trace_by_reference(view, first) if "onnxruntime" in case.skip else trace(view, first)
    collected = collect(view, seen)
    solutions, frozen = solve(collected.relations, collected.atoms)
    coupling = make_groups(view, collected, solutions, frozen)
    return Bench(case, feed, view, seen, coupling, solutions)


def run_reference(model: onnx.ModelProto, feed: Feeds) -> list[Array]:
    with np.errstate(all="ignore"):
        return [np.asarray(v) for v in ReferenceEvaluator(model).run(None, dict(feed))]


def run_onnxruntime(model: onnx.ModelProto, feed: Feeds) -> list[Array]:
    return list(Session(model).run(feed).values())


def _trace_by_reference(view: View, feed: Feeds) -> Trace:
    names = [v for node in view.nodes for v in node.outputs if v]
    arrays = {**feed, **dict(zip(names, run_reference(view.model, feed), strict=True))}
    arrays |= {name: view.constant(name) for name in view.uses}
    return Trace(
        {name: a.shape for name, a in arrays.items()},
        {name: a.dtype for name, a in arrays.items()},
        {name: a for name, a in arrays.items() if a.size <= 1024},
    )


def keep_sets(bench: Bench) -> Iterator[Keeps]:
    """Choose what stays: several seeded subsets of every solution, and of pairs of solutions."""
    rng = bench.case.rng()
    single = []
    for solution in bench.solutions:
        for share in (0.0, 0.3, 0.6, -1.0):
            keeps = _subset(bench, solution, share, rng)
            single.append((solution, keeps))
            if keeps:
                yield keeps
    if bench.case.refused:  # where some axes are refused, the others must not go with them
        yield from _axis_by_axis(bench)
        yield from filter(None, (_subset(bench, s, 0.5, rng) for s in bench.solutions))
    for i, (a, first) in enumerate(single[1::4]):
        for b, second in single[2::4][i + 1 :]:
            both = {**first, **second}
            for axis in first.keys() & second.keys():
                both[axis] = first[axis] & second[axis]
            if a is not b and both and all(mask.any() for mask in both.values()):
                yield both


def _axis_by_axis(bench: Bench) -> Iterator[Keeps]:
    for solution in bench.solutions:
        labels = {axis: found for axis, found in solution.labels.items() if axis in bench.sizes}
        for found in labels.values():
            first = [int(c) for c in found if c not in solution.frozen][:1]
            keeps = {axis: ~np.isin(other, first) for axis, other in labels.items()}
            if first and all(mask.any() for mask in keeps.values()):
                yield {axis: mask for axis, mask in keeps.items() if not mask.all()}


def _subset(bench: Bench, solution: Solution, share: float, rng: np.random.Generator) -> Keeps:
    """Remove a share of the free classes but leave something of every axis.

    Share 0 removes one class; -1 removes one class of every footprint, as balanced operators ask.
    """
    sizes = bench.sizes
    labels = {axis: found for axis, found in solution.labels.items() if axis in sizes}
    if solution.labels.keys() & bench.coupling.collected.blocks.keys():
        return _balanced_subset(bench, solution, abs(share), rng)
    free = sorted({int(c) for found in labels.values() for c in found} - solution.frozen)
    rng.shuffle(free)
    if share < 0:
        prints = {tuple(a for a, found in labels.items() if c in found): c for c in free}
        free = list(prints.values())
    wanted = len(free) if share < 0 else max(1, round(share * len(free)))
    removed: set[int] = set()
    for label in free:
        trial = {*removed, label}
        masks = [~np.isin(found, list(trial)) for found in labels.values()]
        if len(removed) < wanted and all(mask.any() for mask in masks):
            removed = trial
    keeps = {axis: ~np.isin(found, list(removed)) for axis, found in labels.items()}
    return {axis: mask for axis, mask in keeps.items() if not mask.all()}


def _balanced_subset(
    bench: Bench, solution: Solution, share: float, rng: np.random.Generator
) -> Keeps:
    """Remove as many classes from each block, by chance, and leave one of each; maybe nothing."""
    blocks = bench.coupling.collected.blocks
    places: dict[int, list[tuple[Axis, int]]] = {}
    for axis, found in solution.labels.items():
        size = len(found) // blocks.get(axis, 1)
        for position, label in enumerate(found.tolist()):
            if label not in solution.frozen:
                places.setdefault(label, []).append((axis, position // size))
    by_block: dict[frozenset[tuple[Axis, int]], list[int]] = {}
    for label, held in places.items():
        by_block.setdefault(frozenset(held), []).append(label)
    count = max(1, round(share * min(map(len, by_block.values()), default=0)))
    gone = [c for found in by_block.values() for c in rng.permutation(found)[:count]]
    keeps = {a: ~np.isin(found, gone) for a, found in solution.labels.items() if a in bench.sizes}
    for axis, mask in keeps.items():
        rows = mask.reshape(blocks.get(axis, 1), -1).sum(axis=1)
        if len(set(rows.tolist())) > 1 or not rows.all():
            return {}
    return counted({a: m for a, m in keeps.items() if not m.all()}, bench.sizes)


def take(name: str, array: Array, keeps: Keeps) -> Array:
    joint = [axis for axis in keeps if axis.value == name and axis.by >= 0]
    for axis in joint:
        rows = np.moveaxis(array, (axis.by, axis.axis), (0, 1))
        masks = keeps[axis].reshape(-1, rows.shape[1])
        masks = np.repeat(masks, len(rows) // len(masks), axis=0)
        rows = np.stack([np.compress(m, r, axis=0) for m, r in zip(masks, rows, strict=True)])
        array = np.moveaxis(rows, (0, 1), (axis.by, axis.axis))
    for axis in range(array.ndim):
        mask = keeps.get(Axis(name, axis))
        if mask is not None and axis not in [a.axis for a in joint]:
            array = np.compress(mask, array, axis=axis)
    return array


def zeroed(array: Array, axis: Axis, mask: np.ndarray, zero: Array) -> Array:
    """Put zeros where a mask of an axis, or of each of its blocks, is false."""
    if axis.by < 0:
        shape = [-1 if i == axis.axis else 1 for i in range(array.ndim)]
        return np.where(mask.reshape(shape), array, zero)
    copy = np.moveaxis(array.copy(), (axis.by, axis.axis), (0, 1))
    masks = mask.reshape(-1, copy.shape[1])
    for row in range(len(copy)):
        copy[row, ~masks[row * len(masks) // len(copy)]] = zero
    return np.moveaxis(copy, (0, 1), (axis.by, axis.axis))


def masked_run(
    bench: Bench, keeps: Keeps, run: Callable[[onnx.ModelProto, Feeds], list[Array]]
) -> list[Array]:
    """Run the original with removed positions of contracted axes masked, weights included."""
    feed, scale = dict(bench.feed), 1.0
    weights = {name: bench.view.constant(name) for name in bench.view.uses}
    for axis, mask in keeps.items():
        for node, contract in bench.coupling.contracts.get(axis, ()):
            if contract.groups:
                return [_group_norm(bench, mask, contract.groups)]
            if contract.how in ("norm", "rms"):
                return _norm(bench, keeps, contract.how)
            held = feed if axis.value in feed else weights
            zero = np.zeros((), held[axis.value].dtype)
            if contract.zero is not None and contract.zero < len(bench.view.by_index[node].inputs):
                zero = weights[bench.view.by_index[node].inputs[contract.zero]]
            held[axis.value] = zeroed(held[axis.value], axis, mask, zero)
            if contract.how == "mean":
                scale *= len(mask) / mask.sum()
    outputs = run(_with_weights(bench.view.model, weights), feed)
    return outputs if scale == 1.0 else [(o * scale).astype(o.dtype) for o in outputs]


def _with_weights(model: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name], tensor.name))
    return copy


def _norm(bench: Bench, keeps: Keeps, how: str) -> list[Array]:
    """Normalizations over the last axis with their statistics over the kept positions.

    Returns the result, and the sum of two inputs before it where the operator adds them.
    """
    node = bench.view.nodes[0]
    values = {**bench.feed, **{name: bench.view.constant(name) for name in bench.view.uses}}
    given = [values.get(name, np.zeros(())) for name in node.inputs]
    x, vectors = given[0].astype(np.float64), given[1:]
    if looks_up := node.op_type == "EmbedLayerNormalization":
        ids, kinds, words, places, of_kinds, *vectors = given[:7]
        x = (words[ids] + places[np.arange(ids.shape[1])] + of_kinds[kinds]).astype(np.float64)
    if skips := node.op_type.startswith("Skip"):
        gamma, *rest = given[2:]
        beta, bias = (*([np.zeros(())] if how == "rms" else []), *rest, np.zeros(()))[:2]
        x, vectors = x + given[1] + (bias if len(rest) else 0.0), [gamma, beta]
    over: tuple[int, ...] = (-1,)
    if node.op_type == "InstanceNormalization":
        over = tuple(range(2, x.ndim))
        vectors = [vector.reshape(-1, *[1] * (x.ndim - 2)) for vector in vectors]
    mask = keeps[Axis(node.outputs[0], over[0] % x.ndim)]
    mask = mask.reshape(-1, *[1] * (len(over) - 1))
    mean = x.mean(over, keepdims=True, where=mask) if how == "norm" else 0.0
    variance = ((x - mean) ** 2).mean(over, keepdims=True, where=mask)
    y = (x - mean) / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    y = y * vectors[0] + (vectors[1] if len(vectors) > 1 else 0.0)
    inverse = 1 / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    statistics = [x] if skips or looks_up else [mean, inverse] if how == "norm" else [inverse]
    found = [y, *statistics][: sum(map(bool, node.outputs))]
    return [array.astype(np.float32) for array in found]


def _group_norm(bench: Bench, mask: np.ndarray, groups: int) -> Array:
    """GroupNormalization with each group's statistics over its kept channels."""
    x = bench.feed[bench.view.nodes[0].inputs[0]].astype(np.float64)
    scale, bias = (bench.view.constant(name) for name in bench.view.nodes[0].inputs[1:])
    each = x.shape[1] // groups
    if len(scale) == groups:
        scale, bias = np.repeat(scale, each), np.repeat(bias, each)
    y = np.zeros_like(x)
    for first in range(0, x.shape[1], each):
        kept = np.flatnonzero(mask[first : first + each]) + first
        for sample in range(len(x)) if len(kept) else ():
            part = x[sample, kept]
            y[sample, kept] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    shape = (-1, *[1] * (x.ndim - 2))
    return (y * scale.reshape(shape) + bias.reshape(shape)).astype(np.float32)


def gap(found: list[Array], wanted: list[Array], rtol: float = RTOL) -> str:
    """Say how two lists of outputs differ; "" if they do not."""
    if len(found) != len(wanted):
        return f"{len(found)} outputs for {len(wanted)}"
    for f, w in zip(found, wanted, strict=True):
        if f.shape != w.shape or f.dtype != w.dtype:
            return f"{f.dtype}{list(f.shape)} for {w.dtype}{list(w.shape)}"
        if w.dtype.kind == "f":
            scale = np.abs(w[np.isfinite(w)]).max(initial=0)
            if not np.allclose(f, w, rtol=rtol, atol=rtol * scale, equal_nan=True):
                return f"differs by {np.abs(f - w).max():.3g} of {scale:.3g}"
        elif not np.array_equal(f, w):
            return "other integers"
    return ""


def broken(bench: Bench, keeps: Keeps) -> str:
    """Cut and compare under every judge; "" if the law holds.

    Raises
    ------
    UnrepresentableError
        If the cut cannot be written.
    """
    model = cut(bench.view, bench.coupling, [bench.trace], keeps)
    names = [name for name in bench.case.outputs if name != "_"]
    feed = {name: take(name, array, keeps) for name, array in bench.feed.items()}
    for judge, run in bench.judges().items():
        whole = dict(zip(names, masked_run(bench, keeps, run), strict=True))
        if any(
            len(m) != whole[a.value].shape[a.axis]
            for a, m in keeps.items()
            if a.value in whole and a.by < 0
        ):
            return f"{judge}: the data decide the size of an output"
        wanted = [take(name, array, keeps) for name, array in whole.items()]
        try:
            found = run(model, feed)
        except Exception as error:  # a cut model that does not run breaks the law
            return f"{judge}: {error}"
        if difference := gap(found, wanted, bench.case.rounding):
            return f"{judge}: {difference}"
    if "onnxruntime" in bench.case.skip:
        return ""
    difference = gap(run_onnxruntime(upcast(model), feed), gated_run(bench, keeps, names))
    return f"gates: {difference}" if difference else ""


def gated_run(bench: Bench, keeps: Keeps, names: list[str]) -> list[Array]:
    """Run the package's own masked original."""
    gated = gate(bench.view, bench.trace, bench.coupling, list(keeps))
    outputs = run_onnxruntime(gated.model, {**bench.feed, **gated.feeds(keeps)})
    return [take(n, o, keeps) for n, o in zip(names, outputs, strict=True)]


def violations(case: OpCase) -> list[str]:
    """Check one operator whole: which axes are free, and the law for every choice of what stays."""
    bench = set_up(case)
    found = _wrong_axes(bench)
    done: set[Axis] = set()
    refusals: set[str] = set()
    for keeps in keep_sets(bench):
        try:
            difference = broken(bench, keeps)
        except UnrepresentableError as refusal:
            refusals.add(str(refusal))
            continue
        if difference:
            removed = {str(a): np.flatnonzero(~m).tolist() for a, m in keeps.items()}
            found.append(f"without {removed}: {difference}")
        done |= keeps.keys()
    for refusal in refusals:
        if not any(text in refusal for text in case.refused.values()):
            found.append(f"refused: {refusal}")
    for axes, text in case.refused.items():
        if not any(text in refusal for refusal in refusals):
            found.append(f"never refused for '{text}'")
        if wrongly := {a for a in done if (a.value, a.axis) in parse_axes(axes)}:
            found.append(f"cut although refused: {sorted(map(str, wrongly))}")
    never = parse_axes(case.cut) - {(a.value, a.axis) for a in done}
    never -= {axis for axes in case.refused for axis in parse_axes(axes)}
    if never:
        found.append(f"never cut: {sorted(never)}")
    return found


def _wrong_axes(bench: Bench) -> list[str]:
    """Compare the free axes and the reasons of the frozen ones with what the case says."""
    found = []
    outer = (axis for axis in bench.free if axis.value not in bench.view.inner)
    free = {(axis.value.split("@")[0], axis.axis) for axis in outer}
    wanted = parse_axes(bench.case.cut)
    if free != wanted:
        found.append(f"free but should not be {free - wanted}, frozen {wanted - free}")
    for axes, text in bench.case.why.items():
        for value, number in parse_axes(axes):
            frozen = bench.coupling.frozen.get(Axis(value, number))
            if frozen is None or text not in frozen.reason:
                found.append(f"{value}[{number}] frozen as {frozen}, not for '{text}'")
    return found
