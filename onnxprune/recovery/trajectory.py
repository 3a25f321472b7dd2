"""Refit of recurrent layers: the kept units are led along the original's trajectory.

A unit that goes takes its share out of every gate of every later step. What is left is solved for
twice over: first with the state that the original has at each step, then with the state that the
refitted layer itself comes to, because its errors feed back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.keeps import Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.layers.cells import Cell, Part, Rows, Trajectory
from onnxprune.layers.recurrent import Recurrence
from onnxprune.layers.student import Student
from onnxprune.model.view import View
from onnxprune.recovery.ridge import Moments, solve
from onnxprune.runtime.session import Feeds

__all__ = ["follow"]

Array = NDArray[np.generic]
_FOLDS = 4
_TURNS = 3
_WIDEST = 2400  # inputs and units beyond which a layer keeps its weights
_SAME = 1e-8  # relative error below which there is nothing to mend
_MEMORY = 1 << 29  # bytes of the original's trajectory that are kept


@dataclass(frozen=True, slots=True, eq=False)
class _Lesson:
    """What the original does with a feed, kept units only, and what the cut layer starts from."""

    taught: Trajectory
    starts: Sequence[Rows]


def follow(
    view: View, layer: Recurrence, student: Student, keeps: Keeps, taught: Sequence[Feeds]
) -> None:
    """Refit one recurrent layer.

    Parameters
    ----------
    view : View
        Of the original.
    layer : Recurrence
    student : Student
        What comes before the layer is refitted already.
    keeps : mapping of Axis to mask
    taught : sequence of Feeds
        What the layer reads in the original.
    """
    cells = layer.held(student)
    if cells is None or cells[0].weight.shape[1] + cells[0].units > _WIDEST:
        return
    reads = [name for name in layer.reads if name in student.inputs(layer.node.index)]
    pairs = list(zip(taught, student.values(reads, settled=reads), strict=True))
    kept = _kept(view, layer, keeps, len(cells))
    fitted = [
        _fitted(cell, list(_lessons(view, layer, student, pairs, number, kept[number])))
        for number, cell in enumerate(cells)
    ]
    if any(new is not cell for new, cell in zip(fitted, cells, strict=True)):
        layer.hold(student, fitted)


def _kept(view: View, layer: Recurrence, keeps: Keeps, directions: int) -> NDArray[np.bool_]:
    """Return which units stay, shape (directions, units)."""
    name = layer.node.inputs[2]
    mask = keeps.get(Axis(name, 2, 0) if directions > 1 else Axis(name, 2))
    if mask is None:
        mask = np.ones(directions * layer.taught(view)[0].units, bool)
    return mask.reshape(directions, -1)


def _lessons(
    view: View,
    layer: Recurrence,
    student: Student,
    pairs: Sequence[tuple[Feeds, Feeds]],
    direction: int,
    kept: NDArray[np.bool_],
) -> Iterator[_Lesson]:
    """Yield what the original does with each feed, until there is enough of it."""
    original, held = layer.taught(view)[direction], 0
    for taught, seen in pairs:
        inputs = layer.sequences(taught, direction)
        starts = layer.starts(taught, layer.constants(view), direction, original.units)
        whole = original.run(inputs, *starts)
        lesson = whole.kept(kept, layer.sequences(seen, direction))
        yield _Lesson(lesson, layer.starts(seen, student.read, direction, int(kept.sum())))
        held += lesson.sums.nbytes + 3 * lesson.after.nbytes
        if held > _MEMORY:
            return


def _fitted(cell: Cell, lessons: Sequence[_Lesson]) -> Cell:
    """Return the cell that stays nearest to the original's states; the one given if none does."""
    runs = [_run(cell, lesson) for lesson in lessons]
    best, least = cell, _drift(runs, lessons)
    seen = [lesson.taught for lesson in lessons]
    for _ in range(_TURNS):
        if least < _SAME:
            break
        tried = _solved(cell, seen, lessons)
        seen = [_run(tried, lesson) for lesson in lessons]
        error = _drift(seen, lessons)
        if not error < least:
            break
        best, least = tried, error
    return best


def _run(cell: Cell, lesson: _Lesson) -> Trajectory:
    state, memory = lesson.starts
    return cell.run(lesson.taught.inputs, state, memory)


def _drift(runs: Sequence[Trajectory], lessons: Sequence[_Lesson]) -> float:
    """Return the squared error of all states, relative to the original's."""
    pairs = [(run.after, lesson.taught.after) for run, lesson in zip(runs, lessons, strict=True)]
    error = sum(float(((now - goal) ** 2).sum(dtype=np.float64)) for now, goal in pairs)
    return error / max(sum(float((goal**2).sum(dtype=np.float64)) for _, goal in pairs), 1e-30)


def _solved(cell: Cell, seen: Sequence[Trajectory], lessons: Sequence[_Lesson]) -> Cell:
    """Solve every part of a cell for the original's sums, from given states."""
    made = cell
    for number, part in enumerate(cell.parts):
        moments = Moments(min(_FOLDS, len(lessons)))
        for fold, (run, lesson) in enumerate(zip(seen, lessons, strict=True)):
            moments.add(fold % _FOLDS, run.rows(part), _goal(lesson.taught, number, part))
        start = cell.block(part)[0].astype(np.float64)[None]
        solution = solve(moments, start, centred=True)
        if solution.after < solution.before:
            bias = solution.bias[0].astype(np.float32)
            made = made.with_block(part, solution.weights[0], bias)
    return made


def _goal(taught: Trajectory, number: int, part: Part) -> Rows:
    goal = taught.sums[number, :, :, part.first : part.last]
    return np.ascontiguousarray(goal.reshape(1, -1, goal.shape[2] * goal.shape[3]))
