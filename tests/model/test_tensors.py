import os

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import InputError
from onnxprune.model.tensors import (
    check_tensor,
    from_array,
    iter_graphs,
    iter_nodes,
    iter_tensors,
    raw_bytes,
    raw_size,
    to_array,
)
from tests.model.small import WEIGHT, embedded, external, model

NUMERIC = [
    number for name, number in TensorProto.DataType.items() if name not in {"UNDEFINED", "STRING"}
]
NAMES = {number: name for name, number in TensorProto.DataType.items()}


def values(data_type, shape):
    """Values that every type holds: 0 and 1 in no regular order."""
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    bits = np.random.default_rng(3).integers(0, 2, shape)
    if dtype == ml_dtypes.float8_e8m0fnu:  # holds powers of two only
        bits = bits + 1
    return np.asarray(bits).astype(np.float32).astype(dtype)


def refusal(tensor, base):
    with pytest.raises(InputError) as caught:
        check_tensor(tensor, base)
    with pytest.raises(InputError):
        to_array(tensor, base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(one, other):
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and one.astype(np.complex128).tolist() == other.astype(np.complex128).tolist()


class TestRoundTrip:
    @pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 4), (2, 2, 2)], ids=str)
    @pytest.mark.parametrize("data_type", NUMERIC, ids=NAMES.get)
    def test_all_types_embedded_and_outside(self, tmp_path, data_type, shape):
        array = values(data_type, shape)
        made = from_array(array, TensorProto(name="W", data_type=data_type))
        assert list(made.dims) == list(shape)
        assert made.data_type == data_type
        assert len(made.raw_data) == raw_size(made)
        assert same(to_array(made, tmp_path), array)
        assert same(numpy_helper.to_array(made), array)

        (tmp_path / "w.bin").write_bytes(b"abc" + made.raw_data)  # at an odd place on purpose
        outside = external("w.bin", array=array, offset=3, length=len(made.raw_data))
        outside.data_type = data_type
        assert same(to_array(outside, tmp_path), array)
        assert raw_bytes(outside, tmp_path).tobytes() == made.raw_data

    @pytest.mark.parametrize("data_type", NUMERIC, ids=NAMES.get)
    def test_typed_fields(self, tmp_path, data_type):
        array = values(data_type, (3, 5))
        if NAMES[data_type].startswith(("INT4", "UINT4", "INT2", "UINT2", "FLOAT4")):
            entries = np.frombuffer(embedded(array).raw_data, np.uint8).tolist()
            tensor = TensorProto(name="W", data_type=data_type, dims=(3, 5), int32_data=entries)
        else:
            plain = array.view(np.uint8) if array.dtype.itemsize == 1 else array
            if array.dtype in (np.float16, ml_dtypes.bfloat16):
                plain = array.view(np.uint16)
            flat = plain.flatten()
            if array.dtype.kind == "c":
                flat = flat.view(flat.real.dtype)
            tensor = TensorProto(name="W", data_type=data_type, dims=(3, 5))
            getattr(tensor, helper.tensor_dtype_to_field(data_type)).extend(flat.tolist())
        assert same(to_array(tensor, tmp_path), array)
        assert raw_bytes(tensor, tmp_path).tobytes() == embedded(array).raw_data
        field = helper.tensor_dtype_to_field(data_type)
        getattr(tensor, field).pop()
        assert f"in {field}" in refusal(tensor, tmp_path)

    def test_strings_of_any_bytes(self, tmp_path):
        strings = [b"plain", "\u00e9".encode(), b"\xff\xfe", b""]
        tensor = TensorProto(name="S", data_type=TensorProto.STRING, dims=[2, 2])
        tensor.string_data.extend(strings)
        array = to_array(tensor, tmp_path)
        assert array.shape == (2, 2)
        assert array[0].tolist() == ["plain", "\u00e9"]
        assert list(from_array(array, tensor).string_data) == strings

    def test_name_and_notes_stay(self):
        like = embedded(WEIGHT)
        like.doc_string = "kept"
        like.metadata_props.add(key="k", value="v")
        made = from_array(WEIGHT[:3], like)
        assert (made.name, made.doc_string, list(made.dims)) == ("W", "kept", [3, 32])
        assert made.metadata_props == like.metadata_props
        assert from_array(WEIGHT, like) == like

    def test_strided_arrays(self, tmp_path):
        made = from_array(WEIGHT[::2].T, embedded(WEIGHT))
        assert same(to_array(made, tmp_path), WEIGHT[::2].T)

    def test_no_silent_cast(self):
        with pytest.raises(ValueError, match="float64"):
            from_array(WEIGHT.astype(np.float64), embedded(WEIGHT))


