"""Joint axes: where two axes lie in one value, the positions of one are told apart by the other.

Rules speak of plain axes. Wherever a joint axis appears (a rule or a split names it first) it is
followed through every operator that ties both of its axes alike, and the relations there are
rewritten position by position and block by block. Where that cannot be said, the plain axis comes
back in, and ties the blocks to each other: then all of them lose the same positions.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.coupling.relations import (
    Axis,
    Balance,
    Contract,
    Free,
    Freeze,
    Positions,
    Relation,
    Split,
    Tie,
)
from onnxprune.coupling.rules import Op, Tensor
from onnxprune.coupling.rules.joint_movement import mixed_split, moved_joint

__all__ = ["Joined", "join"]


@dataclass(frozen=True, slots=True)
class Joined:
    """Relations in terms of joint axes.

    Attributes
    ----------
    relations : list of Relation
    sizes : dict of Axis to int
        Of the joint axes.
    blocks : dict of Axis to int
        How many blocks an axis has, for joint and invented axes that must stay balanced.
    replaced : dict of Axis to Axis
        Joint axes by the plain ones that nothing speaks of any more.
    """

    relations: list[Relation]
    sizes: dict[Axis, int]
    blocks: dict[Axis, int]
    replaced: dict[Axis, Axis]


def join(asked: Sequence[tuple[Op, list[Relation]]], others: Sequence[Relation]) -> Joined:
    """Follow joint axes through a graph.

    Parameters
    ----------
    asked : sequence of (Op, list of Relation)
        Every node with what its rule says.
    others : sequence of Relation
        What is said of values apart from nodes (the interface).

    Returns
    -------
    Joined
    """
    joints = _Joints(asked)
    joints.spread(_reached(asked, {axis for r in others for axis in _axes(r)}))
    relations = [r for given in others for r in joints.on_joints(given)]
    relations += [r for number in range(len(asked)) for r in joints.rewritten(number)]
    plain = {axis for r in relations for axis in _axes(r) if axis.by < 0}
    for axis, joint in joints.of.items():
        if axis in plain:
            size = joints.sizes[joint]
            place = np.arange(size)
            relations.append(Tie(joint, axis, place, place % joints.width[axis]))
    replaced = {axis: joint for axis, joint in joints.of.items() if axis not in plain}
    return Joined(relations, joints.sizes, joints.blocks, replaced)


def _axes(relation: Relation) -> Iterator[Axis]:
    match relation:
        case Tie(a, b):
            yield from (a, b)
        case Split(axis, factors):
            yield axis
            yield from (factor for factor, _ in factors)
        case Freeze(axis) | Free(axis):
            yield axis


def _reached(asked: Sequence[tuple[Op, list[Relation]]], start: set[Axis]) -> set[Axis]:
    """Return the axes that run in step with axes of the interface, or hold one of those.

    They are batches, times and places: their positions differ from run to run, so nothing is told
    apart by them.
    """
    near: dict[Axis, list[Axis]] = defaultdict(list)
    for _, relations in asked:
        for r in relations:
            if isinstance(r, Tie):
                near[r.a].append(r.b)
                near[r.b].append(r.a)
            elif isinstance(r, Split):
                for factor, _ in r.factors:
                    near[factor].append(r.axis)
    found, waiting = set(start), list(start)
    while waiting:
        for axis in near.get(waiting.pop(), ()):
            if axis not in found:
                found.add(axis)
                waiting.append(axis)
    return found


@dataclass
class _Joints:
    asked: Sequence[tuple[Op, list[Relation]]]
    of: dict[Axis, Axis] = field(default_factory=dict)  # plain to joint
    width: dict[Axis, int] = field(default_factory=dict)  # size of the plain axis
    sizes: dict[Axis, int] = field(default_factory=dict)
    blocks: dict[Axis, int] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    waiting: deque[str] = field(default_factory=deque)
    moved: dict[tuple[int, Axis], list[Relation]] = field(default_factory=dict)
    instead: dict[int, list[Relation]] = field(default_factory=dict)

    def add(self, op: Op, joint: Axis, blocks: int) -> bool:
        """Follow a joint axis from now on; False where its plain axis has another one."""
        known = self.of.get(joint.plain)
        if known is not None:
            return known == joint and self.blocks[joint] == blocks
        tensor = next(t for t in _tensors(op) if t.value == joint.value)
        width = tensor.shape[joint.axis]
        if width < 2 or tensor.shape[joint.by] % blocks:
            return False
        self.of[joint.plain], self.width[joint.plain] = joint, width
        self.sizes[joint], self.blocks[joint] = blocks * width, blocks
        self.waiting.append(joint.value)
        self.values.add(joint.value)
        return True

    def spread(self, loose: Set[Axis]) -> None:
        """Find every joint axis; none begins on axes whose size may change."""
        by_value: dict[str, set[int]] = defaultdict(set)
        for number, (op, relations) in enumerate(self.asked):
            for tensor in _tensors(op):
                by_value[tensor.value].add(number)
            self._seed(number, op, relations, loose)
        while self.waiting:
            for number in sorted(by_value[self.waiting.popleft()]):
                op, relations = self.asked[number][0], self.instead[number]
                partners = _Partners(relations)
                for relation in relations:
                    if isinstance(relation, Tie) and not self._lifts(op, relation, partners):
                        self._move(number, op, relation)

    def _seed(self, number: int, op: Op, relations: list[Relation], loose: Set[Axis]) -> None:
        """Begin where a rule says so, and where a movement splits an axis into two."""
        relations = self.instead[number] = list(mixed_split(op, relations))
        outputs = {tensor.value for tensor in op.outputs if tensor is not None}
        for relation in relations:
            if isinstance(relation, Balance):
                if relation.axis.by < 0:
                    self.blocks[relation.axis] = relation.blocks
                else:
                    self.add(op, relation.axis, relation.blocks)
            elif isinstance(relation, Split) and relation.axis not in loose:
                joint = _inner(relation)
                if (
                    joint is not None
                    and joint[0].value in outputs
                    and (Axis(joint[0].value, joint[0].by) not in loose)
                ):
                    self.add(op, *joint)

    def _lifts(self, op: Op, tie: Tie, partners: "_Partners") -> bool:
        """Follow a tie of plain axes to the other side's joint axis, if it has one."""
        for a, b in ((tie.a, tie.b), (tie.b, tie.a)):
            joint = self.of.get(a)
            if joint is None:
                continue
            other = partners.of(Axis(a.value, joint.by), b.value)
            if other is None or not self.add(op, Axis(*b[:2], other), self.blocks[joint]):
                return False
        return True

    def _move(self, number: int, op: Op, tie: Tie) -> None:
        """Ask a movement where the joint positions go, where ties cannot tell."""
        for axis in (tie.a, tie.b):
            joint = self.of.get(axis)
            if joint is None or (number, joint) in self.moved:
                continue
            found = moved_joint(op, joint, self.blocks[joint])
            if found and all(
                self.add(op, r.axis, r.blocks) for r in found if isinstance(r, Balance)
            ):
                self.moved[number, joint] = found

    def rewritten(self, number: int) -> Iterator[Relation]:
        """Yield a node's relations in terms of joint axes."""
        op, relations = self.asked[number][0], self.instead[number]
        if not any(tensor.value in self.values for tensor in _tensors(op)):
            yield from relations
            return
        partners = _Partners(relations)
        done = {j.plain for n, j in self.moved if n == number}
        for relation in relations:
            if isinstance(relation, Tie) and done & {relation.a, relation.b}:
                continue
            if isinstance(relation, Tie):
                yield self._tie(relation, partners)
            else:
                yield from self.on_joints(relation)
        for (at, _), found in self.moved.items():
            if at == number:
                yield from found

    def _tie(self, tie: Tie, partners: "_Partners") -> Tie:
        a, b = self.of.get(tie.a), self.of.get(tie.b)
        if a is None or b is None or self.blocks[a] != self.blocks[b]:
            return tie
        if tie.a != tie.b and partners.of(Axis(a.value, a.by), b.value) != b.by:
            return tie
        if not all(i is None or (np.diff(i) > 0).all() for i in (tie.a_index, tie.b_index)):
            return tie  # other positions per block would come in another order
        return Tie(a, b, self._index(a, tie.a_index), self._index(b, tie.b_index))

    def _index(self, joint: Axis, index: Positions | None) -> Positions | None:
        if index is None:
            return None
        start = np.arange(self.blocks[joint])[:, None] * self.width[joint.plain]
        return np.asarray((start + index).ravel())

    def on_joints(self, relation: Relation) -> Iterator[Relation]:
        """Say of joint axes what is said of their plain ones."""
        match relation:
            case Freeze(axis) if axis in self.of:
                joint = self.of[axis]
                yield replace(relation, axis=joint, index=self._index(joint, relation.index))
            case Free(axis) if axis in self.of:
                yield Free(self.of[axis])
            case Split(axis, factors):
                yield Split(axis, tuple(self._factors(factors)))
            case Balance() | Contract():
                pass
            case _:
                yield relation

    def _factors(
        self, factors: tuple[tuple[Axis, Positions], ...]
    ) -> Iterator[tuple[Axis, Positions]]:
        maps = dict(factors)
        for axis, place in factors:
            joint = self.of.get(axis)
            outer = maps.get(Axis(axis.value, joint.by)) if joint is not None else None
            if joint is None or outer is None:
                yield axis, place
                continue
            run = (int(outer.max()) + 1) // self.blocks[joint]
            both = outer // max(run, 1) * self.width[axis] + place
            both = np.where((outer < 0) | (place < 0), -1, both)
            yield (joint, both) if self._in_order(joint, both[both >= 0]) else (axis, place)

    def _in_order(self, joint: Axis, places: Positions) -> bool:
        """Where blocks interleave, other positions per block would come in another order.

        Whole rounds do not matter: queries, keys and values one behind the other.
        """
        rounds = np.arange(len(places)) % self.sizes[joint]
        return bool((np.diff(places) > 0).all()) or np.array_equal(places, rounds)


