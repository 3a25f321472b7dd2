"""Which positions of which axes stand or fall together: rules declare, one solver closes."""

from onnxprune.coupling.collect import collect
from onnxprune.coupling.footprints import Member
from onnxprune.coupling.groups import Coupling, Group, make_groups
from onnxprune.coupling.solver import solve
from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["Coupling", "Group", "Member", "couple"]


def couple(view: View, trace: Trace) -> Coupling:
    """Find every group of channels that can be cut, and why the rest cannot.

    Parameters
    ----------
    view : View
    trace : Trace
        Of a run in which dynamic axes have sizes > 1.

    Returns
    -------
    Coupling
    """
    collected = collect(view, trace)
    solutions, frozen = solve(collected.relations, collected.atoms)
    return make_groups(view, collected, solutions, frozen)
