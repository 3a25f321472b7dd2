"""A directory of images as samples, for models that take plain pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from onnxprune.data.conform import fixed_batch
from onnxprune.data.samples import Samples, choose
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "load_images"]

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the input holds an image; a size of None is dynamic: the image's own."""

    channels: int
    channels_first: bool
    height: int | None
    width: int | None
    dtype: np.dtype[np.generic]


def load_images(
    paths: Sequence[Path], specs: Sequence[InputSpec], *, limit: int, seed: int
) -> Samples:
    """Read images as samples of a model's one input of shape NCHW or NHWC.

    Images are turned as their EXIF says, made grey or RGB, resized (bilinear) to the input's size
    and scaled to [0, 1]; an input of uint8 gets the pixels as they are.

    Raises
    ------
    InputError
        If the model takes no images, one cannot be read, or sizes differ where they must not.
    """
    spec = _one_input(specs)
    layout = _layout(spec)
    fixed = fixed_batch(specs)
    chosen = choose(len(paths), max(limit, fixed or 1), seed)
    entries = [{spec.name: _read(paths[i], layout)[None]} for i in chosen]
    for i, entry in zip(chosen, entries, strict=True):
        if entry[spec.name].shape != entries[0][spec.name].shape:
            msg = (
                f"images differ in size ({paths[chosen[0]].name}, {paths[i].name}) and input "
                f"'{spec.name}' fixes none ({spec}): resize them, or use --loader"
            )
            raise InputError(msg)
    return Samples(
        names=(spec.name,),
        entries=tuple(entries),
        stacked=True,
        notes=_notes(layout, len(chosen), len(paths), seed),
        fixed_batch=fixed,
        origin=tuple(int(i) for i in chosen),
        there=len(paths),
    )


def _notes(layout: _Layout, used: int, there: int, seed: int) -> tuple[str, ...]:
    values = "pixels 0-255" if layout.dtype == np.uint8 else "scaled to [0, 1]"
    order = "channels first" if layout.channels_first else "channels last"
    colours = "RGB" if layout.channels == 3 else "grey"
    note = (
        f"images are fed as {colours}, {order}, {values}, without mean and standard deviation: if "
        "the model was trained on inputs prepared otherwise, figures are wrong; use --loader then"
    )
    if used < there:
        return note, f"took {used} of {there} samples at random (seed {seed})"
    return (note,)


def _one_input(specs: Sequence[InputSpec]) -> InputSpec:
    if len(specs) == 1:
        return specs[0]
    names = ", ".join(f"'{spec.name}'" for spec in specs)
    msg = f"images can feed a model with one input, this one has {names}; use .npz or --loader"
    raise InputError(msg)


def _layout(spec: InputSpec) -> _Layout:
    floats = spec.dtype.kind == "f" or spec.dtype.name == "bfloat16"
    if len(spec.shape) == 4 and (floats or spec.dtype == np.uint8):
        sizes = [size if isinstance(size, int) else None for size in spec.shape]
        _, a, b, c = sizes
        for first, channels, height, width in ((True, a, b, c), (False, c, a, b)):
            if channels in (1, 3):
                return _Layout(channels, first, height, width, spec.dtype)
    msg = (
        f"images cannot feed input '{spec.name}' ({spec}): it is not floats or uint8 of shape "
        "[n, 1 or 3, height, width] or [n, height, width, 1 or 3]; use .npz or --loader"
    )
    raise InputError(msg)


def _read(path: Path, layout: _Layout) -> NDArray[np.generic]:
    """Return one image, shape (c, h, w) or (h, w, c)."""
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB" if layout.channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        msg = f"cannot read image {path}: {str(error).splitlines()[0]}"
        raise InputError(msg) from error
    size = (layout.width or image.width, layout.height or image.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.uint8).reshape(size[1], size[0], layout.channels)
    if layout.channels_first:
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if layout.dtype == np.uint8:
        return pixels
    return (pixels / np.float32(255)).astype(layout.dtype)
