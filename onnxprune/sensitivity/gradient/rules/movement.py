"""Derivatives of what only moves elements: move the gradient back."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.rules import Op
from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.rules.pointwise import unbroadcast
from onnxprune.sensitivity.gradient.rules.pooling import along
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]


@vjp("Identity", "Dropout", "Cast")
def identity(tape: Tape, call: Call) -> Gradients:
    """Pass on."""
    yield 0, call.g


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(tape: Tape, call: Call) -> Gradients:
    """Take the old shape again."""
    yield 0, tape.reshape(call.g, tape.shape(call.x))


@vjp("Transpose")
def transpose(tape: Tape, call: Call) -> Gradients:
    """Transpose back."""
    rank = call.op.x(0).rank
    perm = call.op.attributes.get("perm") or list(range(rank))[::-1]
    yield 0, tape.transpose(call.g, np.argsort(perm).tolist())  # type: ignore[arg-type]


@vjp("Concat")
def concat(tape: Tape, call: Call) -> Gradients:
    """Take the pieces apart."""
    axis = call.op.integer("axis", 0) % call.op.y().rank
    sizes = [t.shape[axis] for t in call.op.present()]
    pieces = tape.ops(
        len(sizes), "Split", call.g, tape.const(np.asarray(sizes, np.int64)), axis=axis
    )
    for slot in call.slots:
        yield slot, pieces[slot]


@vjp("Split")
def split(tape: Tape, call: Call) -> Gradients:
    """Put the pieces together; those that nobody read are zero."""
    axis = call.op.integer("axis", 0)
    pieces = [
        gradient or tape.op("Expand", tape.const(0.0), tape.shape(output.value), late=True)
        for gradient, output in zip(call.gradients, call.op.outputs, strict=True)
        if output is not None
    ]
    yield 0, tape.op("Concat", *pieces, axis=axis)


@vjp("Expand")
def expand(tape: Tape, call: Call) -> Gradients:
    """Add up the copies."""
    yield 0, unbroadcast(tape, call.g, call.op.x(0).shape, call.op.y().shape)


@vjp("Tile")
def tile(tape: Tape, call: Call) -> Gradients:
    """Add up the copies, one axis after the other."""
    x, gradient = call.op.x(0), call.g
    repeats = np.asarray(tape.array(call.op.x(1).value)).tolist()
    for axis, count in enumerate(repeats):
        if count > 1:
            pairs = [0] * axis + [count, x.shape[axis], *x.shape[axis + 1 :]]
            if axis < x.rank - 1:
                pairs[axis + 2 :] = [
                    s * r for s, r in zip(x.shape[axis + 1 :], repeats[axis + 1 :], strict=True)
                ]
            if axis == 0:
                pairs[1] = -1
            folded = tape.reshape(gradient, pairs)
            gradient = tape.reduce("ReduceSum", folded, [axis], keepdims=False)
    yield 0, gradient


def scatter(tape: Tape, gradient: str, op: Op, axis: int, index: NDArray[np.int64]) -> str:
    """Put positions of one axis back to where an index took them from; repeated ones add up."""
    size = op.x(0).shape[axis]
    rank = op.x(0).rank
    if len(index) == size and (index == np.arange(size)).all():
        return gradient
    start = int(index[0])
    if (index == np.arange(start, start + len(index))).all():
        pads = np.zeros((2, rank), np.int64)
        pads[:, axis] = start, size - start - len(index)
        return tape.op("Pad", gradient, tape.const(pads.ravel()))
    matrix = np.zeros((size, len(index)))
    np.add.at(matrix, (index, np.arange(len(index))), 1.0)
    return along(tape, gradient, axis, rank, matrix)


@vjp("Slice")
def slice_(tape: Tape, call: Call) -> Gradients:
    """Put the positions back, zeros around them."""
    op, gradient = call.op, call.g
    for axis, index in _sliced(op).items():
        gradient = scatter(tape, gradient, op, axis, index)
    yield 0, gradient


def _sliced(op: Op) -> dict[int, NDArray[np.int64]]:
    def read(slot: int, name: str) -> list[int] | None:
        tensor = op.optional(slot)
        if tensor is None:
            given = op.attributes.get(name)
            return None if given is None else [int(v) for v in given]  # type: ignore[attr-defined]
        if tensor.data is None:
            raise UnsupportedError("its limits are known at run time only")
        return [int(v) for v in np.ravel(tensor.data)]

    starts, ends = read(1, "starts") or [], read(2, "ends") or []
    axes = read(3, "axes") or list(range(len(starts)))
    steps = read(4, "steps") or [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = op.x(0).shape[axis]
        last: int | None = None if step < 0 and end < -size else end
        at = np.arange(size)[slice(start, last, step)]
        if not len(at):
            raise UnsupportedError("nothing is left")
        if len(at) < size or step != 1:
            found[axis % op.x(0).rank] = at
    return found


@vjp("Gather")
def gather(tape: Tape, call: Call) -> Gradients:
    """Put the positions back, zeros around them; only for indices that are constants."""
    op = call.op
    if call.slots != {0}:
        raise UnsupportedError("indices have no derivative")
    axis = op.integer("axis", 0) % op.x(0).rank
    given = np.asarray(tape.array(op.x(1).value)) % op.x(0).shape[axis]
    gradient = call.g
    if given.ndim == 0:
        gradient = tape.op("Unsqueeze", gradient, tape.const(np.array([axis])))
    elif given.ndim > 1:
        shape = [*([0] * axis), given.size, *op.x(0).shape[axis + 1 :]]
        gradient = tape.reshape(gradient, shape)
    yield 0, scatter(tape, gradient, op, axis, given.ravel().astype(np.int64))


@vjp("Pad")
def pad(tape: Tape, call: Call) -> Gradients:
    """Cut the padding off; reflected or repeated positions add up."""
    op = call.op
    rank, gradient = op.x(0).rank, call.g
    pads = _pads(tape, op)
    mode = op.attributes.get("mode", b"constant")
    if mode in (b"constant", "constant"):
        yield 0, _unpadded(tape, gradient, pads)
        return
    how = {b"reflect": "reflect", b"edge": "edge", b"wrap": "wrap"}.get(mode)  # type: ignore[call-overload]
    if how is None or (pads < 0).any():
        raise UnsupportedError("an unknown way of padding")
    for axis in range(rank):
        if pads[:, axis].any():
            index = np.pad(np.arange(op.x(0).shape[axis]), tuple(pads[:, axis]), mode=how)
            gradient = scatter(tape, gradient, op, axis, index)
    yield 0, gradient


def _unpadded(tape: Tape, gradient: str, pads: NDArray[np.int64]) -> str:
    """Cut off what was added, and put zeros where something was cut off."""
    added, cut = np.maximum(pads, 0), np.maximum(-pads, 0)
    ends = np.where(added[1] > 0, -added[1], np.iinfo(np.int64).max)
    if added.any():
        limits = (added[0], ends, np.arange(pads.shape[1]))
        gradient = tape.op("Slice", gradient, *(tape.const(limit) for limit in limits))
    return tape.op("Pad", gradient, tape.const(cut.ravel())) if cut.any() else gradient


def _pads(tape: Tape, op: Op) -> NDArray[np.int64]:
    """Read paddings as a table of (begin, end) by axis."""
    rank = op.x(0).rank
    tensor = op.optional(1)
    given = op.attributes.get("pads") if tensor is None else _read(tensor.data)
    given = np.asarray(given, np.int64).reshape(2, -1)
    chosen = op.optional(3)
    axes = range(rank) if chosen is None else np.asarray(tape.array(chosen.value)).tolist()
    table = np.zeros((2, rank), np.int64)
    for place, axis in enumerate(axes):
        table[:, axis % rank] = given[:, place]
    return table


def _read(data: NDArray[np.generic] | None) -> NDArray[np.generic]:
    if data is None:
        raise UnsupportedError("its paddings are known at run time only")
    return data


@vjp("DepthToSpace")
def depth_to_space(tape: Tape, call: Call) -> Gradients:
    """Blocks of pixels become channels again, in either order."""
    block = call.op.integer("blocksize", 1)
    if call.op.attributes.get("mode", b"DCR") in (b"DCR", "DCR"):
        yield 0, tape.op("SpaceToDepth", call.g, blocksize=block)
        return
    _, c, h, w = call.op.x(0).shape
    apart = tape.reshape(call.g, [0, c // block**2, h, block, w, block])
    yield 0, tape.reshape(tape.transpose(apart, [0, 1, 3, 5, 2, 4]), tape.shape(call.x))


@vjp("SpaceToDepth")
def space_to_depth(tape: Tape, call: Call) -> Gradients:
    """Channels become blocks of pixels again."""
    yield 0, tape.op("DepthToSpace", call.g, blocksize=call.op.integer("blocksize", 1))
