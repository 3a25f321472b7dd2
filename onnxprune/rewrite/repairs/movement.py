"""Parameters of operators that move elements: shapes, sizes, starts, indices, paddings."""

import numpy as np

from onnxprune.coupling.rules import MICROSOFT
from onnxprune.coupling.sequences import part_sizes
from onnxprune.rewrite.repairs._site import Site, repairs

__all__ = [
    "center_crop_pad",
    "constant_of_shape",
    "gather",
    "pad",
    "reshape",
    "resize",
    "slicing",
    "split",
    "split_to_sequence",
    "squeeze",
    "tile",
]


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


@repairs("Expand", "Reshape")
def reshape(site: Site) -> None:
    """The target shape is the second input."""
    _shape(site, 1)


@repairs("ConstantOfShape")
def constant_of_shape(site: Site) -> None:
    """The shape is the only input."""
    _shape(site, 0)


@repairs("Resize")
def resize(site: Site) -> None:
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


@repairs("Split")
def split(site: Site) -> None:
    """Sizes of the parts, where they are given or no longer equal."""
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


@repairs("SplitToSequence")
def split_to_sequence(site: Site) -> None:
    """Sizes of the parts."""
    axis, given = _axis(site, 0), site.parameter(1)
    keep = site.keep(site.node.inputs[0], axis)
    if keep is None:
        return
    ends = np.cumsum(part_sizes(given, len(keep)))
    sizes = [int(part.sum()) for part in np.split(keep, ends[:-1])]
    if 0 in sizes:
        site.refuse("a part would be empty")
    if given is not None:
        same = given.ndim == 0 and len(set(sizes)) == 1
        site.parameters[1] = np.asarray(sizes[0] if same else sizes, given.dtype)


def _axis(site: Site, default: int) -> int:
    axis = site.node.attributes.get("axis", default)
    assert isinstance(axis, int)
    return axis % len(site.trace.shapes[site.node.inputs[0]])


@repairs("Slice")
def slicing(site: Site) -> None:
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
        if steps[i] != 1 and site.ragged(x, axis):
            site.refuse("each block keeps other positions")
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


@repairs("Gather")
def gather(site: Site) -> None:
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
    if site.ragged(x, axis):
        site.refuse("each block keeps other positions")
    if not mask[wanted].all():
        site.refuse("an index asks for a position that goes")
    site.parameters[1] = (np.cumsum(mask) - 1)[wanted].astype(indices.dtype)


@repairs("Squeeze")
def squeeze(site: Site) -> None:
    """Without a list of axes every axis of size 1 goes: none may become one."""
    x = site.node.inputs[0]
    if len(site.node.inputs) > 1 or "axes" in site.node.attributes:
        return
    for axis, size in enumerate(site.trace.shapes[x]):
        if size > 1 and site.kept(x, axis) == 1:
            site.refuse("an axis would shrink to one and be squeezed")


@repairs("Tile")
def tile(site: Site) -> None:
    """Repeats of axes whose copies are cut apart."""
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


@repairs("Pad")
@repairs("Pad", domain=MICROSOFT)
def pad(site: Site) -> None:
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


@repairs("CenterCropPad")
def center_crop_pad(site: Site) -> None:
    """The target shape lists the kept sizes of axes that pass."""
    given, y = site.parameter(1), site.node.outputs[0]
    rank = len(site.trace.shapes[y])
    axes = np.ravel(np.asarray(site.node.attributes.get("axes", range(rank)))) % rank
    if given is None:
        site.refuse("its shape is known at run time only")
        return
    sizes = [site.kept(y, axis) for axis in axes.tolist()]
    site.parameters[1] = np.asarray(sizes, given.dtype)
