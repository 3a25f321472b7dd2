"""What many channels do together when they go: one expansion answers for every choice of them.

Changes of single channels add up only while few go: behind a fifth of all channels less, layers
see other inputs. So the output is expanded not about the whole network but about the middle of
what is asked for, the network thinned by the share that goes:

    f(m) = f(s) + sum over channels of (m_c - s) (f(s) - f(s without c)) / s

where m says which channels stay (1 or 0) and s is what stays on average. A softmax at the end is
taken exactly: what is added up are the logits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.gradient.probabilities import logits_of
from onnxprune.sensitivity.measurer import Measurer
from onnxprune.sensitivity.output import OutputChange
from onnxprune.sensitivity.request import Batches, Request
from onnxprune.sensitivity.thinned import thin

__all__ = ["Expansion", "expand"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Expansion:
    """The change of the output with any channels gone, to first order.

    Attributes
    ----------
    base : float array, shape (dims,)
        Change of the output of the thinned network, relative to its spread.
    vectors : mapping of group name to float array, shape (channels, dims)
        What the loss of all of a channel adds to that, by the slope where it is thinned.
    stays : mapping of group name to float
        What the thinned network keeps of each channel.
    logits : float array, shape (samples, classes), optional
        Of the original, where changes are those of logits; then changes are not relative.
    """

    base: Array
    vectors: Mapping[str, Array]
    stays: Mapping[str, float]
    logits: Array | None = None

    def change(self, gone: Mapping[str, Sequence[int]]) -> Array:
        """Return the change of what is added up.

        Parameters
        ----------
        gone : mapping of group name to channel numbers
            Groups that are left out stay whole.
        """
        total = self.base.copy()
        for name, vectors in self.vectors.items():
            lost = np.full(len(vectors), self.stays[name] - 1.0)  # thinned already
            lost[list(gone.get(name, ()))] += 1.0
            total += lost @ vectors
        return total

    def error(self, gone: Mapping[str, Sequence[int]]) -> float:
        """Return the relative squared change of the output."""
        change = self.change(gone)
        if self.logits is None:
            return float((change**2).sum())
        before = softmax(self.logits, axis=1)
        moved = softmax(self.logits + change.reshape(self.logits.shape), axis=1) - before
        return float((moved**2).sum() / ((before - before.mean()) ** 2).sum())


def expand(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    feeds: Sequence[Feeds],
    *,
    outputs: Sequence[str],
    share: float,
) -> Expansion:
    """Measure every channel in the network that is thinned by a share.

    Parameters
    ----------
    view, trace, coupling
        Of the original.
    groups : sequence of Group
    feeds : sequence of Feeds
    outputs : sequence of str
        Values whose change counts.
    share : float
        Of the channels, that typically goes; 0 expands about the whole network.

    Returns
    -------
    Expansion
        It takes as many runs as perturbing every channel once.
    """
    before_softmax = logits_of(view, trace, outputs)
    values = tuple(outputs) if before_softmax is None else (before_softmax,)
    thinned, stays = thin(view, coupling, groups, share)
    measurer = Measurer(Request(thinned, trace, coupling, groups, Batches(feeds, []), values))
    original = _run(view, feeds, values)
    change = OutputChange(original)
    base = [change.vector(n, found) for n, found in enumerate(_run(thinned, feeds, values))]
    units = np.concatenate([change.units(n) for n in range(len(feeds))])
    ratio = np.concatenate([measurer.fit.units(n) for n in range(len(feeds))]) / units
    vectors = {}
    for group in groups:
        parts = list(measurer.parts(measurer.prepare(group), group, math.inf))
        vectors[group.name] = np.concatenate(parts, axis=1) * ratio / stays[group.name]
    flat = np.concatenate(base).astype(np.float64)
    if before_softmax is None:
        return Expansion(flat, vectors, stays)
    logits = np.concatenate([found[before_softmax] for found in original]).astype(np.float64)
    changes = {name: table * units for name, table in vectors.items()}
    return Expansion(flat * units, changes, stays, logits)


def _run(
    view: View, feeds: Sequence[Feeds], values: Sequence[str]
) -> list[dict[str, NDArray[np.generic]]]:
    session = Session(with_outputs(view.real, values))
    return [session.run(feed, values) for feed in feeds]
