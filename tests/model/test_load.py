import gzip
import hashlib
import json
import os
import pickle
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import InputError
from onnxprune.model.domains import opset_of
from onnxprune.model.load import load
from onnxprune.runtime.session import Session
from tests.model.small import WEIGHT, embedded, external, function, model, save


def refusal(path):
    """The one line that a bad file is refused with."""
    with pytest.raises(InputError) as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def written(path, content):
    path.write_bytes(content)
    return path


class TestGood:
    def test_what_is_known(self, tmp_path):
        path = save(tmp_path / "m.onnx", model())
        found = load(path)
        content = path.read_bytes()
        assert found.path == path
        assert found.proto == model()
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert found.bytes == len(content)

    def test_external_data_counts_and_stays_outside(self, tmp_path):
        (tmp_path / "b.bin").write_bytes(WEIGHT.tobytes())
        (tmp_path / "a.bin").write_bytes(WEIGHT.tobytes() + b"tail")
        proto = model(external("b.bin"), external("a.bin", name="V", length=4096))
        path = save(tmp_path / "m.onnx", proto)
        found = load(path)
        parts = [path, tmp_path / "a.bin", tmp_path / "b.bin"]
        content = b"".join(part.read_bytes() for part in parts)
        assert found.bytes == len(content)
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert found.proto == proto

    def test_one_data_file_of_many_tensors_counts_once(self, tmp_path):
        (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes() * 2)
        proto = model(external("w.bin"), external("w.bin", name="V", offset=4096))
        path = save(tmp_path / "m.onnx", proto)
        assert load(path).bytes == path.stat().st_size + 8192

    def test_old_models_list_initializers_as_inputs(self, tmp_path):
        value = helper.make_tensor_value_info("W", TensorProto.FLOAT, [32, 32])
        proto = model(ir=3, opset=8, inputs=[value])
        assert load(save(tmp_path / "m.onnx", proto)).proto == proto

    def test_blob_cache(self, tmp_path):
        """The layout of download caches: model and data are links into one folder of blobs."""
        blobs, shown = tmp_path / "blobs", tmp_path / "snapshots" / "r1"
        blobs.mkdir()
        shown.mkdir(parents=True)
        save(blobs / "0a", model(external("m.onnx_data")))
        (blobs / "1b").write_bytes(WEIGHT.tobytes())
        (shown / "m.onnx").symlink_to("../../blobs/0a")
        (shown / "m.onnx_data").symlink_to("../../blobs/1b")
        found = load(shown / "m.onnx")
        assert found.bytes == (blobs / "0a").stat().st_size + 4096
        Session(found.path)  # onnxruntime reads it too

    def test_the_newest_opset_and_ir_that_onnxruntime_loads(self, tmp_path):
        newest = int(refusal(save(tmp_path / "o.onnx", model(opset=99))).split("up to ")[1][:2])
        assert opset_of(load(save(tmp_path / "m.onnx", model(opset=newest))).proto) == newest
        Session(tmp_path / "m.onnx")
        assert "up to" in refusal(save(tmp_path / "n.onnx", model(opset=newest + 1)))
        newest = int(refusal(save(tmp_path / "i.onnx", model(ir=99))).split("up to ")[1][:2])
        assert load(save(tmp_path / "j.onnx", model(ir=newest))).proto.ir_version == newest
        assert "IR version" in refusal(save(tmp_path / "k.onnx", model(ir=newest + 1)))

    def test_functions_that_are_what_they_seem(self, tmp_path):
        nodes = [helper.make_node("f", ["x"], ["y"], domain="local")]
        functions = [function("f", ["g", "g"]), function("g", ["Identity"])]
        loaded = load(save(tmp_path / "m.onnx", model(nodes=nodes, functions=functions)))
        assert list(loaded.proto.functions) == functions


