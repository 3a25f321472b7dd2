"""Plans: written, read back, bound to their model; files that are no plans."""

import json

import numpy as np
import onnx
import pytest

from onnxprune.coupling.keeps import keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.documents import validate
from onnxprune.errors import InputError
from onnxprune.options import Options
from onnxprune.plan import Plan, load_plan, make_plan
from tests import nets


@pytest.fixture
def found(tmp_path):
    return nets.look(nets.residual(), tmp_path)


@pytest.fixture
def removed(found):
    first, second = found.coupling.groups
    return [(first, [1, 4]), (second, np.array([0, 5]))]


def plan_of(found, removed, **more):
    keeps = keep_masks(removed, found.coupling.collected.sizes)
    return make_plan(found, removed, keeps, Options(seed=3, samples=64), multiple_of=4, **more)


def test_a_plan_says_everything_and_fits_its_schema(found, removed):
    plan = plan_of(found, removed)
    content = json.loads(plan.text())
    validate(content, "onnxprune-plan/1", "the plan")
    assert content == plan.content
    assert content["model"] == {"sha256": found.model.sha256, "bytes": found.model.bytes}
    assert (content["seed"], content["multiple_of"]) == (3, 4)
    assert plan.shapes == {"x": (1, 3, 6, 6)}
    assert [(g["name"], g["before"], g["after"], g["removed"]) for g in content["groups"]] == [
        ("Conv_0", 8, 6, [1, 4]),
        ("Conv_2", 6, 4, [0, 5]),
    ]
    cut = {(e["value"], e["axis"]): e for e in content["removed"]}
    assert cut["w0", 0] == {"value": "w0", "axis": 0, "initializer": True, "positions": [1, 4]}
    assert cut["v0", 1]["initializer"] is False
    assert not plan.empty
    assert not plan.refitted


def test_masks_come_back_as_they_were(found, removed):
    sizes = found.coupling.collected.sizes
    wanted = keep_masks(removed, sizes)
    masks = plan_of(found, removed).keeps(sizes)
    assert masks.keys() == wanted.keys()
    assert all((masks[axis] == wanted[axis]).all() for axis in wanted)


def test_channels_come_back_by_group(found, removed):
    again = plan_of(found, removed).removed_channels(found.coupling.groups)
    assert [(g.name, list(c)) for g, c in again] == [("Conv_0", [1, 4]), ("Conv_2", [0, 5])]
    assert plan_of(found, removed).removed_channels(found.coupling.groups[:1])[0][1] == [1, 4]
    assert plan_of(found, removed).removed_channels([]) == ()


def test_groups_that_lose_nothing_are_not_listed(found):
    first, second = found.coupling.groups
    content = plan_of(found, [(first, [0]), (second, [])]).content
    assert [g["name"] for g in content["groups"]] == ["Conv_0"]


def test_an_empty_plan(found):
    plan = plan_of(found, [])
    validate(json.loads(plan.text()), "onnxprune-plan/1", "the plan")
    assert plan.empty
    assert plan.keeps(found.coupling.collected.sizes) == {}


def test_written_and_read(found, removed, tmp_path):
    plan = plan_of(found, removed, refitted=["w4"], added=["bias"])
    (tmp_path / "p.json").write_text(plan.text())
    again = load_plan(tmp_path / "p.json", found.model)
    assert again == plan
    assert again.refitted


def test_the_text_is_the_same_every_time(found, removed):
    assert plan_of(found, removed).text() == plan_of(found, removed).text()


@pytest.mark.parametrize(
    ("entry", "axis"),
    [
        ({"value": "gone", "axis": 0}, r"gone\[0\]"),
        ({"value": "w0", "axis": 9}, r"w0\[9\]"),
        ({"value": "w0", "axis": 0, "positions": [8]}, r"w0\[0\]"),
    ],
    ids=["value", "axis", "position"],
)
def test_what_the_model_does_not_have(found, removed, entry, axis):
    content = json.loads(plan_of(found, removed).text())
    content["removed"].append({"positions": [0], "initializer": True, **entry})
    with pytest.raises(InputError, match=f"cuts {axis}, which this model does not have"):
        Plan(content).keeps(found.coupling.collected.sizes)


