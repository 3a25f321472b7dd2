"""What operators carry in attributes and parameter inputs, mended for a cut.

A repair looks at which axes of its node lose positions and says what the node's parameters must
be afterwards. Slicing the weights and keeping computed shapes right is done elsewhere.
"""

from collections.abc import Callable, Set
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.relations import Axis
from onnxprune.model.view import Node
from onnxprune.rewrite.keeps import Keeps, Mask
from onnxprune.runtime.trace import Trace

__all__ = ["Repair", "Site", "UnrepresentableError", "repair"]

Array = NDArray[np.generic]


class UnrepresentableError(Exception):
    """The operator has no parameters that mean the wanted cut."""


class Site:
    """One node under a cut, at the sizes of one trace.

    ``attributes`` collects new attribute values (None: the attribute goes), ``parameters`` new
    values of parameter inputs; a slot past the last input is added. ``known`` names the values
    that constants and shapes decide.
    """

    def __init__(self, node: Node, trace: Trace, keeps: Keeps, opset: int, known: Set[str]) -> None:
        self.node, self.trace, self.keeps, self.opset = node, trace, keeps, opset
        self.known = known
        self.attributes: dict[str, object] = {}
        self.parameters: dict[int, Array] = {}

    def keep(self, value: str, axis: int) -> Mask | None:
        """Return the keep mask of an axis, None where it stays whole."""
        return self.keeps.get(Axis(value, axis))

    def full(self, value: str, axis: int) -> Mask:
        """Return the keep mask of an axis, all true where it stays whole."""
        mask = self.keep(value, axis)
        return np.ones(self.trace.shapes[value][axis], bool) if mask is None else mask

    def kept(self, value: str, axis: int) -> int:
        """Return how many positions of an axis stay."""
        mask, size = self.keep(value, axis), self.trace.shapes[value][axis]
        if mask is None:
            return size
        if len(mask) == size:
            return int(mask.sum())
        count = int(mask.sum()) * size  # the mask was made at other sizes of dynamic axes
        if count % len(mask):
            self.refuse("a dynamic axis does not divide")
        return count // len(mask)

    def parameter(self, slot: int) -> Array | None:
        """Return the value of a parameter input at this trace, None where data decide it."""
        if slot >= len(self.node.inputs) or self.node.inputs[slot] not in self.known:
            return None
        return self.trace.values.get(self.node.inputs[slot])

    def refuse(self, why: str) -> None:
        """Give up: the cut cannot be written."""
        msg = f"{self.node.op_type} {self.node.name}: {why}"
        raise UnrepresentableError(msg)


Repair: TypeAlias = Callable[[Site], None]


def repair(site: Site) -> None:
    """Fill in the attributes and parameters that a node needs after the cut."""
    function = _REPAIRS.get(site.node.op_type)
    if function is not None and site.node.domain == "":
        function(site)


def _conv(site: Site) -> None:
    group = site.node.attributes.get("group", 1)
    if not isinstance(group, int) or group == 1:
        return
    x, w, y = site.node.inputs[0], site.node.inputs[1], site.node.outputs[0]
    transposed = site.node.op_type == "ConvTranspose"
    value, axis = (y, 1) if transposed else (x, 1)
    per_group = site.kept(w, 1)
    count = site.kept(value, axis)
    if count % per_group:
        site.refuse("the kept channels do not fill whole groups")
    if count // per_group != group:
        site.attributes["group"] = count // per_group


def _shape(site: Site, slot: int) -> None:
    """A target shape lists the kept sizes of the output's cut axes."""
    y = site.node.outputs[0]
    given = site.parameter(slot)
    if given is None:
        if "shape" in site.node.attributes:
            site.refuse("the shape is an attribute")
        return
    target = given.astype(np.int64).copy()
    lead = len(site.trace.shapes[y]) - len(target)
    for entry, wanted in enumerate(target.tolist()):
        if site.keep(y, entry + lead) is not None and wanted > 1:
            target[entry] = site.kept(y, entry + lead)
        elif wanted == 0 and site.node.op_type == "Reshape":
            x = site.node.inputs[0]
            if site.kept(x, entry) != site.kept(y, entry):
                target[entry] = site.kept(y, entry)
    site.parameters[slot] = target.astype(given.dtype)


