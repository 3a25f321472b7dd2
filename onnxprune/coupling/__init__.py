"""Which positions of which axes stand or fall together: rules declare, one solver closes."""

from collections.abc import Iterable

from onnxprune.coupling.collect import collect
from onnxprune.coupling.footprints import Member
from onnxprune.coupling.groups import Coupling, Group, make_groups
from onnxprune.coupling.interface import changeable, frozen_interface, sizeless_inputs
from onnxprune.coupling.relations import Freeze
from onnxprune.coupling.solver import solve
from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["Coupling", "Group", "Member", "couple"]


def couple(view: View, trace: Trace, *, change_interface: bool = False) -> Coupling:
    """Find every group of channels that can be cut, and why the rest cannot.

    Parameters
    ----------
    view : View
    trace : Trace
        Of a run in which dynamic axes have sizes > 1.
    change_interface : bool
        Whether channels may go that lie on graph inputs or outputs: states, features.

    Returns
    -------
    Coupling
    """
    if not change_interface:
        return _closed(view, trace, frozen_interface(view, trace, None))
    held = sizeless_inputs(view)
    sized = [f for f in frozen_interface(view, trace, frozenset()) if f.axis in held]
    free = changeable(view, _closed(view, trace, sized)) - held
    return _closed(view, trace, frozen_interface(view, trace, free))


def _closed(view: View, trace: Trace, interface: Iterable[Freeze]) -> Coupling:
    collected = collect(view, trace, interface=interface)
    solutions, frozen = solve(collected.relations, collected.atoms)
    return make_groups(view, collected, solutions, frozen)
