"""Which groups may be cut: those that no pattern of the user keeps whole."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.errors import BudgetError
from onnxprune.inspection import obstacles
from onnxprune.model.view import Node, View
from onnxprune.options import Options

__all__ = ["cuttable", "excluded", "matched", "permitted", "unmatched"]


def cuttable(found: Analysis, options: Options) -> list[Group]:
    """Return the groups that may be cut.

    Raises
    ------
    BudgetError
        If there are none, saying what stands in the way.
    """
    groups = permitted(found, options)
    if not groups:
        what = "everything is excluded" if found.coupling.groups else obstacles(found)
        msg = f"nothing to cut in {found.model.path}; {what}"
        raise BudgetError(msg)
    return groups


def permitted(found: Analysis, options: Options) -> list[Group]:
    """Return the groups that no pattern keeps whole, if there are any."""
    kept = excluded(found.coupling.groups, options.exclude, found.view)
    return [g for g in found.coupling.groups if g.name not in kept]


def unmatched(found: Analysis, patterns: Sequence[str]) -> list[str]:
    """Say which patterns keep nothing whole: most likely they are misspelt."""
    groups = found.coupling.groups
    return [
        f"--exclude '{pattern}' matches nothing; 'onnxprune inspect' lists the names"
        for pattern in patterns
        if not excluded(groups, (pattern,), found.view)
    ]


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
        nodes = [view.by_index[n] for n in _nodes(group, view)]
        if matched({group.name, *values}, nodes, patterns):
            found.add(group.name)
    return found


def matched(names: Iterable[str], nodes: Iterable[Node], patterns: Sequence[str]) -> bool:
    """Whether a pattern names one of the groups or values, or a node or its type."""
    every = {*names, *(name for node in nodes for name in (node.name, f"op:{node.op_type}"))}
    return any(fnmatchcase(name, pattern) for name in every for pattern in patterns)


def _nodes(group: Group, view: View) -> set[int]:
    """Nodes that make or read a value of the group."""
    nodes: set[int] = set()
    for member in group.members:
        value = member.axis.value
        nodes.update(edge.node for edge in view.consumers.get(value, ()))
        if value in view.producers:
            nodes.add(view.producers[value].index)
    return nodes
