"""Docstrings that list parameters or attributes list all there are, and no others."""

import ast
import re
from pathlib import Path

import pytest

import onnxprune

ROOT = Path(onnxprune.__file__).parent
_LISTED = {ast.FunctionDef: "Parameters", ast.ClassDef: "Attributes"}


def listed(text, section):
    """Return the names in a section; nothing where there is none."""
    found = re.search(rf"^{section}\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.M | re.S)
    lines = found[1].splitlines() if found else []
    names = [line.split(" : ")[0] for line in lines if line and not line.startswith(" ")]
    return {name.strip().lstrip("*") for part in names for name in part.split(",")}


def there(node):
    """Return the parameters of a function, or the public fields of a class."""
    if isinstance(node, ast.FunctionDef):
        every = ast.walk(node.args)
        return {a.arg for a in every if isinstance(a, ast.arg)} - {"self", "cls"}
    fields = (f.target.id for f in node.body if isinstance(f, ast.AnnAssign))
    return {name for name in fields if not name.startswith("_")}


def faults(text):
    for node in ast.walk(ast.parse(text)):
        section = _LISTED.get(type(node))
        names = listed(ast.get_docstring(node) or "", section) if section else set()
        # Attributes of plain classes are made in __init__.
        if names and there(node) and names != there(node):
            yield f"{node.name}: {', '.join(sorted(names ^ there(node)))}"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_lists_are_whole(path):
    assert list(faults(path.read_text("utf-8"))) == []


def test_what_is_missing_and_what_is_too_much_is_found():
    text = '''
def f(a, *, b):
    """Do it.

    Parameters
    ----------
    a, c : int

    Returns
    -------
    b
    """
'''
    assert list(faults(text)) == ["f: b, c"]