class TestNoModel:
    def test_missing(self, tmp_path):
        assert "no such file" in refusal(tmp_path / "none.onnx")

    def test_folder(self, tmp_path):
        assert "folder" in refusal(tmp_path)

    def test_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "m.onnx")
        assert "no regular file" in refusal(tmp_path / "m.onnx")

    def test_below_a_file(self, tmp_path):
        path = save(tmp_path / "m.onnx", model())
        assert "cannot read" in refusal(path / "inner.onnx")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n",
                "git lfs pull",
            ),
            (gzip.compress(b"x" * 99), "gzip"),
            (b'{"graph": {}}', "JSON"),
            (b"\n  <!DOCTYPE html>\n<html>", "web page"),
            ("ir_version: 8\n# \u00e9l\u00e8ve\n".encode(), "is text"),
            (b"\xef\xbb\xbfir_version: 8\n", "is text"),
            (pickle.dumps({"state": 1}, protocol=2), "pickle"),
            (b"\x1c\x00\x00\x00TFL3" + bytes(99), "TensorFlow Lite"),
            (b"\x1c\x00\x00\x00ORTM" + bytes(99), "ORT format"),
            (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
            (np.random.default_rng(0).bytes(4096), "cut short or damaged"),
            (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
        ],
        ids=str,
    )
    def test_other_files(self, tmp_path, content, words):
        assert words in refusal(written(tmp_path / "m.onnx", content))

    def test_long_text_cut_inside_a_character(self, tmp_path):
        content = b"x" + "\u00e9".encode() * 400
        assert "is text" in refusal(written(tmp_path / "m.onnx", content))

    def test_zip(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "m.onnx", "w") as archive:
            archive.writestr("data.json", json.dumps({}))
        assert "zip" in refusal(tmp_path / "m.onnx")

    def test_every_truncation_is_refused(self, tmp_path):
        proto = model(embedded(np.ones((2, 2), np.float32)))
        content = proto.SerializeToString()
        assert len(content) < 200
        for length in range(len(content)):
            refusal(written(tmp_path / "m.onnx", content[:length]))

    def test_bodies_nested_beyond_what_protobuf_reads(self, tmp_path):
        inner = b""
        for _ in range(60):  # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6
            for tag in (b"\x32", b"\x2a", b"\x0a"):
                inner = tag + varint(len(inner)) + inner
        content = b"\x08\x08\x3a" + varint(len(inner)) + inner
        assert "nests" in refusal(written(tmp_path / "m.onnx", content))

    @pytest.mark.parametrize(
        "name", [b"MatMul", b"small", b"W", b"x", b"kernel", b"local", b"inside"], ids=str
    )
    def test_names_that_are_no_text(self, tmp_path, name):
        value = helper.make_tensor_value_info("inside", TensorProto.FLOAT, [1])
        body = helper.make_graph([], "body", [], [value])
        branch = helper.make_node("If", ["x"], ["z"], then_branch=body)
        nodes = [helper.make_node("MatMul", ["x", "W"], ["y"], kernel=1), branch]
        proto = model(nodes=nodes, functions=[function("f", ["Identity"])])
        content = proto.SerializeToString().replace(name, b"\xff" * len(name))
        if name == b"small":  # nobody looks the name of a graph up
            load(written(tmp_path / "m.onnx", content))
        else:
            assert "no UTF-8" in refusal(written(tmp_path / "m.onnx", content))

    def test_more_than_protobuf_parses(self, tmp_path):
        with (tmp_path / "m.onnx").open("wb") as file:
            file.write(b"\x08\x08")
            file.truncate(2**31)  # a hole: nothing is written or read
        assert "2 GiB" in refusal(tmp_path / "m.onnx")


def varint(number):
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


