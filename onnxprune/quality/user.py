"""The user's own metric: a function of both models' outputs."""

from collections.abc import Sequence

import numpy as np

from onnxprune.data.usercode import UserFunction
from onnxprune.errors import InputError
from onnxprune.quality.losses import Losses
from onnxprune.quality.metrics import Array

__all__ = ["user_losses"]

Pair = tuple[list[int], dict[str, Array], dict[str, Array]]


def user_losses(
    function: UserFunction, names: Sequence[str], pairs: Sequence[Pair], labels: Array | None
) -> Losses:
    """Call the user's metric on all samples at once.

    It gets ``(before, after)``, with labels ``(before, after, labels)``: dicts of output name to an
    array with the samples on axis 0, or, where outputs differ in size from run to run, to a list
    with one entry per run. It returns one loss per sample, or one number for the whole.

    Parameters
    ----------
    function : UserFunction
    names : sequence of str
        The graph's outputs.
    pairs : sequence of (samples, before, after)
    labels : array, shape (samples, ...), optional

    Returns
    -------
    Losses
        Of kind ``bounded`` where every loss lies in [0, 1]; others have no certificate.

    Raises
    ------
    InputError
        If the function fails or returns anything else.
    """
    before, after = (
        {name: _joined([outputs[name] for outputs in side]) for name in names}
        for side in ([old for _, old, _ in pairs], [new for _, _, new in pairs])
    )
    count = sum(len(rows) for rows, _, _ in pairs)
    with function.ready() as call:
        given = call(before, after) if labels is None else call(before, after, labels)
        found = np.asarray(given, np.float64)
    if found.shape not in ((), (count,)) or not np.isfinite(found).all():
        what = "numbers that are not finite" if found.size else "nothing"
        what = what if found.shape in ((), (count,)) else f"shape {found.shape}"
        msg = (
            f"metric returned {what}; it must return {count} losses, one per sample, or one "
            "number for all of them"
        )
        raise InputError(msg)
    if found.ndim == 0:
        return Losses(float(found), None, None, None, count)
    within = bool(((found >= 0) & (found <= 1)).all())
    return Losses(float(found.mean()), found, "bounded" if within else None, None, count)


def _joined(parts: list[Array]) -> object:
    alike = all(hasattr(p, "shape") and p.ndim and p.shape[1:] == parts[0].shape[1:] for p in parts)
    return np.concatenate(parts) if alike else parts
