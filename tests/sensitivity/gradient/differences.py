"""A rule's gradient against central differences.

The reference implementation computes in float64. What it does not cover (grouped transposed
convolutions, the directions of recurrent layers) is computed by onnxruntime in float32.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.coupling.collect import make_op
from onnxprune.model.derived import constant_values
from onnxprune.model.view import View, build_view
from onnxprune.runtime.session import Session
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.gradient.rules import Call, lookup
from onnxprune.sensitivity.gradient.tape import Tape

Feed = dict[str, np.ndarray]


class Double:
    """The reference implementation: float64, small steps."""

    kind, dtype, step, tolerance = TensorProto.DOUBLE, np.float64, 1e-4, 1e-6
    run = staticmethod(lambda model, names, feed: ReferenceEvaluator(model).run(names, feed))


class Single:
    """Onnxruntime: float32, large steps; differences of fourth order keep them honest."""

    kind, dtype, step, tolerance = TensorProto.FLOAT, np.float32, 0.03, 1e-3
    run = staticmethod(lambda model, names, feed: list(Session(model).run(feed, names).values()))


class Fine(Single):
    """Onnxruntime where kinks lie close."""

    step, tolerance = 1e-3, 5e-3


def one_node(
    op_type: str,
    inputs: Mapping[str, Sequence[int]],
    constants: Mapping[str, np.ndarray],
    attributes: Mapping[str, object],
    *,
    outputs: Sequence[str] = ("y",),
    order: Sequence[str] = (),
    opset: int = 17,
    by: type = Double,
) -> onnx.ModelProto:
    """A model of one operator; inputs first, then constants, unless ``order`` says otherwise."""
    names = list(order) or [*inputs, *constants]
    node = helper.make_node(op_type, names, list(outputs), name="node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, by.kind, [None] * len(s)) for n, s in inputs.items()],
        [helper.make_tensor_value_info(o, by.kind, None) for o in outputs if o],
        [numpy_helper.from_array(_typed(a, by), n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _typed(array: np.ndarray, by: type) -> np.ndarray:
    """Weights in the precision of the model; float32 scales of Resize stay what they are."""
    given = np.asarray(array)
    return given.astype(by.dtype) if given.dtype == np.float64 else given


def seen(view: View, feed: Feed, by: type) -> Trace:
    """Trace without the package's own way."""
    names = [o for node in view.nodes for o in node.outputs if o]
    found = dict(zip(names, by.run(view.model, names, feed), strict=True))
    arrays = {**feed, **found, **{v: view.constant(v) for v in view.uses}}
    return Trace(
        {n: np.shape(a) for n, a in arrays.items()},
        {n: np.asarray(a).dtype for n, a in arrays.items()},
        {n: np.asarray(a) for n, a in arrays.items() if view.is_constant(n)},
    )


def gradients(
    model: onnx.ModelProto,
    wanted: Sequence[str],
    traced: Feed,
    feed: Feed,
    cotangents: Feed,
    by: type,
) -> Feed:
    """Return a one-node model's gradients as the rule says; traced at one batch, run at another."""
    view = build_view(model, None)
    trace = seen(view, traced, by)
    tape = Tape(view, trace, traced)
    (node,) = view.nodes
    op = make_op(view, trace, node, constant_values(view), frozenset())
    given = [tape.cotangent(f"ct/{o}") if f"ct/{o}" in cotangents else None for o in node.outputs]
    slots = frozenset(node.inputs.index(name) for name in wanted)
    rule = lookup(node.domain, node.op_type)
    found = dict(rule(tape, Call(op, given, slots)))
    results = [found[node.inputs.index(name)] for name in wanted]
    crossing = tape.crossing(results)
    early = tape.forward([], [c for c in crossing if c not in feed])
    names = [o.name for o in early.graph.output]
    kept = dict(zip(names, by.run(early, names, feed) if names else [], strict=True))
    kept |= {c: feed[c] for c in crossing if c in feed} | cotangents
    late = tape.backward(results, {n: np.asarray(a).dtype for n, a in kept.items()})
    read = {i.name for i in late.graph.input}
    given = {n: a for n, a in kept.items() if n in read}
    values = by.run(late, list(dict.fromkeys(results)), given)
    by_name = dict(zip(dict.fromkeys(results), values, strict=True))
    return {name: by_name[result] for name, result in zip(wanted, results, strict=True)}


def slope(model: onnx.ModelProto, feed: Feed, direction: Feed, cotangents: Feed, by: type) -> float:
    """Central difference of fourth order of the cotangents' product with the outputs."""
    names = [name.removeprefix("ct/") for name in cotangents]
    total = 0.0
    for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        moved = {
            n: (a + steps * by.step * direction[n]).astype(by.dtype) if n in direction else a
            for n, a in feed.items()
        }
        for name, output in zip(names, by.run(model, names, moved), strict=True):
            total += weight * float((cotangents[f"ct/{name}"].astype(np.float64) * output).sum())
    return total / (12 * by.step)


def check(
    model: onnx.ModelProto,
    inputs: Mapping[str, Sequence[int]],
    *,
    wanted: Sequence[str] = (),
    seed: int = 0,
    low: float = -2.0,
    high: float = 2.0,
    batch: str = "first",
    outputs: Sequence[str] = (),
    by: type = Double,
) -> None:
    """Assert that the rule's gradients are those of central differences, in four directions.

    The rule is written for a batch of 3 (axis 0 of the inputs that have 3 there, axis 1 for
    recurrent layers) and run with 2.
    """
    rng = np.random.default_rng(seed)
    axis = {"first": 0, "second": 1, "none": None}[batch]

    def draw(samples: int) -> Feed:
        feed = {}
        for name, shape in inputs.items():
            sizes = list(shape)
            if axis is not None and len(sizes) > axis and sizes[axis] == 3:
                sizes[axis] = samples
            feed[name] = rng.uniform(low, high, sizes).astype(by.dtype)
        return feed

    traced, feed = draw(3), draw(2)
    names = list(outputs) or [model.graph.output[0].name]
    clean = by.run(model, names, feed)
    cotangents = {
        f"ct/{n}": rng.standard_normal(np.shape(a)).astype(by.dtype)
        for n, a in zip(names, clean, strict=True)
    }
    chosen = list(wanted) or list(inputs)
    found = gradients(model, chosen, traced, feed, cotangents, by)
    assert any(np.abs(found[n]).max() > 0 for n in chosen)
    for name in chosen:
        assert found[name].shape == feed[name].shape, name
        for _ in range(4):
            direction = rng.standard_normal(feed[name].shape)
            true = slope(model, feed, {name: direction}, cotangents, by)
            along = float((found[name] * direction).sum())
            np.testing.assert_allclose(
                along, true, rtol=by.tolerance, atol=by.tolerance, err_msg=name
            )
