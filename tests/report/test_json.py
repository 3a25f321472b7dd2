import dataclasses
import json
import math
import os

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.documents import dumps, read, schema, validate, write
from onnxprune.errors import InputError, UsageError
from onnxprune.options import Options
from onnxprune.quality.values import Drop
from onnxprune.report.json import FORMATS, to_json

FORMS = [*FORMATS.values(), "onnxprune-plan/1"]
PLAN = {
    "format": "onnxprune-plan/1",
    "model": {"sha256": "0" * 64, "bytes": 1},
    "onnxprune": "0.1.0",
    "seed": 0,
    "samples": 512,
    "dims": {"x": [1, 1, 8, 8], "scalar": []},
    "allow_interface_change": False,
    "multiple_of": None,
    "refitted": ["w"],
    "added": [],
    "rotated": [],
    "recovered": False,
    "constants": [],
    "branches": [],
    "removed": [{"value": "w", "axis": 0, "positions": [1, 2], "initializer": True}],
    "groups": [
        {
            "name": "w",
            "kind": "filter",
            "before": 4,
            "after": 2,
            "exact": True,
            "step": 16,
            "removed": [1, 2],
        }
    ],
}


@pytest.fixture(params=["report", "inspection", "ranking", "bench", "verified"])
def any_report(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("form", FORMS)
def test_schemas_are_schemas_and_strict(form):
    found = schema(form)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["properties"]["format"] == {"const": form}

    def closed(part):
        if isinstance(part, dict):
            if "properties" in part:
                assert part["additionalProperties"] is False
                assert set(part.get("required", ())) <= set(part["properties"])
            for child in part.values():
                closed(child)
        if isinstance(part, list):
            for child in part:
                closed(child)

    closed(found)


def test_every_report_fits_its_schema(any_report):
    document = to_json(any_report)
    assert next(iter(document)) == "format"
    validate(json.loads(dumps(document)), FORMATS[type(any_report)], "here")


def test_every_field_is_required(any_report):
    form = FORMATS[type(any_report)]
    for name in to_json(any_report):
        document = to_json(any_report)
        del document[name]
        with pytest.raises(InputError, match=name):
            validate(document, form, "here")


def test_unknown_fields_are_refused(any_report):
    with pytest.raises(InputError, match="surprise"):
        validate({**to_json(any_report), "surprise": 1}, FORMATS[type(any_report)], "here")


def test_run_has_the_promised_shape(report):
    document = to_json(report)
    assert document["before"]["latency_ms"] == {"median": 0.4123, "p90": 0.45, "p99": 0.5}
    assert document["ratios"]["latency_interval"] == [0.652, 0.711]
    assert document["drop"]["certified"] == {"alpha": 0.05, "confidence": 0.95, "samples": 449}
    assert document["removed"][0] == {
        "value": "conv1.weight",
        "axis": 0,
        "positions": [1, 5],
        "initializer": True,
        "by": None,
    }
    assert document["refitted"] == document["added"] == document["rotated"] == []


def test_inspect_names_the_parts_of_a_member(inspection):
    group = to_json(inspection)["groups"][2]
    assert group["members"] == [{"value": "q", "axis": 2, "positions": 16}]


def test_the_schema_knows_every_option():
    known = schema("onnxprune-report/1")["properties"]["options"]["properties"]
    assert set(known) == {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_nan_in_json(report, verified, bad):
    report = dataclasses.replace(report, drop=Drop("relative_l2", bad, (bad, bad), 4, None))
    drop = to_json(report)["drop"]
    assert drop["value"] is None
    assert drop["interval"] == [None, None]
    validate(to_json(report), "onnxprune-report/1", "here")
    verified = dataclasses.replace(verified, max_rel_error=np.float32(bad))
    assert to_json(verified)["max_rel_error"] is None
    with pytest.raises(ValueError, match="JSON"):
        dumps({"value": bad})


def test_numpy_numbers_become_plain(verified):
    document = to_json(
        dataclasses.replace(verified, samples=np.int64(3), same_bytes=np.bool_(False))
    )
    assert json.loads(dumps(document))["samples"] == 3
    assert document["same_bytes"] is False


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(), JSON))
def test_dumps_changes_nothing_but_the_layout(document):
    assert json.loads(dumps(document)) == document


def test_number_lists_stay_on_one_line():
    assert '"positions": [1, 2, 3]' in dumps({"positions": [1, 2, 3]})
    assert '"text": "[\\n1\\n]"' in dumps({"text": "[\n1\n]"})


class TestWrite:
    def test_replaces_whole(self, tmp_path):
        path = tmp_path / "r.json"
        path.write_text("x" * 10_000)
        write({"a": 1}, path)
        assert json.loads(path.read_text()) == {"a": 1}
        assert list(tmp_path.iterdir()) == [path]

    def test_follows_a_link(self, tmp_path):
        real, link = tmp_path / "real.json", tmp_path / "link.json"
        link.symlink_to(real)
        write({"a": 1}, link)
        assert link.is_symlink()
        assert json.loads(real.read_text()) == {"a": 1}

    def test_a_pipe_is_written_not_replaced(self, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        write({"a": 1}, pipe)
        assert json.loads(os.read(reader, 1000)) == {"a": 1}
        os.close(reader)
        assert pipe.is_fifo()

    def test_failure_leaves_nothing(self, tmp_path):
        with pytest.raises(UsageError, match=r"cannot write .*r.json: No such file"):
            write({"a": 1}, tmp_path / "no" / "r.json")
        with pytest.raises(ValueError, match="JSON"):
            write({"a": math.nan}, tmp_path / "r.json")
        assert list(tmp_path.iterdir()) == []


class TestValidate:
    def test_a_plan(self, tmp_path):
        write(PLAN, tmp_path / "p.json")
        assert read(tmp_path / "p.json", "onnxprune-plan/1", "plan") == PLAN

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": -1}, r"\$\.seed: -1 is less than"),
            ({"model": {"sha256": "short", "bytes": 1}}, r"\$\.model\.sha256"),
            ({"removed": [{**PLAN["removed"][0], "positions": [-1]}]}, r"removed\[0\]\.positions"),
            ({"removed": [{**PLAN["removed"][0], "positions": [1, 1]}]}, "non-unique"),
            ({"removed": {}}, r"\$\.removed"),
            ({"groups": [{**PLAN["groups"][0], "kind": "layer"}]}, "'layer' is not one of"),
            ({"more": 1}, "'more' was unexpected"),
            ({"format": "onnxprune-plan/2"}, r"its format is 'onnxprune-plan/2'"),
        ],
    )
    def test_what_does_not_fit_is_named(self, change, message):
        with pytest.raises(InputError, match=message) as caught:
            validate({**PLAN, **change}, "onnxprune-plan/1", "p.json")
        assert str(caught.value).startswith("'p.json' is not onnxprune-plan/1: ")
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("document", [None, [], "plan", 3, {}])
    def test_something_else(self, document):
        with pytest.raises(InputError, match="its format is None"):
            validate(document, "onnxprune-plan/1", "p.json")
