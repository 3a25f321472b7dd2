"""The proof of a cut: the cut model equals the original with the same channels masked.

``run(cut(model), narrow(feeds)) == narrow(run(masked original, feeds))``, where `narrow` changes
something only if graph inputs or outputs were cut.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.keeps import Keeps, narrow
from onnxprune.errors import InputError
from onnxprune.model.frontier import float_frontier
from onnxprune.model.upcast import upcast
from onnxprune.model.view import View
from onnxprune.rewrite.native import NativeCheck, runs_natively
from onnxprune.runtime.branches import force_branches, has_branches
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Feeds, RunFailedError, Session, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["LOOSEST", "TOLERANCE", "Verifier", "is_comparable", "relative_error"]

TOLERANCE = 1e-4  # relative to the largest output; fp32 kernels of other widths sum in other orders
LOOSEST = 1e-3  # for networks whose own rounding is larger than TOLERANCE, and no further


def relative_error(
    found: Mapping[str, NDArray[np.generic]], wanted: Mapping[str, NDArray[np.generic]]
) -> float:
    """Return the largest difference over the largest wanted value, over all outputs.

    Infinite where a shape, count or type differs, or a NaN or infinity stands on one side only.
    """
    if found.keys() != wanted.keys():
        return float("inf")
    worst = 0.0
    for name, w in wanted.items():
        f = found[name]
        if not hasattr(w, "dtype") or not hasattr(f, "dtype"):
            continue  # sequences and maps
        if f.shape != w.shape or f.dtype != w.dtype:
            return float("inf")
        if w.dtype.kind not in "fV":
            worst = max(worst, 0.0 if np.array_equal(f, w) else float("inf"))
            continue
        f64, w64 = f.astype(np.float64), w.astype(np.float64)
        finite = np.isfinite(w64)
        if not np.array_equal(finite, np.isfinite(f64)):
            return float("inf")
        if w64.size and not finite.any():
            return float("inf")  # nothing to compare by
        if finite.any():
            scale = np.abs(w64[finite]).max()
            gap = np.abs(f64[finite] - w64[finite]).max()
            worst = max(worst, float(gap / scale) if scale > 0 else float(gap))
    return worst


def is_comparable(view: View, trace: Trace, feed: Feeds) -> bool:
    """Say whether a model gives finite numbers on a feed: with others no cut can be proven."""
    found = Session(with_outputs(view.real, float_frontier(view, trace))).run(feed)
    return relative_error(found, found) <= TOLERANCE


class Verifier:
    """Compares cuts with the masked original; one gated session serves all cuts of a model.

    A model that branches is also compared with every If made to take one branch, and the other,
    as far as the original runs that way: what the feeds do not take must be right too.

    Parameters
    ----------
    view : View
    trace : Trace
    coupling : Coupling
    feeds : sequence of Feeds
        Random or real samples; batch >= 2 where the model allows it.

    Attributes
    ----------
    masked : Gated
        The original with a mask on every axis that can be cut.
    noisiest : float
        The largest error that a cut was allowed beyond `TOLERANCE`; 0 where none was.
    """

    def __init__(
        self, view: View, trace: Trace, coupling: Coupling, feeds: Sequence[Feeds]
    ) -> None:
        known = coupling.collected.sizes  # of one position there is nothing to mask
        axes = [a for a in coupling.contracts if a in known and a not in coupling.frozen]
        self.masked = gate(view, trace, coupling, axes)
        self._names = [output.name for output in view.model.graph.output]
        self._outputs = float_frontier(view, trace)
        self._session = Session(with_outputs(self.masked.model, self._outputs))
        self._feeds = feeds
        self.noisiest = 0.0
        self._check_deterministic()
        self._forced = dict(self._forced_ways()) if has_branches(view.model) else {}
        cloned = view.real is not view.model
        self._native = (
            NativeCheck(view, feeds) if cloned and runs_natively(view, feeds[0]) else None
        )

    def _check_deterministic(self) -> None:
        """A model that answers by chance can be neither measured nor proven."""
        masks = self.masked.feeds({})
        for feed in self._feeds:
            first, second = (self._session.run({**feed, **masks}) for _ in range(2))
            if relative_error(first, first) > TOLERANCE:
                msg = (
                    "an output has no finite value on the inputs that cuts are verified with: "
                    "look for NaN or infinity in the weights, or give typical inputs with --data"
                )
                raise InputError(msg)
            if relative_error(first, second) > TOLERANCE:
                msg = (
                    "the model gives different outputs for the same input (Dropout in training "
                    "mode, or a random operator); export it in evaluation mode"
                )
                raise InputError(msg)

    def _forced_ways(self) -> Iterator[tuple[bool, Session]]:
        """Yield the branches that the original can be made to take, with a session each."""
        masks = self.masked.feeds({})
        for then in (True, False):
            forced = force_branches(self.masked.model, then=then)
            try:
                session = Session(with_outputs(forced, self._outputs))
                runs = [session.run({**feed, **masks}) for feed in self._feeds]
            except RunFailedError:
                continue
            if all(relative_error(found, found) == 0.0 for found in runs):
                yield then, session

    def _gap(self, model: onnx.ModelProto, keeps: Keeps, reference: Session) -> float:
        masks = self.masked.feeds(keeps)
        session = Session(with_outputs(model, self._outputs))
        return max(
            relative_error(
                session.run(narrow(feed, keeps)), narrow(reference.run({**feed, **masks}), keeps)
            )
            for feed in self._feeds
        )

    def objection(self, error: float, keeps: Keeps) -> str:
        """Say why an error is too large; "" if it is no larger than rounding makes it.

        Some networks (deep ones with random weights) enlarge rounding beyond `TOLERANCE`. Where a
        cut is off by more, the masked original is run a second time, with other kernels: what the
        two runs differ by is the network's own noise, and a cut may be off by as much, up to
        `LOOSEST`. That is remembered, and reported.
        """
        if error <= TOLERANCE:
            return ""
        noise = self._noise(keeps) if np.isfinite(error) else 0.0
        if error <= min(noise, LOOSEST):
            self.noisiest = max(self.noisiest, min(noise, LOOSEST))
            return ""
        rounding = f" (as rounding alone changes it by {noise:.2g})" if noise > LOOSEST else ""
        return f"differs from its reference by {error:.2g}{rounding}"

    def remark(self) -> str:
        """Say what was allowed beyond the usual; "" if nothing was."""
        if not self.noisiest:
            return ""
        return (
            f"the model's own fp32 rounding changes its output by up to {self.noisiest:.1e} (with "
            f"onnxruntime's optimizations and without), so cuts are verified to that instead of "
            f"{TOLERANCE:.0e}"
        )

    @cached_property
    def _plain(self) -> Session:
        """The masked original without onnxruntime's optimizations: the same with other kernels."""
        return Session(with_outputs(self.masked.model, self._outputs), optimize=False)

    def _noise(self, keeps: Keeps) -> float:
        masks = self.masked.feeds(keeps)
        return max(
            relative_error(self._plain.run({**f, **masks}), self._session.run({**f, **masks}))
            for f in self._feeds
        )

    def error(self, model: onnx.ModelProto, keeps: Keeps) -> float:
        """Return the relative error of a cut model against its reference.

        Parameters
        ----------
        model : ModelProto
            The cut model.
        keeps : mapping of Axis to mask
            What was kept.

        Returns
        -------
        float
            Of the fp32 clones. Infinite if the cut model does not load, does not run, has other
            outputs, or goes astray in its own types.
        """
        if [o.name for o in model.graph.output] != self._names:
            return float("inf")
        real = upcast(model)
        try:
            error = self._gap(real, keeps, self._session)
            for then, reference in self._forced.items():
                error = max(error, self._gap(force_branches(real, then=then), keeps, reference))
        except RunFailedError:
            return float("inf")
        astray = self._native is not None and bool(self._native.reason(model, keeps))
        return float("inf") if astray else error
