"""Cut models put together from weights that are known: no refit, but much of what one would bring.

What a layer does best without some of its inputs follows from the original's second moments alone,
whatever happens in the layers around it. So each layer's answer to each loss is solved for once
and kept, and any cut, layer by layer, is made up of such answers.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy import linalg

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps
from onnxprune.layers.readers import Reader, dense_sites, read_wholly
from onnxprune.recovery.heads import proven_heads, turn_heads
from onnxprune.recovery.turn import Turn, find_streams, kept_rows, turned
from onnxprune.rewrite.prove import Removal
from onnxprune.runtime.session import Feeds

__all__ = ["Stitcher"]

Array = NDArray[np.float64]
Answer = tuple[Array, Array]
_RIDGE = 1e-3  # of the mean diagonal of the second moments


class Stitcher:
    """Weights of layers that lost inputs, by layer and loss.

    Convolutions and linear layers have them, linear streams and heads are turned; recurrent layers
    and those with too few rows to learn from stay as they are cut.

    Parameters
    ----------
    found : Analysis
        Of what is cut.
    groups : sequence of Group
        That may be cut.
    feeds : sequence of Feeds
        Samples to fit on.
    seed : int
    """

    def __init__(
        self, found: Analysis, groups: Sequence[Group], feeds: Sequence[Feeds], *, seed: int
    ) -> None:
        view, trace, coupling = found.view, found.traces[0], found.coupling
        self._found = found
        self._sites = dense_sites(view, trace, coupling)
        self._readers = read_wholly(view, trace, self._sites, feeds, seed=seed)
        self._streams = {
            stream.group.name: stream
            for stream in find_streams(view, trace, coupling, groups, feeds, seed=seed)
        }
        made = [site.output for site in self._sites]
        self._heads = proven_heads(found, made, feeds, seed=seed)
        self._known: dict[tuple[int, bytes], Answer] = {}

    def stitched(
        self, cut: onnx.ModelProto, removed: Sequence[Removal], keeps: Keeps
    ) -> onnx.ModelProto:
        """Give a cut model the weights that make up best for what each layer lost.

        Parameters
        ----------
        cut : ModelProto
            Not changed.
        removed : sequence of (Group, channel numbers)
        keeps : mapping of Axis to mask

        Returns
        -------
        ModelProto
        """
        lost = {axis.value for axis in keeps}
        heads = [one for one in self._heads if one.pair.one.output in lost]
        streams = [
            self._streams[group.name].turn(len(gone))
            for group, gone in removed
            if group.name in self._streams
        ]
        turns = [Turn({}, {}, self._heard(keeps)), *streams]
        if heads:
            turns.append(replace(turn_heads(self._found, heads, keeps), proven=True))
        return turned(cut, self._found.view, self._sites, keeps, turns).model

    def _heard(self, keeps: Keeps) -> dict[int, Answer]:
        """Return the answers of all layers that lose inputs."""
        blocked = {axis.value for axis in keeps if axis.by >= 0}
        found = {}
        for site in self._sites:
            reader = self._readers.get(site.node.index)
            if reader is None or site.source in blocked:
                continue
            mask = kept_rows(keeps, site, site.source, len(reader.weight))
            if not mask.all():
                found[site.node.index] = self._answer(site.node.index, reader, mask)
        return found

    def _answer(self, node: int, reader: Reader, mask: NDArray[np.bool_]) -> Answer:
        """Return the weight (kept, O) on the inputs that stay, and the shift (O) of the bias."""
        key = (node, mask.tobytes())
        if key not in self._known:
            moments, lost = reader.moments, ~mask
            level = _RIDGE * max(float(np.diag(moments).mean()), 1e-12)
            inner = moments[np.ix_(mask, mask)] + level * np.eye(int(mask.sum()))
            through = moments[np.ix_(mask, lost)] @ reader.weight[lost]
            weight = reader.weight[mask] + linalg.solve(inner, through, assume_a="pos")
            self._known[key] = weight, reader.mean @ reader.weight - reader.mean[mask] @ weight
        return self._known[key]
