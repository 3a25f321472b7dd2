"""Turn linear streams before the refit, so that what is lost is what their readers hear least of.

A cut removes coordinates of a stream. Where any basis would do (see `layers.subspace`), the kept
coordinates may as well carry the best directions: the makers' filters are projected onto them, the
readers' weights on what they tell of the whole. The shapes are those of the cut; only numbers
change, and the refit goes on from there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.keeps import Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.layers.readers import collect_readers, dense_sites
from onnxprune.layers.rows import weight_blocks, weight_of
from onnxprune.layers.sites import Site
from onnxprune.layers.student import Student
from onnxprune.layers.subspace import Subspace, is_linear, makers_of, subspace
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.trace import Trace

__all__ = ["Stream", "Turn", "find_streams", "find_turns", "kept_rows", "turned"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Turn:
    """New bases for what is kept of some channels.

    Attributes
    ----------
    values : mapping of value to float array, shape (kept, channels)
        What the activations that carry the channels are multiplied by.
    made : mapping of node index to float array, shape (kept, channels)
        The same for the outputs of the layers that make them.
    heard : mapping of node index to (weight, bias)
        Of each reader: float arrays of shape (kept * taps, O) and (O,), the weight on the kept
        coordinates and what the rest adds on average.
    proven : bool
        Whether the model with nothing cut, turned alike, was shown to be the same function.
    """

    values: Mapping[str, Array]
    made: Mapping[int, Array]
    heard: Mapping[int, tuple[Array, Array]]
    proven: bool = False


@dataclass(frozen=True, eq=False)
class Stream:
    """A group that may be turned, with its best basis."""

    group: Group
    space: Subspace
    makers: Sequence[Site]

    def turn(self, gone: int) -> Turn:
        """Return the turn that leaves out the last directions."""
        space, width = self.space, self.group.size - gone
        heard = {}
        for reader in space.readers:
            places = reader.weight[reader.places]
            told = np.einsum("ck,cto->kto", space.decoder(reader, width), places)
            shift = (reader.weight - space.stand_in(reader, gone)).T @ reader.mean
            heard[reader.site.node.index] = (told.reshape(-1, told.shape[2]), shift)
        basis = space.basis[:width]
        return Turn(
            {m.axis.value: basis for m in self.group.members},
            {s.node.index: basis for s in self.makers},
            heard,
        )


def find_streams(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Iterable[Group],
    feeds: Sequence[Feeds],
    *,
    seed: int,
) -> list[Stream]:
    """Choose a basis for every stream that may be turned.

    Parameters
    ----------
    view, trace, coupling
        Of the original.
    groups : iterable of Group
    feeds : sequence of Feeds
        Samples to fit on.
    seed : int

    Returns
    -------
    list of Stream
    """
    sites = dense_sites(view, trace, coupling)
    linear = [g for g in groups if is_linear(view, coupling, g, sites)]
    readers = collect_readers(view, trace, coupling, linear, feeds, seed=seed)
    return [
        Stream(group, subspace(readers[group.name]), makers_of(sites, group))
        for group in linear
        if group.name in readers
    ]


def find_turns(
    view: View,
    trace: Trace,
    coupling: Coupling,
    removed: Iterable[tuple[Group, Sequence[int]]],
    feeds: Sequence[Feeds],
    *,
    seed: int,
) -> list[Turn]:
    """Choose a basis for every narrowed stream that may be turned; parameters as there."""
    counts = {group.name: (group, len(gone)) for group, gone in removed}
    groups = [group for group, _ in counts.values()]
    streams = find_streams(view, trace, coupling, groups, feeds, seed=seed)
    return [stream.turn(counts[stream.group.name][1]) for stream in streams]


def turned(
    model: onnx.ModelProto,
    view: View,
    sites: Iterable[Site],
    keeps: Keeps,
    turns: Sequence[Turn],
) -> Student:
    """Give the makers and readers of turned groups their weights in the new basis.

    Parameters
    ----------
    model : ModelProto
        The cut model.
    view : View
        Of the original.
    sites : iterable of Site
    keeps : mapping of Axis to mask
    turns : sequence of Turn

    Returns
    -------
    Student
    """
    student = Student(model, (), view.base)
    made = {node: basis for found in turns for node, basis in found.made.items()}
    heard = {node: pair for found in turns for node, pair in found.heard.items()}
    shown = {node for found in turns if found.proven for node in (*found.made, *found.heard)}
    for site in sites:
        node, before = site.node.index, (len(student.refitted), len(student.added))
        old = student.read(site.weight)
        if old is None or (node not in made and node not in heard):
            continue
        weight, bias = _full(view, site)
        if node in heard:
            weight, bias = heard[node][0], bias + heard[node][1]
        else:
            weight = weight[kept_rows(keeps, site, site.source, len(weight))]
        if node in made:
            weight, bias = weight @ made[node].T, made[node] @ bias
        else:
            mask = kept_rows(keeps, site, site.node.outputs[0], len(bias))
            weight, bias = weight[:, mask], bias[mask]
        student.write(site.weight, weight_of(site, weight[None], old.shape).astype(old.dtype))
        if site.bias is not None:
            student.write_bias(site.weight, site.bias, bias.astype(old.dtype))
        if node in shown:
            student.rotated += [*student.refitted[before[0] :], *student.added[before[1] :]]
    return student


def _full(view: View, site: Site) -> tuple[Array, Array]:
    """Return a layer's weight (D, O) and bias (O,) as the original has them."""
    weight = weight_blocks(site, site.weight_in(view))[0].astype(np.float64)
    edge = site.bias
    inputs = view.by_index[edge.node].inputs if edge is not None else ()
    if edge is None or edge.slot >= len(inputs) or not inputs[edge.slot]:
        return weight, np.zeros(weight.shape[1])
    bias = view.fixed(inputs[edge.slot])
    assert bias is not None
    return weight, bias.reshape(-1).astype(np.float64)


def kept_rows(keeps: Keeps, site: Site, value: str, size: int) -> NDArray[np.bool_]:
    """Return which of ``size`` rows or columns of a weight stay, by the channels of a value."""
    for axis, mask in keeps.items():
        if axis.value == value and len(mask) and size % len(mask) == 0 and _carries(site, axis):
            return np.repeat(mask, size // len(mask))
    return np.ones(size, bool)


def _carries(site: Site, axis: Axis) -> bool:
    """Whether an axis is the channels' one of what a layer reads or makes."""
    return axis.axis == 1 if site.node.op_type in ("Conv", "ConvTranspose") else axis.axis > 0