class TestEmbedded:
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"data_type": 0, "dims": [1]}, "element type 0"),
            ({"data_type": 99, "dims": [1]}, "element type 99"),
            ({"data_type": 1, "dims": [-1], "raw_data": b"1234"}, "negative size"),
            ({"data_type": 1, "dims": [2**62, 2**62]}, "impossible shape"),
            ({"data_type": 1, "dims": [0, 2**62, 8]}, "impossible shape"),
            ({"data_type": 1, "dims": [2], "raw_data": b"1234"}, "needs 8 in raw_data"),
            ({"data_type": 1, "dims": [2], "raw_data": b"1" * 12}, "holds 12 in raw_data"),
            ({"data_type": 1, "dims": [], "raw_data": b"1" * 8}, "needs 4"),
            ({"data_type": 1, "dims": [2]}, "holds nothing"),
            ({"data_type": 1, "dims": [2], "int32_data": [1, 2]}, "needs 2 in float_data"),
            ({"data_type": 1, "dims": [0], "float_data": [1.0]}, "needs 0"),
            (
                {"data_type": 1, "dims": [1], "raw_data": b"1234", "float_data": [1.0]},
                "twice",
            ),
            ({"data_type": 22, "dims": [3], "raw_data": b"123"}, "needs 2 in raw_data"),
            ({"data_type": 26, "dims": [5], "raw_data": b"1"}, "needs 2 in raw_data"),
            ({"data_type": 8, "dims": [1], "raw_data": b"1234"}, "needs 1 in string_data"),
            ({"data_type": 8, "dims": [2], "string_data": [b"a"]}, "needs 2 in string_data"),
            (
                {"data_type": 1, "dims": [1], "raw_data": b"1234", "segment": {"begin": 0}},
                "segments",
            ),
        ],
        ids=str,
    )
    def test_contradictions(self, tmp_path, fields, words):
        assert words in refusal(TensorProto(name="W", **fields), tmp_path)

    @pytest.mark.parametrize("raw", [{}, {"raw_data": b""}])
    def test_empty_tensors_may_say_so_in_two_ways(self, tmp_path, raw):
        tensor = TensorProto(name="W", data_type=1, dims=[0, 3], **raw)
        assert to_array(tensor, tmp_path).shape == (0, 3)


