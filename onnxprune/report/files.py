"""Small files that appear whole or not at all."""

import os
from pathlib import Path

from onnxprune.errors import UsageError

__all__ = ["write_text"]


def write_text(text: str, path: Path) -> None:
    """Write a file so that it appears whole or not at all.

    Raises
    ------
    UsageError
        If the path cannot be written.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or /dev/null must not be replaced
            path.write_text(text, encoding="utf-8")
            return
        path = path.resolve()
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise UsageError(msg) from error
