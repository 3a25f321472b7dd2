"""What the original does where layers are refitted: a stretch of the network at a time.

All at once it takes gigabytes: every layer's outputs, of thousands of rows. The price is that the
original runs once per stretch.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.layers.recurrent import Recurrence
from onnxprune.layers.rows import Draw, Places, output_rows
from onnxprune.layers.sites import Site
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, batch_size, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Lessons"]

Rows = NDArray[np.float32]
_ROOM = 1 << 30  # bytes of lessons that are kept


class Lessons:
    """What the original shows of the next few layers, by node and feed.

    Parameters
    ----------
    view, trace
        Of the original.
    places : mapping of node index to Places or Draw
        What is looked at of each layer but recurrent ones.
    feeds : sequence of Feeds
    kept : function
        Brings rows of a value, channels on an axis, to what the cut model has of it.

    Attributes
    ----------
    taught : set of int
        Nodes whose lesson was prepared.
    rows, reads : mapping of node index to list
        Goals of sites, and what recurrent layers read, feed by feed.
    """

    def __init__(
        self,
        view: View,
        trace: Trace,
        places: Mapping[int, Places | Draw],
        feeds: Sequence[Feeds],
        kept: Callable[[Rows, str, int], Rows],
    ) -> None:
        self.view, self.trace, self.places, self.feeds = view, trace, places, feeds
        self._kept = kept
        self.taught: set[int] = set()
        self.rows: dict[int, list[Rows]] = {}
        self.reads: dict[int, list[Feeds]] = {}

    def teach(self, layers: Sequence[Site | Recurrence]) -> None:
        """Collect the goals of sites (chosen places, kept channels), and what recurrences read."""
        chosen: list[Site | Recurrence] = []
        size = 0
        for layer in layers:
            size += self.size(layer)
            if chosen and size > _ROOM:
                break
            chosen.append(layer)
        sites = [layer for layer in chosen if isinstance(layer, Site)]
        others = [layer for layer in chosen if isinstance(layer, Recurrence)]
        self.taught |= {layer.node.index for layer in chosen}
        self.rows |= {s.node.index: [] for s in sites}
        self.reads |= {o.node.index: [] for o in others}
        wanted = dict.fromkeys([s.total or s.output for s in sites])
        wanted |= dict.fromkeys(name for layer in others for name in layer.reads)
        inner = [name for name in wanted if name not in self.view.inputs]
        session = Session(with_outputs(self.view.real, inner))
        for feed in self.feeds:
            values = {**feed, **session.run(feed, inner)}
            for site in sites:
                self.rows[site.node.index].append(self.goal(site, values))
            for layer in others:
                read = {name: values[name] for name in layer.reads}
                self.reads[layer.node.index].append(read)

    def goal(self, site: Site, values: Feeds) -> Rows:
        """Return what a layer should make of one feed."""
        name, places = site.total or site.output, self.places[site.node.index]
        return self._kept(output_rows(values[name], places), name, self.axis(site))

    def size(self, layer: Site | Recurrence) -> int:
        """Return how many bytes a layer's lesson takes, at most."""
        samples = sum(map(batch_size, self.feeds))
        if isinstance(layer, Recurrence):
            return 4 * samples * sum(math.prod(self.trace.shapes[name]) for name in layer.reads)
        name, places = layer.total or layer.output, self.places[layer.node.index]
        shape, axis = self.trace.shapes[name], self.axis(layer)
        width: int = self._kept(np.zeros((1, shape[axis]), np.float32), name, axis).shape[1]
        if isinstance(places, Places):
            return 4 * samples * len(places.index[0]) * width
        rows = min(samples * math.prod(shape[:-1]), len(self.feeds) * places.most)
        return 4 * rows * width

    def axis(self, site: Site) -> int:
        """Return where a layer's goal has its channels."""
        name, places = site.total or site.output, self.places[site.node.index]
        return 1 if isinstance(places, Places) else len(self.trace.shapes[name]) - 1
