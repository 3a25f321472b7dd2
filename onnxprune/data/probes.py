"""Feeds that a model is looked at with: made by chance, or the user's where those do not run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec
from onnxprune.data.synthetic import random_feed
from onnxprune.runtime.session import Feeds

__all__ = ["OwnFeeds", "RandomFeeds"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(slots=True)
class RandomFeeds:
    """Feeds of any shapes, another one each time."""

    model: onnx.ModelProto
    specs: Sequence[InputSpec]
    rng: np.random.Generator

    def of(self, shapes: Shapes) -> Feeds:
        """Make a feed of the given shapes."""
        return random_feed(self.model, self.specs, shapes, self.rng)


@dataclass(slots=True)
class OwnFeeds:
    """The user's samples, for models in which inputs carry meaning: lengths, edges, positions."""

    samples: Samples
    taken: int = 0

    def of(self, shapes: Shapes) -> Feeds | None:
        """Return the next samples that have the given shapes; None where none have."""
        axes = [shape[0] for shape in shapes.values() if shape]
        batch = axes[0] if axes and self.samples.stacked else 1
        for start in range(self.taken, self.taken + len(self.samples)):
            chosen = [(start + n) % len(self.samples) for n in range(batch)]
            feed = next(self.samples.feeds(chosen, batch))
            if all(feed[name].shape == shape for name, shape in shapes.items()):
                self.taken = start + batch
                return feed
        return None
