"""Labels: what each sample really shows, in the order of the samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.files import load_array, load_arrays
from onnxprune.data.samples import Samples
from onnxprune.errors import InputError, UsageError
from onnxprune.options import Data
from onnxprune.quality.metrics import METRICS, Measure, judged_by_labels

__all__ = ["check_labels", "read_labels"]

Array = NDArray[np.generic]


def read_labels(given: str | Array, data: "Data | None", samples: Samples) -> NDArray[np.int64]:
    """Read labels (``--labels``) and pick those of the samples that are used.

    Parameters
    ----------
    given : str or array
        A file (``.npy``, ``.npz`` with a key ``labels``, or text with one class number per line),
        or a key of the ``.npz`` data or of the arrays; or the labels themselves.
    data : Path, mapping or other, optional
        The calibration data.
    samples : Samples

    Returns
    -------
    int64 array, shape (samples,) or, for masks, (samples, ...)

    Raises
    ------
    UsageError
        If there is no such file or key.
    InputError
        If the labels are no class numbers, or not one per sample.
    """
    spec = given if isinstance(given, str) else "array"
    if samples.synthetic:
        msg = f"--labels {spec} needs the samples that it labels: give --data or --loader"
        raise UsageError(msg)
    if samples.origin is None:
        msg = f"--labels {spec}: not all files of the data were read; raise --samples"
        raise InputError(msg)
    labels = _whole(_read(given, data) if isinstance(given, str) else given, spec)
    count = len(labels) if labels.ndim else 1
    wanted = max(samples.origin) + 1 if samples.there is None else samples.there
    if count < wanted or (samples.there is not None and count > wanted):
        msg = f"--labels {spec} holds {count} labels, the data {wanted} samples"
        raise InputError(msg)
    return np.asarray(labels[list(samples.origin)])


def check_labels(
    labels: NDArray[np.int64], measures: Sequence[Measure], outputs: Mapping[str, Array]
) -> None:
    """Hold labels against the class scores that they judge.

    Raises
    ------
    InputError
        If there is not one label per decision, or one names a class that has no score.
    """
    for m in judged_by_labels(measures):
        shape = outputs[m.output].shape
        classes = shape[m.axis]
        wanted = np.delete(np.asarray(shape), m.axis % len(shape))
        if labels.size != int(np.prod(wanted)):
            msg = (
                f"--labels have shape {labels.shape} where output '{m.output}' makes decisions of "
                f"shape {tuple(int(size) for size in wanted)}"
            )
            raise InputError(msg)
        if METRICS[m.metric].labels == "needed" and not ((labels >= 0) & (labels < classes)).all():
            bad = labels[(labels < 0) | (labels >= classes)].ravel()[0]
            msg = f"--labels hold class {bad}; output '{m.output}' has classes 0 to {classes - 1}"
            raise InputError(msg)


def _read(spec: str, data: "Data | None") -> Array:
    path = Path(spec)
    suffix = path.suffix.lower()
    if path.is_file() and suffix == ".npy":
        return load_array(path)
    if path.is_file() and suffix == ".npz":
        return _pick(path, "labels", spec)
    if path.is_file():
        try:
            return np.loadtxt(path, delimiter=",", ndmin=1)
        except (ValueError, OSError) as error:
            msg = f"--labels {spec} is not one class number per line: {error}"
            raise InputError(msg) from error
    if isinstance(data, Mapping) and spec in data:
        return data[spec]
    if isinstance(data, Path) and data.suffix.lower() == ".npz" and data.is_file():
        return _pick(data, spec, spec)
    msg = f"--labels {spec} is neither a file nor a key of an .npz given by --data"
    raise UsageError(msg)


def _pick(path: Path, key: str, spec: str) -> Array:
    arrays = load_arrays(path, {key})
    if key not in arrays:
        names = ", ".join(f"'{name}'" for name in arrays)
        msg = f"--labels {spec}: {path} has no key '{key}'; it has {names}"
        raise UsageError(msg)
    return arrays[key]


def _whole(labels: Array, spec: str) -> NDArray[np.int64]:
    """Refuse what is no class number."""
    plain = labels.dtype.kind in "biuf"
    numbers = labels.astype(np.float64) if plain else np.zeros(0)
    if not plain or not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        msg = f"--labels {spec} must hold class numbers (whole), one per sample, not {labels.dtype}"
        raise InputError(msg)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    return numbers.astype(np.int64)