def _reshape(site: Site) -> None:
    _shape(site, 1)


def _constant_of_shape(site: Site) -> None:
    _shape(site, 0)


def _resize(site: Site) -> None:
    """Sizes are listed for all axes, or for those that ``axes`` names."""
    sizes, y = site.parameter(3), site.node.outputs[0]
    if sizes is None or not sizes.size:
        return
    rank = len(site.trace.shapes[y])
    axes = np.ravel(np.asarray(site.node.attributes.get("axes", range(rank)))) % rank
    new = sizes.copy()
    for entry, axis in enumerate(axes.tolist()):
        if site.keep(y, axis) is not None:
            new[entry] = site.kept(y, axis)
    site.parameters[3] = new


def _split(site: Site) -> None:
    x = site.node.inputs[0]
    axis = _axis(site, 0)
    if site.keep(x, axis) is None:
        return
    sizes = [site.kept(y, axis) for y in site.node.outputs]
    given = site.parameter(1)
    if 0 in sizes:
        site.refuse("an output would be empty")
    if given is not None:
        site.parameters[1] = np.asarray(sizes, given.dtype)
    elif "split" in site.node.attributes or (len(set(sizes)) > 1 and site.opset < 13):
        site.attributes["split"] = sizes
    elif len(set(sizes)) > 1:
        site.parameters[1] = np.asarray(sizes, np.int64)
        site.attributes["num_outputs"] = None


def _axis(site: Site, default: int) -> int:
    axis = site.node.attributes.get("axis", default)
    assert isinstance(axis, int)
    return axis % len(site.trace.shapes[site.node.inputs[0]])


def _slice(site: Site) -> None:
    """Starts and ends count kept positions, which must still lie as far apart as the step says."""
    x, y = site.node.inputs[0], site.node.outputs[0]
    given = _slice_parameters(site)
    if given is None:
        return
    starts, ends, axes, steps = given
    rank = len(site.trace.shapes[x])
    changed = False
    for i, axis in enumerate(a % rank for a in axes):
        if site.keep(x, axis) is None and site.keep(y, axis) is None:
            continue
        full = site.full(x, axis)
        taken = np.arange(len(full))[slice(starts[i], ends[i], steps[i])]
        if not np.array_equal(full[taken], site.full(y, axis)):
            site.refuse("the slice keeps other positions than its input")
        places = (np.cumsum(full) - 1)[taken[full[taken]]]
        if not len(places):
            continue
        if not (np.diff(places) == steps[i]).all():
            site.refuse("what is kept is no longer evenly spaced")
        last = int(places[-1]) + (1 if steps[i] > 0 else -1)
        starts[i], ends[i] = int(places[0]), last if last >= 0 else -len(full) - 1
        changed = True
    if changed and site.opset < 10:
        site.attributes.update(starts=starts, ends=ends)
    elif changed:
        for slot, values in ((1, starts), (2, ends)):
            old = site.parameter(slot)
            assert old is not None
            site.parameters[slot] = np.asarray(values, old.dtype)


def _slice_parameters(site: Site) -> tuple[list[int], list[int], list[int], list[int]] | None:
    """Return starts, ends, axes and steps, from attributes or inputs."""
    found: list[list[int] | None] = []
    for slot, name in enumerate(("starts", "ends", "axes", "steps"), start=1):
        value = site.node.attributes.get(name) if site.opset < 10 else site.parameter(slot)
        found.append(None if value is None else [int(v) for v in np.ravel(np.asarray(value))])
    starts, ends, axes, steps = found
    if starts is None or ends is None:
        return None
    return starts, ends, axes or list(range(len(starts))), steps or [1] * len(starts)


