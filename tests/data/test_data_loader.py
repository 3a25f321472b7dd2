import sys
import textwrap

import numpy as np
import pytest

from onnxprune.data.load import load_from_function
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError, UsageError

X = [InputSpec("x", np.dtype(np.float32), ("n", 3))]


@pytest.fixture
def load(tmp_path):
    def run(code, function="feeds", limit=5):
        file = tmp_path / "calib.py"
        file.write_text("import numpy as np\n" + textwrap.dedent(code))
        return load_from_function(f"{file}:{function}", X, limit=limit)

    return run


def test_an_endless_generator_is_asked_for_no_more_than_the_limit(load):
    samples = load("""
        def feeds():
            i = 0
            while True:
                yield {"x": np.full((2, 3), i, np.float32)}
                i += 1
                assert i < 5, "asked for too many"
    """)
    assert (len(samples), samples.stacked) == (5, False)
    assert [float(e["x"][0, 0]) for e in samples.entries] == [0, 1, 2, 3, 4]


def test_a_list_of_lists_with_an_extra_key(load):
    samples = load('def feeds(): return [{"x": np.zeros((1, 3), np.float32), "label": 3}]')
    assert samples.notes == ("ignored extra key 'label'",)


def test_an_array_that_is_filled_again_and_again(load):
    samples = load("""
        def feeds():
            x = np.zeros((1, 3), np.float32)
            for i in range(3):
                x[:] = i
                yield {"x": x}
    """)
    assert [float(e["x"][0, 0]) for e in samples.entries] == [0, 1, 2]


def test_neighbours_can_be_imported_and_the_path_is_left_clean(load, tmp_path):
    (tmp_path / "neighbour_of_calib.py").write_text("SIZE = 3")
    before = list(sys.path)
    load("""
        def feeds():
            from neighbour_of_calib import SIZE
            yield {"x": np.zeros((1, SIZE), np.float32)}
    """)
    assert sys.path == before


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("feeds = 3", "has no function 'feeds'"),
        ("def other(): ...", "has no function 'feeds'"),
        ("def feeds(): ...", "returned NoneType; it must yield feeds"),
        ("def feeds(): return {'x': 1}", "returned dict; it must yield feeds"),
        ("def feeds(): return []", "gave no feeds"),
        ("def feeds(): yield np.zeros(3)", r"feed 0 of .* is ndarray; it must be a dict"),
        ("def feeds(): yield {'y': np.zeros(3)}", r"feed 0 of .* has no data for input 'x'"),
        ("def feeds(): yield {'x': np.zeros(3, np.float32)}", r"feed 0 of .*: 'x' has shape \[3\]"),
        ("def feeds(): yield {'x': np.zeros((1, 4), np.float32)}", "'x' has size 4 on axis 1"),
        ("def feeds(): yield {'x': np.zeros((1, 3), int)}", "'x' is int64, .* wants float32"),
        ("def feeds(): yield {'x': np.full((1, 3), np.nan)}", "NaN"),
        ("def feeds():\n    yield {'x': 1 / 0}", r"failed \(line 3\): ZeroDivisionError: division"),
        ("import no_such_module", r"failed \(line 2\): ModuleNotFoundError: No module named"),
        ("def feeds(:", "failed.*SyntaxError"),
        ("def feeds(a): ...", "failed: TypeError: .*argument"),
    ],
)
def test_what_can_go_wrong(load, code, message):
    with pytest.raises(InputError, match=message) as caught:
        load(code)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["calib.py", ":feeds", "calib.py:", "calib.py:a-b"])
def test_not_a_loader(text):
    with pytest.raises(UsageError, match=r"write it as FILE\.py:function"):
        load_from_function(text, X, limit=1)


def test_missing_file_and_wrong_suffix(tmp_path):
    with pytest.raises(InputError, match=r"loader file .*nowhere\.py does not exist"):
        load_from_function(f"{tmp_path / 'nowhere.py'}:f", X, limit=1)
    (tmp_path / "calib.txt").touch()
    with pytest.raises(InputError, match=r"must end in \.py"):
        load_from_function(f"{tmp_path / 'calib.txt'}:f", X, limit=1)
