import pytest

from onnxprune.data.symbols import evaluate

SIZES = {"a": 5, "b": 3}


@pytest.mark.parametrize(
    ("text", "size"),
    [("a", 5), ("a + b", 8), ("2*a - b", 7), ("(a + 1)//2", 3), ("past", None), ("a - 5", None),
     ("b - a", None), ("a // 0", None), ("a ** b", None), ("a/b", None), ("len(a)", None),
     ("a b", None), ("", None), ("a + 1.5", None), ("a + True", None), ("1+" * 500 + "1", None),
     ("(" * 190, None)],
)  # fmt: skip
def test_evaluate(text, size):
    assert evaluate(text, SIZES) == size
