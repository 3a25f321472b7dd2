"""The widths that a group may be narrowed to."""

from collections.abc import Mapping
from math import gcd, lcm
from types import MappingProxyType

from onnxprune.coupling.groups import Group
from onnxprune.coupling.relations import Axis

__all__ = ["allowed_widths", "paying_widths"]

_NARROWEST = 0.1  # share of a group's channels that always stays
_PARTS = (2, 4)  # of a step, that are faster again where they are all that is left
_PART = 4  # multiple that parts of a step keep to


def allowed_widths(
    group: Group,
    multiple: int,
    sizes: Mapping[Axis, int],
    steps: Mapping[Axis, int] = MappingProxyType({}),
) -> list[int]:
    """List kept channel counts that leave every cut axis a multiple, widest first.

    An axis whose size is no multiple to begin with cannot be made one by this group alone when
    it is shared; there, only the number of removed positions has to be a multiple. The axis that
    counts heads is a batch axis of the attention's products and may keep any number.

    Parameters
    ----------
    group : Group
    multiple : int
        Of the kept positions on each axis.
    sizes : mapping of Axis to int
    steps : mapping of Axis to int
        Further multiples of single axes: the widths that pay on this machine.

    Returns
    -------
    list of int
        The group's size first.
    """
    step = group.step
    for member in group.members:
        if member.axis in sizes:
            if group.kind == "head" and member.positions.shape[1] == 1:
                continue
            # ``channels`` channels hold ``count`` positions of the axis, in each block of it.
            channels = group.size * (sizes[member.axis] // sizes[member.axis.plain])
            needed = lcm(multiple, steps.get(member.axis.plain, 1)) * channels
            step = lcm(step, needed // gcd(needed, member.count))
    least = max(1, round(_NARROWEST * group.size))
    whole = all(
        member.count == sizes[member.axis] for member in group.members if member.axis in sizes
    )
    rest = 0 if whole else group.size % step
    narrower = [w for w in range(group.size - 1, least - 1, -1) if w % step == rest]
    return [group.size, *narrower]


def paying_widths(group: Group, sizes: Mapping[Axis, int], steps: Mapping[Axis, int]) -> list[int]:
    """List the widths that pay, widest first: whole steps, and halves and quarters of the first.

    Between steps a width takes as long as the next one. Below the first, kernels for half as many
    channels take over; what lies between such parts is often slower than the whole step.

    Parameters and result as in :func:`allowed_widths`.
    """
    found = allowed_widths(group, 1, sizes, steps)
    for part in _PARTS:
        finer = {axis: max(step // part, min(step, _PART)) for axis, step in steps.items()}
        found += [w for w in allowed_widths(group, 1, sizes, finer) if w < found[-1]]
    return found
