"""The user's own functions, named as FILE.py:function; what fails in them is said in one line."""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from onnxprune.errors import InputError, OnnxPruneError, UsageError

__all__ = ["UserFunction"]


class UserFunction:
    """A function in a file of the user's; nothing is run before :meth:`ready` is entered.

    Parameters
    ----------
    spec : str
        ``FILE.py:function``.
    what : str
        What errors call it, such as ``loader``.

    Raises
    ------
    UsageError
        If ``spec`` is not FILE.py:function.
    InputError
        If the file does not exist.
    """

    def __init__(self, spec: str, what: str) -> None:
        self._spec, self._what = spec, what
        name, _, self._function = spec.rpartition(":")
        if not name or not self._function.isidentifier():
            msg = f"cannot read {what} '{spec}'; write it as FILE.py:function"
            raise UsageError(msg)
        self._file = Path(name).resolve()
        if not self._file.is_file():
            msg = f"{what} file {self._file} does not exist"
            raise InputError(msg)
        self._made: Callable[..., object] | None = None

    @contextlib.contextmanager
    def ready(self) -> Iterator[Callable[..., object]]:
        """Give the function; its file may import its neighbours meanwhile.

        Raises
        ------
        InputError
            If the file has no such function, or anything fails inside.
        """
        folder = str(self._file.parent)
        sys.path.insert(0, folder)
        try:
            if self._made is None:
                self._made = self._find()
            yield self._made
        except OnnxPruneError:
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == str(self._file)]
            where = f" (line {lines[-1]})" if lines else ""
            text = str(error).strip().splitlines()
            reason = f": {text[0]}" if text else ""
            msg = f"{self._what} {self._spec} failed{where}: {type(error).__name__}{reason}"
            raise InputError(msg) from error
        finally:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)

    def _find(self) -> Callable[..., object]:
        name = f"_onnxprune_{self._what}_{self._file.stem}"
        found = importlib.util.spec_from_file_location(name, self._file)
        if found is None or found.loader is None:
            msg = f"{self._what} file {self._file} is no Python file; its name must end in .py"
            raise InputError(msg)
        module = importlib.util.module_from_spec(found)
        # Dataclasses and pickling look their module up here.
        sys.modules[found.name] = module
        found.loader.exec_module(module)
        made = getattr(module, self._function, None)
        if not callable(made):
            msg = f"{self._what} file {self._file} has no function '{self._function}'"
            raise InputError(msg)
        return made  # type: ignore[no-any-return]
