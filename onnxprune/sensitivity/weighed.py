"""Readers of groups, their errors weighed by what reaches the model's output.

Where a group is read by recurrent layers, the variance of a sum says little of what its errors do:
most of them are hidden by gates or forgotten before the last step. There the derivative says it.
"""

from collections.abc import Sequence
from dataclasses import replace

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.layers.moments import key_of
from onnxprune.layers.readers import Reader, collect_readers
from onnxprune.layers.recurrent import Sum
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.gradient.worth import worth_of

__all__ = ["weighed_readers"]


def weighed_readers(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    feeds: Sequence[Feeds],
    *,
    outputs: Sequence[str],
    seed: int,
) -> dict[str, list[Reader]]:
    """Collect the readers of groups as `collect_readers` does; weigh those of recurrent layers.

    Parameters
    ----------
    view, trace, coupling
        Of the original.
    groups : sequence of Group
    feeds : sequence of Feeds
    outputs : sequence of str
        Values whose change counts.
    seed : int

    Returns
    -------
    dict of group name to list of Reader
        All readers of one group weighed alike: by derivatives if all of them have one.
    """
    found = collect_readers(view, trace, coupling, groups, feeds, seed=seed)
    recurred = {n: rs for n, rs in found.items() if any(isinstance(r.site, Sum) for r in rs)}
    if not recurred:
        return found
    layers = list({key_of(r.site): r.site for rs in recurred.values() for r in rs}.values())
    chosen = [g for g in groups if g.name in recurred]
    worth = worth_of(view, trace, coupling, chosen, layers, feeds, outputs=outputs, seed=seed)
    for name, readers in recurred.items():
        if all(key_of(r.site) in worth for r in readers):
            found[name] = [replace(r, worth=worth[key_of(r.site)]) for r in readers]
    return found