def _tensors(op: Op) -> Iterator[Tensor]:
    """Yield everything that an operator and its bodies take and give."""
    yield from op.present()
    yield from (tensor for tensor in op.outputs if tensor is not None)
    for body in op.bodies.values():
        yield from (*body.inputs, *body.outputs)


class _Partners:
    """Which axes of a node's values run in step."""

    def __init__(self, relations: Sequence[Relation]) -> None:
        self._next: dict[Axis, list[Axis]] = defaultdict(list)
        for r in relations:
            if isinstance(r, Tie) and _in_step(r):
                self._next[r.a].append(r.b)
                self._next[r.b].append(r.a)

    def of(self, axis: Axis, value: str) -> int | None:
        """Return the axis of a value that runs in step with another axis."""
        if axis.value == value:
            return axis.axis
        seen, waiting = {axis}, [axis]
        while waiting:
            for other in self._next.get(waiting.pop(), ()):
                if other.value == value:
                    return other.axis
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return None


def _in_step(tie: Tie) -> bool:
    return all(
        index is None or np.array_equal(index, np.arange(len(index)))
        for index in (tie.a_index, tie.b_index)
    )


def _inner(split: Split) -> tuple[Axis, int] | None:
    """Return the joint axis of the two innermost factors where one axis is several of one value."""
    axes = [factor for factor, _ in split.factors]
    apart = len({axis.value for axis in axes}) > 1 or any(axis.by >= 0 for axis in axes)
    if len(axes) < 2 or apart or "/" in axes[0].value:
        return None
    ordered = sorted(split.factors, key=lambda factor: int((factor[1] > 0).argmax()))
    place, width = np.zeros(len(split.factors[0][1]), np.int64), 1
    for _, at in ordered:  # innermost first
        place, width = place + at * width, width * (int(at.max()) + 1)
    if width != len(place) or not np.array_equal(place, np.arange(width)):
        return None
    (inner, _), (outer, at) = ordered[:2]
    return Axis(inner.value, inner.axis, outer.axis), int(at.max()) + 1
