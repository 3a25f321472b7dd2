"""What measuring takes, by multiply-accumulates: a busy machine shall not make another model."""

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group

__all__ = ["downstream", "effort", "samples_within"]

_SPEED = 5e10  # multiply-accumulates that are planned per second


def effort(found: Analysis, group: Group) -> float:
    """Return about how many passes of the whole model perturbing all channels of a group takes.

    Parameters
    ----------
    found : Analysis
    group : Group
    """
    return group.size * downstream(found, group)


def downstream(found: Analysis, group: Group) -> float:
    """Return the share of the model's MACs that lie downstream of a group, never quite nothing.

    Parameters
    ----------
    found : Analysis
    group : Group
    """
    view = found.view
    values = dict.fromkeys(member.axis.value for member in group.members)
    waiting = [value for value in values if not view.is_constant(value)]
    seen: set[int] = set()
    while waiting:
        for edge in view.consumers.get(waiting.pop(), ()):
            number = edge.node
            while number >= 0 and number not in seen:  # a body's node makes its owner's outputs
                seen.add(number)
                node = view.by_index[number]
                waiting.extend(node.outputs)
                waiting.extend(v for body in node.bodies.values() for v in body.inputs)
                number = node.owner
    names = {view.by_index[index].name for index in seen}
    below = sum(term.cost.macs for term in found.costs.terms if term.node in names)
    return 0.02 + below / max(found.costs.total.macs, 1.0)


def samples_within(seconds: float, macs: float) -> int:
    """Return how many samples of so many multiply-accumulates are planned for some seconds.

    Parameters
    ----------
    seconds : float
        A share of the time limit.
    macs : float
        Of one sample, over all runs that it takes part in.
    """
    return int(_SPEED * seconds / max(macs, 1.0))
