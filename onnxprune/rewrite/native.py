"""The cut file in its own types: it must load, stay finite and round no worse than before."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from onnxprune.coupling.keeps import WHOLE, Keeps, narrow
from onnxprune.model.dequantize import is_quantized
from onnxprune.model.upcast import upcast
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, RunFailedError, Session

__all__ = ["NativeCheck", "runs_natively"]

_TIMES = 8.0  # rounding errors of the original that a cut may make; they are a matter of luck
_BYTE, _HALF, _BRAIN = 1 / 127, 2.0**-10, 2.0**-7

Outputs = dict[str, NDArray[np.generic]]


class NativeCheck:
    """Holds cut files against their own fp32 clones.

    The clone proves the cut; what the file computes in halves or bytes differs from the clone by
    rounding, and by no more than the original differs from its own clone.

    Parameters
    ----------
    view : View
        Of a model that has a clone and runs in its own types.
    feeds : sequence of Feeds
    """

    def __init__(self, view: View, feeds: Sequence[Feeds]) -> None:
        self._feeds = feeds
        native, clone = self._run(view.model), self._run(view.real)
        self._scale = {
            name: max(float(_finite(outputs[name]).max(initial=0.0)) for outputs in clone)
            for name in clone[0]
        }
        self._gaps = self._gap(native, clone)
        self._quantum = _quantum(view.model)

    def reason(self, model: onnx.ModelProto, keeps: Keeps = WHOLE) -> str:
        """Say what is wrong with a cut file in its own types; "" if nothing is."""
        try:
            native, clone = self._run(model, keeps), self._run(upcast(model), keeps)
        except RunFailedError as error:
            return f"does not run in its own types: {error}"
        for name, gap in self._gap(native, clone).items():
            allowed = _TIMES * self._gaps[name] + self._quantum
            if not gap <= allowed:
                return f"'{name}' rounds by {gap:.2g} of its range, {allowed:.2g} is usual"
        return ""

    def _run(self, model: onnx.ModelProto, keeps: Keeps = WHOLE) -> list[Outputs]:
        session = Session(model)
        return [session.run(narrow(feed, keeps)) for feed in self._feeds]

    def _gap(self, native: Sequence[Outputs], clone: Sequence[Outputs]) -> dict[str, float]:
        """Return the largest difference per output, relative to the original's largest value."""
        gaps: dict[str, float] = dict.fromkeys(self._scale, 0.0)
        for found, wanted in zip(native, clone, strict=True):
            for name, scale in self._scale.items():
                gap = _difference(found[name], wanted[name]) / (scale or 1.0)
                gaps[name] = max(gaps[name], gap)
        return gaps


def runs_natively(view: View, feed: Feeds) -> bool:
    """Say whether onnxruntime runs a model in its own types."""
    try:
        Session(view.model).run(feed)
    except RunFailedError:
        return False
    return True


def _finite(values: NDArray[np.generic]) -> NDArray[np.float64]:
    if not hasattr(values, "dtype") or values.dtype.kind not in "fiuV":
        return np.zeros(0)
    wide = np.abs(values.astype(np.float64))
    return np.asarray(wide[np.isfinite(wide)])


def _difference(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> float:
    """Return the largest difference of finite values; infinite where one side alone is finite."""
    if not hasattr(found, "dtype") or found.dtype.kind not in "fV" or wanted.dtype.kind != "f":
        return 0.0  # class numbers, maps and sequences jump
    f, w = found.astype(np.float64), wanted.astype(np.float64)
    if f.shape != w.shape or not np.array_equal(np.isnan(f), np.isnan(w)):
        return float("inf")
    both = np.isfinite(w)
    if (~np.isfinite(f[both])).any():
        return float("inf")
    return float(np.abs(f[both] - w[both]).max(initial=0.0))


def _quantum(model: onnx.ModelProto) -> float:
    """Return the relative step of the coarsest arithmetic in a model."""
    if is_quantized(model):
        return _BYTE
    kinds = {t.data_type for t in model.graph.initializer}
    return _BRAIN if TensorProto.BFLOAT16 in kinds else _HALF