def _gather(site: Site) -> None:
    """Constant indices are renumbered; positions that go are no longer asked for."""
    x, y = site.node.inputs[0], site.node.outputs[0]
    axis = _axis(site, 0)
    indices = site.parameter(1)
    mask = site.keep(x, axis)
    if indices is None or mask is None:
        if site.keep(y, axis) is not None and indices is not None and indices.ndim == 1:
            site.parameters[1] = indices[site.full(y, axis)]
        return
    wanted = np.asarray(indices) % len(mask)
    if indices.ndim == 1:
        wanted = wanted[site.full(y, axis)]
    elif indices.ndim > 1:
        site.refuse("indices of rank > 1 on a cut axis")
    if not mask[wanted].all():
        site.refuse("an index asks for a position that goes")
    site.parameters[1] = (np.cumsum(mask) - 1)[wanted].astype(indices.dtype)


def _squeeze(site: Site) -> None:
    """Without a list of axes every axis of size 1 goes: none may become one."""
    x = site.node.inputs[0]
    if len(site.node.inputs) > 1 or "axes" in site.node.attributes:
        return
    for axis, size in enumerate(site.trace.shapes[x]):
        if size > 1 and site.kept(x, axis) == 1:
            site.refuse("an axis would shrink to one and be squeezed")


def _tile(site: Site) -> None:
    x, y = site.node.inputs[0], site.node.outputs[0]
    repeats = site.parameter(1)
    if repeats is None:
        return
    new = repeats.copy()
    for axis in range(len(repeats)):
        if site.keep(y, axis) is None:
            continue
        before, after = site.kept(x, axis), site.kept(y, axis)
        if after % before:
            site.refuse("repeats do not divide")
        new[axis] = after // before
    site.parameters[1] = new


def _pad(site: Site) -> None:
    """Padding counts its own kept positions; what is padded counts as the input says."""
    x, y = site.node.inputs[0], site.node.outputs[0]
    rank = len(site.trace.shapes[x])
    given = site.parameter(1)
    pads = np.asarray(site.node.attributes["pads"]) if given is None else given.copy()
    axes_input = site.parameter(3)
    axes = range(rank) if axes_input is None else [int(a) % rank for a in axes_input]
    half = len(pads) // 2
    changed = False
    for i, axis in enumerate(axes):
        if site.keep(x, axis) is None and site.keep(y, axis) is None:
            continue
        before, after = int(pads[i]), int(pads[i + half])
        full = site.full(y, axis)
        inner = full[max(before, 0) : len(full) - max(after, 0)]
        cropped = site.full(x, axis)[max(-before, 0) : site.trace.shapes[x][axis] - max(-after, 0)]
        if not np.array_equal(inner, cropped) or min(before, after) < 0:
            site.refuse("the padding keeps other positions than its input")
        pads[i] = full[:before].sum()
        pads[i + half] = full[len(full) - after :].sum() if after else 0
        changed = True
    if changed and given is None:
        site.attributes["pads"] = [int(v) for v in pads]
    elif changed:
        site.parameters[1] = pads


def _recurrent(site: Site) -> None:
    site.attributes["hidden_size"] = site.kept(site.node.inputs[2], 2)


def _group_norm(site: Site) -> None:
    groups = site.node.attributes["num_groups"]
    x = site.node.inputs[0]
    assert isinstance(groups, int)
    size = site.trace.shapes[x][1] // groups
    if site.kept(x, 1) % size:
        site.refuse("only whole groups can go")
    site.attributes["num_groups"] = site.kept(x, 1) // size


_REPAIRS: dict[str, Repair] = {
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "RNN": _recurrent,
    "Expand": _reshape,
    "Gather": _gather,
    "GroupNormalization": _group_norm,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
}
