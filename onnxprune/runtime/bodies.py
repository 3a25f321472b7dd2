"""Bodies of control flow as models of their own, and what each turn of them is fed."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxprune.model.domains import short
from onnxprune.model.scopes import Scope, bodies_of, values_read
from onnxprune.model.view import Node
from onnxprune.runtime.session import RunFailedError

__all__ = [
    "Constants",
    "body_model",
    "constants_of",
    "count_of",
    "count_turns",
    "is_control_flow",
    "turn_feed",
    "turn_output",
]

Array = NDArray[np.generic]
Constants: TypeAlias = Mapping[str, TensorProto | onnx.NodeProto]


def is_control_flow(node: Node, opset: int) -> bool:
    """Say whether a node runs its bodies in a way known here (Scan had another one before 9)."""
    return node.domain == "" and (
        node.op_type in ("If", "Loop") or (node.op_type == "Scan" and opset >= 9)
    )


def constants_of(graph: onnx.GraphProto) -> dict[str, TensorProto | onnx.NodeProto]:
    """Map the names of a graph's constants to what makes them."""
    found: dict[str, TensorProto | onnx.NodeProto] = {t.name: t for t in graph.initializer}
    found.update((n.output[0], n) for n in graph.node if n.op_type == "Constant")
    return found


def count_turns(graph: onnx.GraphProto) -> list[str]:
    """Let every Loop of a graph give out its turns (the graph is changed), and name the outputs."""
    found = []
    for place, node in enumerate(graph.node):
        if node.op_type == "Loop" and not short(node.domain):
            body = dict(bodies_of(node))["body"]
            inner = f"{turn_output(place)}/inner"
            body.node.append(helper.make_node("Identity", [body.input[0].name], [inner]))
            body.output.append(helper.make_tensor_value_info(inner, TensorProto.INT64, []))
            node.output.extend([""] * (len(body.output) - 2 - len(node.output)))
            node.output.append(turn_output(place))
            found.append(turn_output(place))
    return found


def turn_output(place: int) -> str:
    """Name the output with one entry per turn of the Loop at a place of its graph."""
    return f"onnxprune/turn/{place}"


def body_model(
    like: onnx.ModelProto,
    scope: Scope,
    feed: Mapping[str, Array],
    visible: Mapping[str, Array],
    constants: Constants,
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Make a model of a body, and the outer values to feed it beside its own inputs.

    Parameters
    ----------
    like : ModelProto
        Where the body lies.
    scope : Scope
    feed : mapping of name to array
        The body's own inputs; only their types matter.
    visible : mapping of name to array
        Computed values that the body may capture.
    constants : Constants
        That the body may capture.

    Returns
    -------
    ModelProto
        Without outputs.
    dict of str to array

    Raises
    ------
    RunFailedError
        If the body reads what is no tensor.
    """
    model = onnx.ModelProto(ir_version=like.ir_version)
    model.opset_import.extend(like.opset_import)
    model.functions.extend(like.functions)
    graph = model.graph
    graph.CopyFrom(scope.graph)
    del graph.input[:], graph.output[:], graph.value_info[:]
    bound = {
        *feed,
        *(t.name for t in graph.initializer),
        *(o for n in graph.node for o in n.output),
    }
    reads = {v for node in graph.node for v in values_read(node)} - bound
    captured = {name: visible[name] for name in sorted(reads) if name in visible}
    given = [constants[name] for name in sorted(reads - captured.keys()) if name in constants]
    graph.initializer.extend(t for t in given if isinstance(t, TensorProto))
    made = [*(n for n in given if isinstance(n, onnx.NodeProto)), *graph.node]
    del graph.node[:]
    graph.node.extend(made)
    for name, array in {**captured, **feed}.items():
        kind = helper.np_dtype_to_tensor_dtype(_tensor(array).dtype)
        graph.input.append(helper.make_tensor_value_info(name, kind, None))
    return model, captured


def turn_feed(
    node: Node, number: int, read: Sequence[Array | None], before: Sequence[Array]
) -> list[Array]:
    """Return what one turn of a body is fed, by the place of its input.

    Parameters
    ----------
    node : Node
        An If, Loop or Scan.
    number : int
        Of the turn; 0 also looks at bodies that a run never enters.
    read : sequence of array or None
        What the node reads, by slot.
    before : sequence of array
        What the body gave in the turn before; empty for turn 0.
    """
    if node.op_type == "If":
        return []
    if node.op_type == "Loop":
        given = read[1] if len(read) > 1 else None
        condition = np.asarray(True if given is None else given).reshape(())
        states: Sequence[Array | None] = before or [condition, *read[2:]]
        return [np.asarray(number), *map(_tensor, states[: len(read[2:]) + 1])]
    _, axes, directions = scan_inputs(node, read)
    states = before if before else read
    slices = [
        np.take(_tensor(array), -1 - number if back else number, axis)
        for array, axis, back in zip(read[-len(axes) :], axes, directions, strict=True)
    ]
    return [*map(_tensor, states[: len(read) - len(axes)]), *slices]


def count_of(node: Node, attribute: str, read: Sequence[Array | None]) -> int | None:
    """Return how often a run enters a body; None for a Loop, which has to be watched."""
    if node.op_type == "If":
        return int(bool(np.asarray(read[0]).any()) == (attribute == "then_branch"))
    return None if node.op_type == "Loop" else scan_inputs(node, read)[0]


def scan_inputs(node: Node, read: Sequence[Array | None]) -> tuple[int, list[int], list[int]]:
    """Return the length that a Scan walks along, and axis and direction of each of its inputs."""
    count = node.attributes["num_scan_inputs"]
    assert isinstance(count, int)
    axes, directions = (
        list(node.attributes.get(name, [0] * count))  # type: ignore[call-overload]
        for name in ("scan_input_axes", "scan_input_directions")
    )
    return _tensor(read[-count]).shape[axes[0]], axes, directions


def _tensor(value: Array | None) -> Array:
    if not isinstance(value, np.ndarray):
        msg = "a sequence or an optional value is no tensor"
        raise RunFailedError(msg)
    return value
