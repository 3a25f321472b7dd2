"""Where this machine's latency table is kept."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from onnxprune.bench.machine import identity
from onnxprune.bench.table import LatencyTable, load_table, save_table
from onnxprune.errors import InputError, UsageError

__all__ = ["recall", "remember"]


def recall(folder: Path | None, *, threads: int, provider: str) -> LatencyTable:
    """Return what was measured on this machine before, or an empty table.

    Parameters
    ----------
    folder : Path, optional
        The user's cache folder by default.
    threads : int
    provider : str
    """
    facts = identity(threads, provider)
    try:
        return load_table(_place(folder, facts))
    except InputError:  # not there, or spoilt: it can be measured again
        return LatencyTable(facts)


def remember(table: LatencyTable, folder: Path | None) -> None:
    """Keep a table for the next run; a folder that cannot be written is not worth failing for.

    Raises
    ------
    UsageError
        If a folder that the user named cannot be written.
    """
    place = _place(folder, table.machine)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        save_table(table, place)
    except (OSError, UsageError) as error:
        if folder is not None:
            msg = f"--cache {folder}: cannot write there: {error}"
            raise UsageError(msg) from error


def _place(folder: Path | None, facts: Mapping[str, str]) -> Path:
    base = folder or Path(platformdirs.user_cache_dir("onnxprune"))
    text = "\n".join(f"{name}={value}" for name, value in sorted(facts.items()))
    return base / f"latency-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
