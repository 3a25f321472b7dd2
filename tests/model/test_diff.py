import onnx
import pytest
from onnx import helper

from onnxprune.model.diff import field_diff
from tests.model.small import WEIGHT, embedded, external, model


def changed(edit):
    proto = model()
    edit(proto)
    return field_diff(model(), proto)


def test_equal_models():
    assert field_diff(model(), model()) == []


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (lambda m: setattr(m, "producer_name", "me"), "producer_name: "),
        (lambda m: setattr(m, "doc_string", ""), "doc_string: absent against ''"),
        (lambda m: m.metadata_props.add(key="k"), "metadata_props: 0 entries against 1"),
        (lambda m: setattr(m.opset_import[0], "version", 18), "opset_import[0].version: 17 "),
        (lambda m: setattr(m.graph.node[0], "name", "n"), "graph.node[0].name: absent "),
        (lambda m: m.graph.node[0].input.reverse(), "graph.node[0].input: ['x', 'W'] "),
        (lambda m: m.graph.initializer[0].dims.append(1), "graph.initializer[0].dims: 2 entries"),
        (
            lambda m: setattr(m.graph.initializer[0], "raw_data", bytes(4096)),
            "graph.initializer[0].raw_data: 4096 bytes",
        ),
        (
            lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_param", "n"),
            "graph.input[0].type.tensor_type.shape.dim[1].dim_value: 32 against absent",
        ),
        (lambda m: m.ClearField("graph"), "graph: present against absent"),
    ],
    ids=str,
)
def test_where_the_difference_is(edit, path):
    lines = changed(edit)
    assert lines
    assert any(line.startswith(path) for line in lines)


def test_only_what_differs():
    def edit(proto):
        proto.graph.node[0].op_type = "Add"
        proto.graph.name = "other"

    assert [line.split(":")[0] for line in changed(edit)] == ["graph.node[0].op_type", "graph.name"]


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_fields_of_a_newer_onnx(levels):
    def edit(proto):
        message = [proto, proto.graph, proto.graph.node[0]][levels]
        message.MergeFromString(b"\xf8\x3f\x05")  # field 1023

    path = ["model", "graph", "graph.node[0]"][levels]
    assert changed(edit) == [f"{path}: fields unknown to this version of ONNX"]


def with_float(value):
    proto = model()
    proto.graph.node[0].attribute.append(helper.make_attribute("f", value))
    return proto


def test_floats_are_compared_by_their_bits():
    nan = float("nan")
    assert field_diff(with_float(nan), with_float(nan)) == []
    assert field_diff(with_float([nan, 1.0]), with_float([nan, 1.0])) == []
    beside = field_diff(with_float([nan, 1.0]), with_float([nan, 2.0]))
    assert [line.split(":")[0] for line in beside] == ["graph.node[0].attribute[0].floats"]
    assert len(field_diff(with_float(0.0), with_float(-0.0))) == 1


def test_bodies_are_looked_into():
    def nested(op):
        value = helper.make_tensor_value_info("z", 1, [1])
        body = helper.make_graph([helper.make_node(op, ["x"], ["z"])], "b", [], [value])
        return model(nodes=[helper.make_node("If", ["c"], ["y"], then_branch=body)])

    lines = field_diff(nested("Relu"), nested("Abs"))
    assert lines == ["graph.node[0].attribute[0].g.node[0].op_type: 'Relu' against 'Abs'"]


class TestOutside:
    @pytest.fixture
    def files(self, tmp_path):
        (tmp_path / "w.bin").write_bytes(b"pad!" + WEIGHT.tobytes())
        (tmp_path / "v.bin").write_bytes(WEIGHT.tobytes())
        (tmp_path / "u.bin").write_bytes(bytes(4096))
        return (tmp_path / "a.onnx", tmp_path / "b.onnx")

    def test_the_same_data_elsewhere(self, files):
        one = model(external("w.bin", offset=4))
        for other in (model(external("v.bin")), model(embedded(WEIGHT))):
            assert field_diff(one, other) != []
            assert field_diff(one, other, bases=files) == []
            assert field_diff(other, one, bases=files) == []

    def test_other_data(self, files):
        lines = field_diff(model(external("v.bin")), model(external("u.bin")), bases=files)
        assert len(lines) == 1
        assert lines[0].startswith("graph.initializer[0]: 4096 bytes of data")

    def test_other_shape_and_name(self, files):
        other = model(external("v.bin", name="V", array=WEIGHT.reshape(16, 64)))
        lines = field_diff(model(external("v.bin")), other, bases=files)
        paths = {line.split(":")[0] for line in lines}
        assert paths == {"graph.initializer[0].dims", "graph.initializer[0].name"}


def test_many_nodes():
    def chain(last):
        nodes = [onnx.NodeProto(op_type="Relu", input=["x"], output=["y"]) for _ in range(100_000)]
        nodes[-1].op_type = last
        proto = model()
        proto.graph.node.extend(nodes)
        return proto

    lines = field_diff(chain("Relu"), chain("Abs"))
    assert lines == ["graph.node[100000].op_type: 'Relu' against 'Abs'"]