class TestOutside:
    @pytest.fixture
    def base(self, tmp_path):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "w.bin").write_bytes(WEIGHT.tobytes())
        (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
        return folder / "m.onnx"

    def test_mapped_read_only(self, base):
        array = to_array(external("w.bin"), base)
        assert same(array, WEIGHT)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1

    def test_the_folder_will_do_for_plain_files(self, base):
        assert same(to_array(external("w.bin"), base.parent), WEIGHT)

    def test_not_relative_to_the_working_folder(self, base, tmp_path, monkeypatch):
        (tmp_path / "w.bin").write_bytes(bytes(4096))
        monkeypatch.chdir(tmp_path)
        assert same(to_array(external("w.bin"), base), WEIGHT)
        monkeypatch.chdir(base.parent)
        assert same(to_array(external("w.bin"), base.relative_to(base.parent)), WEIGHT)

    def test_offset_length_and_checksum(self, base):
        half = WEIGHT[16:]
        extra = [("checksum", "0a")]
        tensor = external("w.bin", array=half, offset=2048, length=2048, extra=extra)
        assert same(to_array(tensor, base), half)

    def test_sub_folders(self, base):
        (base.parent / "deep" / "er").mkdir(parents=True)
        (base.parent / "w.bin").rename(base.parent / "deep" / "er" / "w.bin")
        assert same(to_array(external("deep/er/w.bin"), base), WEIGHT)

    @pytest.mark.parametrize(
        "location",
        [
            "../secret",
            "deep/../../secret",
            "",
            "/etc/passwd",
            "C:\\w.bin",
            "..\\secret",
            "\\\\h\\w",
        ],
    )
    def test_leading_out(self, base, location):
        assert "outside the model's folder" in refusal(external(location), base)

    def test_absolute_even_if_inside(self, base):
        location = str(base.parent / "w.bin")
        assert "outside" in refusal(external(location), base)

    @pytest.mark.parametrize("location", ["none.bin", "w.bin/x", "a\0b", "x" * 999, "loop"])
    def test_missing(self, base, location):
        (base.parent / "loop").symlink_to("loop")
        assert "cannot be found" in refusal(external(location), base)

    def test_links_that_lead_out(self, base, tmp_path):
        (base.parent / "file").symlink_to(tmp_path / "secret")
        (base.parent / "folder").symlink_to(tmp_path)
        (base.parent / "twice").symlink_to("file")
        for location in ("file", "folder/secret", "twice"):
            assert "leads out" in refusal(external(location), base)

    def test_a_folder_whose_name_begins_alike_is_another(self, base, tmp_path):
        beside = tmp_path / "model2"
        beside.mkdir()
        (beside / "w.bin").write_bytes(WEIGHT.tobytes())
        (base.parent / "link").symlink_to(beside / "w.bin")
        assert "leads out" in refusal(external("link"), base)

    def test_links_that_stay(self, base):
        (base.parent / "link").symlink_to("w.bin")
        os.link(base.parent / "w.bin", base.parent / "hard")
        assert same(to_array(external("link"), base), WEIGHT)
        assert same(to_array(external("hard"), base), WEIGHT)

    def test_blob_cache_needs_the_model_file_itself(self, base, tmp_path):
        shown = tmp_path / "shown"
        shown.mkdir()
        (shown / "m.onnx").symlink_to(base)
        base.write_bytes(b"")
        (shown / "w.bin").symlink_to(base.parent / "w.bin")
        assert same(to_array(external("w.bin"), shown / "m.onnx"), WEIGHT)
        assert "leads out" in refusal(external("w.bin"), shown)

    def test_a_linked_model_opens_no_door_to_other_folders(self, base, tmp_path):
        shown = tmp_path / "shown"
        shown.mkdir()
        base.write_bytes(b"")
        (shown / "m.onnx").symlink_to(base)
        (shown / "w.bin").symlink_to(tmp_path / "secret")
        assert "leads out" in refusal(external("w.bin"), shown / "m.onnx")

    def test_no_regular_file(self, base):
        os.mkfifo(base.parent / "pipe")
        (base.parent / "folder").mkdir()
        for location in ("pipe", "folder", "."):
            assert "no regular file" in refusal(external(location), base)

    @pytest.mark.parametrize(
        ("entries", "words"),
        [
            ({"offset": 4}, "has only 4096"),
            ({"offset": 2**40}, "has only 4096"),
            ({"offset": -4}, "'-4'"),
            ({"offset": "0x0"}, "'0x0'"),
            ({"offset": "1_0"}, "'1_0'"),
            ({"offset": " 0"}, "' 0'"),
            ({"offset": ""}, "''"),
            ({"offset": "9" * 5000}, "offset or length"),
            ({"length": -1}, "'-1'"),
            ({"length": 4095}, "names 4095"),
            ({"length": 2**40}, "needs 4096 bytes"),
            ({"extra": [("location", "w.bin")]}, "once"),
            ({"extra": [("location", "../secret")]}, "once"),
            ({"offset": 0, "extra": [("offset", "8")]}, "once"),
            ({"extra": [("__class__", "x")]}, "unknown external data entry '__class__'"),
            ({"extra": [("basepath", "/")]}, "unknown"),
        ],
        ids=str,
    )
    def test_entries(self, base, entries, words):
        assert words in refusal(external("w.bin", **entries), base)

    @pytest.mark.parametrize("text", [b"w.bin", b"location"])
    def test_entries_that_are_no_text(self, base, text):
        content = external("w.bin").SerializeToString().replace(text, b"\xff" * len(text))
        assert "no UTF-8" in refusal(TensorProto.FromString(content), base)

    def test_no_location(self, base):
        tensor = external("w.bin")
        del tensor.external_data[:]
        assert "location" in refusal(tensor, base)

    def test_no_data_inside_as_well(self, base):
        tensor = external("w.bin")
        tensor.raw_data = WEIGHT.tobytes()
        assert "outside" in refusal(tensor, base)

    def test_no_strings(self, base):
        tensor = external("w.bin")
        tensor.data_type = TensorProto.STRING
        assert "outside" in refusal(tensor, base)


class TestWalks:
    @pytest.fixture
    def nested(self):
        def leaf(name):
            return helper.make_node("Constant", [], [name], value=embedded(WEIGHT, name))

        out = helper.make_tensor_value_info("z", 1, [1])
        inner = helper.make_graph([leaf("inner")], "inner", [], [out], [embedded(WEIGHT, "i")])
        deep = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        outer = helper.make_graph([deep], "outer", [], [out])
        loop = helper.make_node("Loop", ["", "c"], ["z"], body=outer)
        sparse = helper.make_node("Constant", [], ["s"])
        sparse.attribute.add(name="sparse_value", type=11).sparse_tensor.CopyFrom(
            helper.make_sparse_tensor(
                embedded(np.ones(1, np.float32), "v"), embedded(np.zeros(1, np.int64), "p"), [9]
            )
        )
        hidden = helper.make_function("local", "f", [], ["q"], [leaf("f"), deep], [])
        hidden.attribute_proto.append(helper.make_attribute("a", embedded(WEIGHT, "default")))
        proto = model(nodes=[leaf("top"), loop, sparse], functions=[hidden])
        proto.training_info.add().algorithm.initializer.append(embedded(WEIGHT, "t"))
        return proto

    def test_tensors(self, nested):
        names = sorted(tensor.name for tensor in iter_tensors(nested))
        twice = ["i", "inner"] * 4  # both branches, in the graph and in the function
        assert names == sorted(["W", "top", "v", "p", "f", "default", "t", *twice])

    def test_graphs(self, nested):
        names = [graph.name for graph in iter_graphs(nested)]
        assert names == ["small", "outer", "inner", "inner", "", "", "inner", "inner"]

    def test_nodes(self, nested):
        kinds = sorted(node.op_type for node in iter_nodes(nested.graph.node))
        assert kinds == ["Constant"] * 4 + ["If", "Loop"]
