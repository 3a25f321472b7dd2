"""Small networks, built node by node, and the check that every group of them can be cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.coupling import Coupling, Group, couple
from onnxprune.coupling.keeps import keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import View, build_view
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.verify import TOLERANCE, Verifier
from onnxprune.runtime.session import Session
from onnxprune.runtime.trace import Trace, trace

_SIZES = ({"n": 2, "t": 5, "p": 4}, {"n": 3, "t": 7, "p": 2})  # of the named axes, in the two runs


class Net:
    """A model under construction; methods return value names."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: dict[str, tuple[tuple[int | str, ...], int]] = {}
        self.outputs: list[str] = []
        self.count = 0

    def input(
        self, *shape: int | str, name: str = "x", kind: int = TensorProto.FLOAT, high: int = 5
    ) -> str:
        self.inputs[name] = (shape, kind)
        return name

    def weight(self, *shape: int, name: str = "") -> str:
        array = self.rng.standard_normal(shape).astype(np.float32) / 2
        return self.constant(array, name)

    def constant(self, value: object, name: str = "") -> str:
        self.count += 1
        name = name or f"k{self.count}"
        array = np.asarray(value, None if hasattr(value, "dtype") else _dtype(value))
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def op(self, op_type: str, *inputs: str, name: str = "", outs: int = 1, **attributes):
        self.count += 1
        name = name or f"{op_type.lower()}{self.count}"
        outputs = [name] if outs == 1 else [f"{name}.{i}" for i in range(outs)]
        domain = attributes.pop("domain", "")
        node = helper.make_node(
            op_type, list(inputs), outputs, name=name, domain=domain, **attributes
        )
        self.nodes.append(node)
        return outputs[0] if outs == 1 else outputs

    def conv(self, x: str, cin: int, cout: int, k: int = 1, *, name: str = "", group: int = 1):
        """A convolution that keeps the size of its input, with bias."""
        w, b = self.weight(cout, cin // group, k, k), self.weight(cout)
        return self.op("Conv", x, w, b, name=name, group=group, pads=[k // 2] * 4)

    def linear(self, x: str, rows: int, columns: int, *, name: str = ""):
        return self.op("MatMul", x, self.weight(rows, columns), name=name)

    def batch_norm(self, x: str, c: int, *, name: str = ""):
        variance = self.constant(np.abs(self.rng.standard_normal(c)).astype(np.float32) + 0.5)
        vectors = [self.weight(c) for _ in range(3)]
        return self.op("BatchNormalization", x, *vectors, variance, name=name)

    def reshape(self, x: str, *shape: int, name: str = ""):
        return self.op("Reshape", x, self.constant(shape), name=name)

    def output(self, *names: str) -> None:
        self.outputs.extend(names)

    def model(self, ir_version: int = 8) -> onnx.ModelProto:
        infos = [
            helper.make_tensor_value_info(name, kind, shape)
            for name, (shape, kind) in self.inputs.items()
        ]
        graph = helper.make_graph(
            self.nodes,
            "net",
            infos,
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
        for name, array in Session(model).run(feeds(model)[0]).items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            shape = [f"{name}_{axis}" for axis in range(array.ndim)]
            info = next(o for o in model.graph.output if o.name == name)
            info.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
        return model


def _dtype(value: object) -> type:
    flat = np.ravel(np.asarray(value, object))
    return np.int64 if all(isinstance(v, int) for v in flat) else np.float32


@dataclass(frozen=True, eq=False)
class Looked:
    """A model, looked at as the pipeline does."""

    model: onnx.ModelProto
    view: View
    traces: tuple[Trace, ...]
    coupling: Coupling
    verifier: Verifier

    def group(self, name: str) -> Group:
        return next(g for g in self.coupling.groups if g.name == name)

    @property
    def found(self) -> set[tuple[str, str, int]]:
        """Name, kind and size of every group."""
        return {(g.name, g.kind, g.size) for g in self.coupling.groups}

    def cut(self, removed: Sequence[tuple[Group, Sequence[int]]]) -> onnx.ModelProto:
        keeps = keep_masks(removed, self.coupling.collected.sizes)
        return cut(self.view, self.coupling, self.traces, keeps)

    def error(self, removed: Sequence[tuple[Group, Sequence[int]]]) -> float:
        keeps = keep_masks(removed, self.coupling.collected.sizes)
        return self.verifier.error(self.cut(removed), keeps)

    def why(self, value: str, axis: int) -> str:
        """The reason why an axis is frozen, "" if it is not."""
        frozen = self.coupling.frozen.get(Axis(value, axis))
        return "" if frozen is None else frozen.reason

    def free(self, value: str, axis: int) -> bool:
        """Whether any group has a channel on an axis."""
        return any(
            Axis(value, axis) == m.axis.plain for g in self.coupling.groups for m in g.members
        )


def feeds(model: onnx.ModelProto, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Two feeds at two sizes of the named axes."""
    rng = np.random.default_rng(seed)
    made = []
    given = {t.name for t in model.graph.initializer}
    for sizes in _SIZES:
        feed = {}
        for info in model.graph.input:
            if info.name in given:
                continue
            dims = info.type.tensor_type.shape.dim
            shape = [sizes[d.dim_param] if d.dim_param else d.dim_value for d in dims]
            kind = info.type.tensor_type.elem_type
            if kind == TensorProto.INT64:
                feed[info.name] = rng.integers(0, 5, shape)
            elif kind == TensorProto.BOOL:
                feed[info.name] = rng.random(shape) > 0.5
            else:
                feed[info.name] = rng.standard_normal(shape).astype(np.float32)
        made.append(feed)
    return made


def look(net: Net | onnx.ModelProto, *, change_interface: bool = False) -> Looked:
    model = net.model() if isinstance(net, Net) else net
    onnx.checker.check_model(model)
    view = build_view(model, Path())
    both = feeds(model)
    traces = tuple(trace(view, feed) for feed in both)
    coupling = couple(view, traces[0], change_interface=change_interface)
    return Looked(model, view, traces, coupling, Verifier(view, traces[0], coupling, both))


def half(groups: Sequence[Group], seed: int = 0) -> list[tuple[Group, list[int]]]:
    """Remove half of the channels of every group, by chance."""
    rng = np.random.default_rng(seed)
    return [(g, some(g, g.size // g.step // 2, rng)) for g in groups]


def some(group: Group, count: int, rng: np.random.Generator) -> list[int]:
    """Choose so many channels of each block."""
    order = group.balanced(rng.permutation(group.size))
    return sorted(order[: count * group.step].tolist())


def cuts_hold(net: Net | onnx.ModelProto, *, change_interface: bool = False) -> Looked:
    """Cut every group alone and all together; each cut must equal the masked original."""
    looked = look(net, change_interface=change_interface)
    groups = looked.coupling.groups
    assert groups, {str(a): f.reason for a, f in looked.coupling.frozen.items()}
    for group in groups:
        one = some(group, 1, np.random.default_rng(2))
        for removed in (half([group]), half([group], seed=1), [(group, one)]):
            assert looked.error(removed) <= TOLERANCE, (group.name, removed[0][1])
    assert looked.error(half(groups)) <= TOLERANCE
    cut_model = looked.cut(half(groups))
    onnx.checker.check_model(cut_model, full_check=True)
    assert parameters(cut_model) < parameters(looked.model)
    return looked


def parameters(model: onnx.ModelProto) -> int:
    arrays: Mapping[str, np.ndarray] = {
        t.name: numpy_helper.to_array(t) for t in model.graph.initializer
    }
    for node in model.graph.node:
        if node.op_type == "Constant":
            arrays = {**arrays, node.output[0]: numpy_helper.to_array(node.attribute[0].t)}
    return sum(a.size for a in arrays.values() if a.dtype.kind == "f")
