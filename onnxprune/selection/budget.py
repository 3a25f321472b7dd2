"""What the user wants to reach, and how far a model is from it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnxprune.model.cost import Cost
from onnxprune.options import Options

__all__ = ["Budget", "budget_of", "farthest"]

_NOTHING = Cost(0, 0, 0)
_FARTHEST = 0.05  # nobody keeps a model below this ratio


@dataclass(frozen=True, slots=True)
class Budget:
    """Ratios of the original to reach; all of them.

    Attributes
    ----------
    ratios : mapping of quantity to ratio
        Quantities are ``macs``, ``params``, ``bytes`` and ``latency`` (as the table predicts it).
    total : Cost
        Of the original.
    overhead : float
        Bytes of the file that are not constants.
    gone : Cost
        What is saved already, before any channel goes.
    """

    ratios: Mapping[str, float]
    total: Cost
    overhead: float = 0.0
    gone: Cost = _NOTHING

    def reached(self, saved: Cost) -> dict[str, float]:
        """Return the ratio of each budgeted quantity after a saving."""
        return {name: self._ratio(name, saved) for name in self.ratios}

    def with_latency(self, ratio: float) -> "Budget":
        """Return the same budget with another latency."""
        return replace(self, ratios={**self.ratios, "latency": ratio})

    def met(self, saved: Cost) -> bool:
        """Say whether every ratio is reached."""
        return all(self._ratio(name, saved) <= ratio for name, ratio in self.ratios.items())

    def progress(self, saved: Cost, more: Cost) -> float:
        """Value a further saving: the summed share of each missing amount that it brings."""
        value = 0.0
        for name, ratio in self.ratios.items():
            missing = self._ratio(name, saved) - ratio
            if missing > 0:
                gain = self._ratio(name, Cost(0, 0, 0)) - self._ratio(name, more)
                value += min(gain / missing, 1.0)
        return value

    def _whole(self, name: str) -> float:
        whole = float(getattr(self.total, name))
        return whole + self.overhead if name == "bytes" else whole

    def _ratio(self, name: str, saved: Cost) -> float:
        gone = float(getattr(saved, name)) + float(getattr(self.gone, name))
        return 1.0 - gone / max(self._whole(name), 1.0)


def budget_of(options: Options, total: Cost, file_bytes: int) -> Budget | None:
    """Make the budget that the options ask for; None where they ask for no ratio."""
    ratios = options.ratios
    return Budget(ratios, total, max(file_bytes - total.bytes, 0.0)) if ratios else None


def farthest(total: Cost, objective: str) -> Budget:
    """Make the budget to search towards where only the drop is bounded.

    Parameters
    ----------
    total : Cost
        Of the original.
    objective : str
        The quantity that should become small.
    """
    return Budget({objective: _FARTHEST}, total)