def write_changed(plan, path, **changes):
    path.write_text(json.dumps({**plan.content, **changes}))
    return path


def test_the_plan_of_another_model(found, removed, tmp_path):
    other = nets.look(nets.concat(), tmp_path)
    path = write_changed(plan_of(found, removed), tmp_path / "p.json")
    with pytest.raises(InputError, match="made for another model"):
        load_plan(path, other.model)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "onnxprune-plan/9"},
        {"removed": "all"},
        {"removed": [{"value": "w0", "axis": 0, "initializer": True, "positions": [-1]}]},
        {"removed": [{"value": "w0", "axis": -1, "initializer": True, "positions": [1]}]},
        {"removed": [{"value": "w0", "axis": 0, "initializer": True, "positions": [0.5]}]},
        {"model": {}},
        {"surprise": 1},
        {"dims": {"x": "large"}},
    ],
    ids=str,
)
def test_files_that_break_the_schema(found, removed, changes, tmp_path):
    path = write_changed(plan_of(found, removed), tmp_path / "p.json", **changes)
    with pytest.raises(InputError, match=r"p\.json"):
        load_plan(path, found.model)


@pytest.mark.parametrize("text", ["", "not json", "[]", "null", "\xff", '{"format": 1}'])
def test_files_that_are_no_plans(found, text, tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"p\.json"):
        load_plan(path, found.model)


def test_files_that_cannot_be_read(found, tmp_path):
    with pytest.raises(InputError, match=r"cannot read the plan .*No such file"):
        load_plan(tmp_path / "missing.json", found.model)
    with pytest.raises(InputError, match=r"cannot read the plan .*directory"):
        load_plan(tmp_path, found.model)


class TestWithoutRefit:
    """Only what the plan lists may differ from the pure cut."""

    def models(self):
        plain = nets.mlp(8, 6, 3)
        given = onnx.ModelProto()
        given.CopyFrom(plain)
        return plain, given

    def plan(self, **lists):
        return Plan({"refitted": [], "added": [], **lists})

    @staticmethod
    def double(model, name):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        array = 2 * onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))

    def test_listed_numbers_are_undone_others_stay(self):
        plain, given = self.models()
        self.double(given, "w0")
        self.double(given, "w2")
        assert self.plan(refitted=["w0", "w2"]).without_refit(given, plain) == plain
        assert self.plan(refitted=["w0"]).without_refit(given, plain) != plain
        assert self.plan().without_refit(given, plain) == given

    def test_another_shape_is_no_refit(self):
        plain, given = self.models()
        tensor = next(t for t in given.graph.initializer if t.name == "w0")
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones((8, 7), np.float32), "w0"))
        assert self.plan(refitted=["w0"]).without_refit(given, plain) != plain

    def test_added_biases_are_undone(self):
        plain, given = self.models()
        node = plain.graph.node[0]
        del node.input[2:]
        del given.graph.node[0].input[2:]
        bias = onnx.numpy_helper.from_array(np.ones(6, np.float32), "new")
        given.graph.initializer.append(bias)
        given.graph.node[0].input.append("new")
        assert self.plan(added=["new"]).without_refit(given, plain) == plain
        assert self.plan().without_refit(given, plain) != plain

    def test_the_given_model_is_not_changed(self):
        plain, given = self.models()
        self.double(given, "w0")
        before = given.SerializeToString(deterministic=True)
        self.plan(refitted=["w0"]).without_refit(given, plain)
        assert given.SerializeToString(deterministic=True) == before


def test_axes_print_as_in_messages():
    assert str(Axis("w", 1)) == "w[1]"
