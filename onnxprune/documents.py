"""JSON documents: written whole, and read only where they fit the schema of their format."""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from onnxprune.errors import InputError
from onnxprune.model.files import write_text

__all__ = ["dumps", "read", "schema", "validate", "write"]

_NUMBERS = re.compile(r"\[\n\s*(-?[\d.e+-]+(?:,\n\s*-?[\d.e+-]+)*)\n\s*\]")


def dumps(document: Mapping[str, object]) -> str:
    """Return JSON text, one line per entry but number lists kept on one line.

    Raises
    ------
    ValueError
        If a number is NaN or infinite.
    """
    text = json.dumps(document, indent=2, allow_nan=False)
    return _NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text) + "\n"


def write(document: Mapping[str, object], path: Path) -> None:
    """Write JSON so that the file appears whole or not at all.

    Raises
    ------
    UsageError
        If the path cannot be written.
    """
    write_text(path, dumps(document))


@cache
def schema(form: str) -> dict[str, object]:
    """Return the JSON Schema of a format such as ``onnxprune-report/1``."""
    name = form.removeprefix("onnxprune-").replace("/", "-")
    text = (resources.files("onnxprune") / "schemas" / f"{name}.json").read_text("utf-8")
    return dict(json.loads(text))


def read(path: Path, form: str, what: str) -> dict[str, Any]:
    """Read a JSON file that somebody hands us and hold it against its schema.

    Parameters
    ----------
    path : Path
    form : str
        The expected format, such as ``onnxprune-plan/1``.
    what : str
        What the file should be, such as ``plan``, for the message.

    Returns
    -------
    document
        Parsed JSON.

    Raises
    ------
    InputError
        If the file is missing, is no JSON, or does not fit.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except OSError as error:
        msg = f"cannot read the {what} '{path}': {error.strerror}"
        raise InputError(msg) from error
    except ValueError as error:
        msg = f"'{path}' is no {what}: it is not JSON ({error})"
        raise InputError(msg) from error
    validate(document, form, str(path))
    return document


def validate(document: object, form: str, where: str) -> None:
    """Hold a document that somebody hands us against its schema.

    Parameters
    ----------
    document : object
        Parsed JSON.
    form : str
        The expected format, such as ``onnxprune-plan/1``.
    where : str
        Where it came from, for the message.

    Raises
    ------
    InputError
        Naming the first place that does not fit.
    """
    import jsonschema

    found = document.get("format") if isinstance(document, Mapping) else None
    if found != form:
        msg = f"'{where}' is not {form}: its format is {found!r}"
        raise InputError(msg)
    fault = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(schema(form)).iter_errors(document)
    )
    if fault is not None:
        text = fault.message if len(fault.message) <= 160 else f"{fault.message[:160]}..."
        msg = f"'{where}' is not {form}: {fault.json_path}: {text}"
        raise InputError(msg)
