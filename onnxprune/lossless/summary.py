"""The lossless part as the report states it."""

from collections.abc import Sequence

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.lossless.find import Free
from onnxprune.lossless.values import FreeChannels, Lossless

__all__ = ["lossless"]


def lossless(
    found: Analysis, free: Free, removed: Sequence[tuple[Group, Sequence[int]]] | None = None
) -> Lossless:
    """State what could go without changing anything, and how much of it went.

    Parameters
    ----------
    found : Analysis
    free : Free
    removed : sequence of (Group, channel numbers), optional
        What was cut; None where nothing was to be.

    Returns
    -------
    Lossless
    """
    total = found.costs.total
    gone = {group.name: set(channels) for group, channels in removed or ()}
    went = sum(
        len(gone.get(name, set()) & set(channels)) for name, channels in free.channels.items()
    )
    return Lossless(
        channels=sum(map(len, free.channels.values())),
        proven=sum(map(len, free.proven.values())),
        samples=free.samples,
        removed=None if removed is None else went,
        params=free.saved.params / max(total.params, 1.0),
        macs=free.saved.macs / max(total.macs, 1.0),
        groups=[FreeChannels(name, channels) for name, channels in free.channels.items()],
    )