class TestFunctions:
    def test_doubling_bomb(self, tmp_path):
        functions = [function(f"f{i}", [f"f{i + 1}"] * 2) for i in range(60)]
        functions.append(function("f60", ["Identity"]))
        nodes = [helper.make_node("f0", ["x"], ["y"], domain="local")]
        proto = model(nodes=nodes, functions=functions)
        assert "over a trillion nodes" in refusal(save(tmp_path / "m.onnx", proto))

    def test_bomb_of_nothing(self, tmp_path):
        """Empty functions expand to no node, but to as many calls."""
        functions = [function(f"f{i}", [f"f{i + 1}"] * 2) for i in range(60)]
        functions.append(helper.make_function("local", "f60", ["x"], ["x"], [], []))
        nodes = [helper.make_node("f0", ["x"], ["y"], domain="local")]
        proto = model(nodes=nodes, functions=functions)
        assert "expands" in refusal(save(tmp_path / "m.onnx", proto))

    def test_bomb_inside_a_body(self, tmp_path):
        functions = [function(f"f{i}", [f"f{i + 1}"] * 2) for i in range(30)]
        functions.append(function("f30", ["Identity"]))
        value = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 32])
        call = helper.make_node("f0", ["x"], ["z"], domain="local")
        body = helper.make_graph([call], "body", [], [value])
        node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
        proto = model(embedded(np.array(True), "c"), nodes=[node], functions=functions)
        assert "expands" in refusal(save(tmp_path / "m.onnx", proto))

    def test_a_long_chain_is_no_bomb(self, tmp_path):
        functions = [function(f"f{i}", [f"f{i + 1}"]) for i in range(3000)]
        functions.append(function("f3000", ["Identity"]))
        nodes = [helper.make_node("f0", ["x"], ["y"], domain="local")]
        loaded = load(save(tmp_path / "m.onnx", model(nodes=nodes, functions=functions)))
        assert len(loaded.proto.functions) == 3001

    def test_two_functions_of_one_name(self, tmp_path):
        """Whichever of them a reader takes, it may not be the bomb."""
        for order in (slice(None), slice(None, None, -1)):
            functions = [function(f"f{i}", [f"f{i + 1}"] * 2) for i in range(30)]
            functions += [function("f30", ["Identity"]), function("f0", ["Identity"])]
            nodes = [helper.make_node("f0", ["x"], ["y"], domain="local")]
            proto = model(nodes=nodes, functions=functions[order])
            assert "expands" in refusal(save(tmp_path / "m.onnx", proto))

    @pytest.mark.parametrize("ring", [["f"], ["f", "g"], ["f", "g", "h"]])
    def test_recursion(self, tmp_path, ring):
        functions = [function(a, [b]) for a, b in zip(ring, [*ring[1:], "f"], strict=True)]
        nodes = [helper.make_node("f", ["x"], ["y"], domain="local")]
        proto = model(nodes=nodes, functions=functions)
        assert "calls itself" in refusal(save(tmp_path / "m.onnx", proto))

    def test_more_nodes_than_any_model(self, tmp_path):
        proto = model()
        content = proto.SerializeToString()
        graph = b"\x0a\x00" * 1_000_001  # merged into the graph that is there
        path = written(tmp_path / "m.onnx", content + b"\x3a" + varint(len(graph)) + graph)
        assert "1,000,002 nodes" in refusal(path)


class TestTensors:
    def test_every_place_is_looked_at(self, tmp_path):
        """Initializers, attributes, bodies, functions, sparse tensors."""
        bad = TensorProto(name="bad", dims=[3], data_type=1, raw_data=b"1234")
        constant = helper.make_node("Constant", [], ["v"], value=bad)
        value = helper.make_tensor_value_info("v", TensorProto.FLOAT, [3])
        body = helper.make_graph([], "body", [], [value], [bad])
        branch = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
        opsets = [helper.make_opsetid("", 17)]
        hidden = helper.make_function("local", "f", [], ["v"], [constant], opsets)
        sparse = model()
        sparse.graph.sparse_initializer.add().values.CopyFrom(bad)
        broken = {
            "initializer": model(bad),
            "attribute": model(nodes=[constant]),
            "body": model(nodes=[branch]),
            "function": model(functions=[hidden]),
            "sparse": sparse,
        }
        for name, proto in broken.items():
            assert "'bad'" in refusal(save(tmp_path / f"{name}.onnx", proto))

    def test_external_data_out_of_the_folder(self, tmp_path):
        (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
        folder = tmp_path / "in"
        folder.mkdir()
        path = save(folder / "m.onnx", model(external("../secret")))
        assert "outside" in refusal(path)

    def test_hostile_names_stay_on_one_short_line(self, tmp_path):
        bad = TensorProto(name="a\nb" * 1000, dims=[-1], data_type=1)
        assert len(refusal(save(tmp_path / "m.onnx", model(bad)))) < 300
