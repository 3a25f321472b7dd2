"""What operators take at the widths that pay: a table that can be carried to other machines."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.bench.fit import Fit
from onnxprune.documents import read, write
from onnxprune.errors import InputError

__all__ = ["Entry", "LatencyTable", "Pays", "load_table", "save_table"]

FORMAT = "onnxprune-latency/1"
Sizes = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Pays:
    """Which widths of a kind of operator pay.

    Attributes
    ----------
    steps : tuple of int
        Per axis: a width takes as long as the next multiple of its step.
    cliff : float
        What widths that are no multiple of 4 take more, relative; 0 where they do not.
    """

    steps: tuple[int, ...]
    cliff: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One operator's times.

    Attributes
    ----------
    levels : tuple of tuple of int
        Measured widths per axis, ascending, the whole width last. An axis with one level was not
        varied: the time is taken to be in proportion to it.
    times : float array, one axis per axis of the operator
        Nanoseconds.
    pays : Pays
    """

    levels: tuple[tuple[int, ...], ...]
    times: NDArray[np.float64]
    pays: Pays

    @property
    def whole(self) -> float:
        """Nanoseconds at the whole widths."""
        return float(self.times.ravel()[-1])

    def at(self, widths: Sequence[float]) -> float:
        """Return the nanoseconds at some widths: those of the steps' tops, linear in between.

        Below the first step no blocks are filled, and times are linear where they were measured;
        below the narrowest measured width time no longer falls: nothing is promised there.
        """
        times = self.times
        ragged = False
        for width, levels, step in zip(widths, self.levels, self.pays.steps, strict=True):
            kept = round(width)
            ragged |= kept % 4 != 0 and kept != levels[-1]
            top = min(-(-kept // step) * step, levels[-1]) if kept > step else kept
            if len(levels) == 1:
                times = times[0] * (kept / levels[0])
                continue
            place = min(max(int(np.searchsorted(levels, top)), 1), len(levels) - 1)
            low, high = levels[place - 1], levels[place]
            share = max((top - low) / (high - low), 0.0)
            times = times[place - 1] * (1 - share) + times[place] * share
        return float(times) * (1 + self.pays.cliff * ragged)

    def lower(self, other: "Entry | None") -> "Entry":
        """Return the lower of two measurements at the same widths; this one at others."""
        if other is None or other.levels != self.levels:
            return self
        return Entry(self.levels, np.minimum(self.times, other.times), self.pays)

    def left(self, kept: Sequence[float]) -> float:
        """Return the share of the time that is left when these shares of the axes are kept."""
        sizes = [levels[-1] for levels in self.levels]
        return self.at([k * size for k, size in zip(kept, sizes, strict=True)]) / self.whole


@dataclass(frozen=True, slots=True, eq=False)
class LatencyTable:
    """Times of operators on one machine, provider and number of threads.

    Attributes
    ----------
    machine : mapping of str to str
    pays : mapping of kind to Pays
    entries : mapping of signature to Entry
    fits : mapping of a model's SHA-256 and sizes to Fit
        How the times add up in whole models; sizes are (dimension, size) pairs.
    """

    machine: Mapping[str, str]
    pays: Mapping[str, Pays] = field(default_factory=dict)
    entries: Mapping[str, Entry] = field(default_factory=dict)
    fits: Mapping[tuple[str, Sizes], Fit] = field(default_factory=dict)

    def with_(self, pays: Mapping[str, Pays], entries: Mapping[str, Entry]) -> "LatencyTable":
        """Return a table that also knows these."""
        pays, entries = {**self.pays, **pays}, {**self.entries, **entries}
        return LatencyTable(self.machine, pays, entries, self.fits)

    def with_fit(self, sha256: str, dims: Mapping[str, int], fit: Fit) -> "LatencyTable":
        """Return a table that also knows how its times add up in a model at some sizes."""
        fits = {**self.fits, (sha256, tuple(sorted(dims.items()))): fit}
        return LatencyTable(self.machine, self.pays, self.entries, fits)

    def lowered(self, other: "LatencyTable") -> "LatencyTable":
        """Return a table with the lower of each time where both know it, else what is known."""
        entries = {
            name: entry.lower(self.entries.get(name)) for name, entry in other.entries.items()
        }
        return self.with_(other.pays, entries)

    def fit_of(self, sha256: str, dims: Mapping[str, int]) -> Fit:
        """Return how the times add up in a model; at other sizes if these are not known."""
        known = [fit for (model, _), fit in self.fits.items() if model == sha256]
        return self.fits.get((sha256, tuple(sorted(dims.items()))), known[0] if known else Fit())

    def document(self) -> dict[str, object]:
        """Return the file's content."""
        return {
            "format": FORMAT,
            "machine": dict(self.machine),
            "kinds": [
                {"kind": kind, "steps": list(p.steps), "cliff": round(p.cliff, 4)}
                for kind, p in sorted(self.pays.items())
            ],
            "operators": [
                {
                    "signature": name,
                    "levels": [list(levels) for levels in entry.levels],
                    "nanoseconds": entry.times.round(1).ravel().tolist(),
                    "steps": list(entry.pays.steps),
                    "cliff": round(entry.pays.cliff, 4),
                }
                for name, entry in sorted(self.entries.items())
            ],
            "models": [
                {"sha256": sha, "dims": dict(dims), **asdict(fit)}
                for (sha, dims), fit in sorted(self.fits.items(), key=lambda item: item[0])
            ],
        }


def save_table(table: LatencyTable, path: Path) -> None:
    """Write a table whole or not at all.

    Raises
    ------
    UsageError
        If the path cannot be written.
    """
    write(table.document(), path)


def load_table(path: Path) -> LatencyTable:
    """Read a table.

    Raises
    ------
    InputError
        If the file is missing or is no latency table.
    """
    content = read(path, FORMAT, "latency table")
    pays = {k["kind"]: Pays(tuple(k["steps"]), k["cliff"]) for k in content["kinds"]}
    entries = dict(_entry(o, path) for o in content["operators"])
    fits = {
        (row.pop("sha256"), tuple(sorted(row.pop("dims", {}).items()))): Fit(**row)
        for row in content["models"]
    }
    return LatencyTable(content["machine"], pays, entries, fits)


def _entry(row: Mapping[str, Any], path: Path) -> tuple[str, Entry]:
    levels = tuple(tuple(axis) for axis in row["levels"])
    shape = tuple(map(len, levels))
    times = np.asarray(row["nanoseconds"], np.float64)
    rising = all(a < b for axis in levels for a, b in pairwise(axis))
    if times.size != np.prod(shape) or not rising or len(row["steps"]) != len(levels):
        msg = f"'{path}': the levels, steps and times of '{row['signature']}' do not fit together"
        raise InputError(msg)
    pays = Pays(tuple(row["steps"]), float(row["cliff"]))
    return str(row["signature"]), Entry(levels, times.reshape(shape), pays)
