"""The widths that a group may be narrowed to."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import gcd, lcm
from types import MappingProxyType
from typing import TYPE_CHECKING

from onnxprune.coupling.groups import Group
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import View

if TYPE_CHECKING:
    from onnxprune.analysis import Analysis

__all__ = ["allowed_widths", "excluded", "unmatched"]

_NARROWEST = 0.1  # share of a group's channels that always stays


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


def excluded(groups: Iterable[Group], patterns: Sequence[str], view: View) -> set[str]:
    """Return the names of groups that a pattern keeps whole.

    Parameters
    ----------
    groups : iterable of Group
    patterns : sequence of str
        fnmatch patterns on group, value or node names, or ``op:Type``.
    view : View

    Returns
    -------
    set of str
    """
    found = set()
    for group in groups:
        values = {view.original(member.axis.value) for member in group.members}
        nodes = _nodes(group, view)
        names = {group.name, *values, *(view.by_index[n].name for n in nodes)}
        types = {f"op:{view.by_index[n].op_type}" for n in nodes}
        if any(fnmatchcase(name, p) for p in patterns for name in (*names, *types)):
            found.add(group.name)
    return found


def unmatched(found: "Analysis", patterns: Sequence[str]) -> list[str]:
    """Say which patterns keep nothing whole: most likely they are misspelt."""
    groups = found.coupling.groups
    return [
        f"--exclude '{pattern}' matches nothing; 'onnxprune inspect' lists the names"
        for pattern in patterns
        if not excluded(groups, (pattern,), found.view)
    ]


def _nodes(group: Group, view: View) -> set[int]:
    """Nodes that make or read a value of the group."""
    nodes: set[int] = set()
    for member in group.members:
        value = member.axis.value
        nodes.update(edge.node for edge in view.consumers.get(value, ()))
        if value in view.producers:
            nodes.add(view.producers[value].index)
    return nodes
