"""What the user wants to reach, and how far a model is from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
    price : mapping of quantity to weight
        What a saving is valued by on the way; where empty, by what is missing.
    """

    ratios: Mapping[str, float]
    total: Cost
    overhead: float = 0.0
    gone: Cost = _NOTHING
    price: Mapping[str, float] = field(default_factory=dict)

    @property
    def in_steps(self) -> bool:
        """Whether only widths that pay by the clock are of use."""
        return "latency" in (self.price or self.ratios)

    def reached(self, saved: Cost) -> dict[str, float]:
        """Return the ratio of each budgeted quantity after a saving."""
        return {name: self._ratio(name, saved) for name in self.ratios}

    def with_latency(self, ratio: float) -> "Budget":
        """Return the same budget with another latency."""
        return replace(self, ratios={**self.ratios, "latency": ratio})

    def smaller(self, other: "Budget") -> bool:
        """Say whether this budget asks for less of the same quantities."""
        return all(ratio < other.ratios[name] for name, ratio in self.ratios.items())

    def met(self, saved: Cost) -> bool:
        """Say whether every ratio is reached."""
        return all(self._ratio(name, saved) <= ratio for name, ratio in self.ratios.items())

    def progress(self, saved: Cost, more: Cost) -> float:
        """Value a further saving: the summed share of each missing amount that it brings.

        With a price, the summed share of each priced quantity.
        """
        if self.price:
            return sum(weight * self._share(name, more) for name, weight in self.price.items())
        value = 0.0
        for name, ratio in self.ratios.items():
            missing = self._ratio(name, saved) - ratio
            if missing > 0:
                value += min(self._share(name, more) / missing, 1.0)
        return value

    def _whole(self, name: str) -> float:
        whole = float(getattr(self.total, name))
        return whole + self.overhead if name == "bytes" else whole

    def _share(self, name: str, saved: Cost) -> float:
        return float(getattr(saved, name)) / max(self._whole(name), 1.0)

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
