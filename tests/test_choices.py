"""Options as texts: how they may be written, and what is refused."""

import pytest

from onnxprune.choices import parse_dim, parse_input_shape
from onnxprune.errors import UsageError, did_you_mean


class TestParseInputShape:
    @pytest.mark.parametrize(
        "text",
        ["x:1,3,8,9", "x:1x3x8x9", "x:[1,3,8,9]", "x: [1, 3, 8, 9]", "1,3,8,9", "1x3x8x9",
         "[1,3,8,9]"],
    )  # fmt: skip
    def test_ways_to_write_it(self, text):
        assert parse_input_shape(text) == ("x" if ":" in text else "", (1, 3, 8, 9))

    def test_one_axis(self):
        assert parse_input_shape("16") == ("", (16,))

    def test_a_scalar(self):
        assert parse_input_shape("x:[]") == ("x", ())

    def test_names_may_hold_colons_and_slashes(self):
        assert parse_input_shape("a/x:0:5,2") == ("a/x:0", (5, 2))

    @pytest.mark.parametrize(
        "text", ["", "x", "x:", "x:1,,2", "x:a,b", "x:-1", "x:1.5", "x:[1,2", ":1,2"]
    )
    def test_nonsense(self, text):
        with pytest.raises(UsageError, match=r"cannot read input shape '.*'; write it as NAME:1,3"):
            parse_input_shape(text)

    def test_size_zero(self):
        with pytest.raises(UsageError, match="size 0"):
            parse_input_shape("x:0,3")


class TestParseDim:
    def test_reads_it(self):
        assert parse_dim("batch=4") == ("batch", 4)
        assert parse_dim(" past + 1 = 7 ") == ("past + 1", 7)

    @pytest.mark.parametrize("text", ["batch", "=4", "batch=", "batch=0", "batch=-1", "batch=1.5"])
    def test_nonsense(self, text):
        with pytest.raises(UsageError, match=r"cannot read dimension '.*'; write it as NAME=N"):
            parse_dim(text)


def test_did_you_mean_lists_what_there_is_when_nothing_is_close():
    assert did_you_mean("zzz", ["a", "b"]) == "; there is 'a', 'b'"
    assert did_you_mean("zzz", []) == ""
