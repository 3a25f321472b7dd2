"""What the user was promised of the quality, and whether a candidate keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.analysis import Analysis
from onnxprune.data.splits import Splits
from onnxprune.errors import BudgetError, UsageError
from onnxprune.options import Options
from onnxprune.quality.certificate import (
    certified_length,
    fewest_samples,
    p_value,
    samples_needed,
    upper_bound,
)
from onnxprune.quality.judge import Judge
from onnxprune.quality.losses import Losses
from onnxprune.quality.values import Certified

__all__ = ["Promise", "promise_of", "unlimited"]


@dataclass(frozen=True, slots=True)
class Promise:
    """Bounds on the drop.

    Attributes
    ----------
    metric : str
    limit : float, optional
        The most that may be lost; None: whatever the budget costs.
    confidence : float
    required : bool
        Whether nothing may be written that is not certified.
    impossible : str
        Why nothing can be certified here; "" where it may be.
    """

    metric: str
    limit: float | None
    confidence: float
    required: bool
    impossible: str

    def hopeful(self, losses: Losses, count: int) -> bool:
        """Say whether a candidate is likely to keep the promise.

        Parameters
        ----------
        losses : Losses
            On the selection samples.
        count : int
            Certification samples that there will be.
        """
        if self.limit is None:
            return True
        if not self.required:
            return losses.drop <= self.limit
        needed = samples_needed(losses, self.limit, self.confidence)
        return needed is not None and needed <= count

    def kept(self, path: Sequence[Losses]) -> tuple[int, str]:
        """Say how far a path keeps the promise on the certification samples.

        Parameters
        ----------
        path : sequence of Losses
            Of candidates chosen without these samples, from the least to the most pruned.

        Returns
        -------
        count : int
            The last candidate to keep it is the ``count``-th; 0: none does.
        reason : str
            What the one behind it fails on; "" if all keep it.
        """
        if self.limit is None:
            return len(path), ""
        limit, count = self.limit, len(path)
        reason = ""
        while count and path[count - 1].drop > limit:
            lost = path[count - 1]
            reason = f"on {lost.samples} held-out samples the drop is {lost.drop:.4f}"
            count -= 1
        if self.required and count:
            certified = certified_length(path[:count], limit, self.confidence)
            if certified < count:
                count, reason = certified, self.uncertified(path[certified])
        return count, reason

    def certificate(self, path: Sequence[Losses]) -> Certified | None:
        """Return what is proven of the last candidate of a path.

        With a limit this is the limit, or nothing. Without one it is the smallest drop that the
        samples allow to state.

        Parameters
        ----------
        path : sequence of Losses
            Up to the candidate in question, with none left out.
        """
        last = path[-1]
        if self.impossible:
            return None
        if self.limit is None:
            bound = upper_bound(last, self.confidence)
            return None if bound is None else Certified(bound, self.confidence, last.samples)
        if certified_length(path, self.limit, self.confidence) < len(path):
            return None
        return Certified(self.limit, self.confidence, last.samples)

    def uncertified(self, losses: Losses) -> str:
        """Say why a drop is not certified, and what would help."""
        if self.impossible:
            return self.impossible
        if losses.values is None or losses.kind is None:
            return "only a loss per sample within [0, 1] can be certified, not this metric's"
        if self.limit is None:
            return f"no drop below 1 can be certified with {losses.samples} samples"
        start = (
            f"a drop of at most {self.limit:g} is not certifiable with {losses.samples} samples at "
            f"confidence {self.confidence:g} (p = {p_value(losses, self.limit):.2g})"
        )
        needed = samples_needed(losses, self.limit, self.confidence)
        if needed is None:
            return f"{start}; the observed drop of {losses.drop:.4f} leaves no room for it"
        return f"{start}; about {needed} would do if the drop stays at {losses.drop:.4f}"


def promise_of(found: Analysis, splits: Splits, judge: Judge, options: Options) -> Promise:
    """Read the promise from the options; refuse at once what no candidate could keep.

    Raises
    ------
    UsageError
        If the user's metric needs a limit, and there is none.
    BudgetError
        If a certificate is required that even a perfect candidate would not get.
    """
    limit = options.max_drop
    if limit is None and (options.require_certificate or not options.ratios):
        limit = judge.default
        if limit is None:
            msg = f"--metric {judge.metric} has no default limit: give --max-drop"
            raise UsageError(msg)
    impossible = _impossible(found, splits)
    if options.require_certificate:
        count = judge.losses_count(splits.certify)
        fewest = fewest_samples(judge.kind, limit or 0.0, options.confidence) if judge.kind else 0
        if not impossible and (fewest is None or fewest > count):
            all_of_them = "no number" if fewest is None else f"{fewest} (so {4 * fewest} in all)"
            impossible = (
                f"a drop of at most {limit:g} is not certifiable with {count} samples at confidence"
                f" {options.confidence:g} even if nothing is lost; {all_of_them} would do"
            )
        if impossible:
            msg = f"--require-certificate: {impossible}; nothing is written"
            raise BudgetError(msg)
    return Promise(judge.metric, limit, options.confidence, options.require_certificate, impossible)


def unlimited(found: Analysis, splits: Splits, judge: Judge, options: Options) -> Promise:
    """Promise nothing; what was lost is stated all the same."""
    why = _impossible(found, splits)
    return Promise(judge.metric, None, options.confidence, required=False, impossible=why)


def _impossible(found: Analysis, splits: Splits) -> str:
    if found.samples.synthetic:
        return "synthetic inputs certify nothing; give --data"
    if splits.shared:
        return "fewer than 4 samples leave none to certify with"
    return ""
