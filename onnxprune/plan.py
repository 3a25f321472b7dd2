"""The plan: which channels go, bound to one model, replayable."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune import __version__
from onnxprune.analysis import Analysis, shorten
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps, Mask, counted, named
from onnxprune.coupling.relations import Axis
from onnxprune.documents import dumps, read
from onnxprune.errors import InputError
from onnxprune.layers.branches import Branch, StandIn
from onnxprune.lossless.ranges import Constants
from onnxprune.model.files import write_text
from onnxprune.model.load import Model
from onnxprune.options import Options

__all__ = ["Plan", "load_plan", "make_plan"]

FORMAT = "onnxprune-plan/1"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a plan file says; ``content`` is the whole of it, in the shape of its schema."""

    content: Mapping[str, object]

    def text(self) -> str:
        """Render the file."""
        return dumps(self.content)

    def save(self, path: Path | str) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        UsageError
            If it cannot be written.
        """
        write_text(Path(path), self.text())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input shapes that positions were counted at."""
        dims = self.content["dims"]
        assert isinstance(dims, dict)
        return {name: tuple(shape) for name, shape in dims.items()}

    def shortened(self, found: Analysis) -> Analysis:
        """Return a model without the branches that are gone in the plan.

        Raises
        ------
        InputError
            If the model has no such branches.
        """
        entries = self.content["branches"]
        assert isinstance(entries, list)
        gone = [StandIn(Branch(**e["branch"]), np.asarray(e["held"], float)) for e in entries]
        for one in gone:
            node = found.view.producers.get(one.branch.total)
            if node is None or node.op_type != "Add" or one.branch.value not in node.inputs:
                msg = f"the plan's branch {one.branch.value} ends in no sum of this model"
                raise InputError(msg)
        return shorten(found, gone, change_interface=bool(self.content["allow_interface_change"]))

    def number(self, field: str) -> int:
        """Return ``seed`` or ``samples``."""
        value = self.content[field]
        assert isinstance(value, int)
        return value

    def looking(self, options: Options) -> Options:
        """Return options that show a model as it was when the plan was made."""
        allowed = bool(self.content["allow_interface_change"])
        return replace(options, input_shapes=self.shapes, allow_interface_change=allowed)

    @property
    def empty(self) -> bool:
        """Whether nothing is cut."""
        return not self.content["removed"] and not self.content["branches"]

    @property
    def refitted(self) -> bool:
        """Whether layers were refitted after the cut."""
        changed = bool(self.content["refitted"] or self.content["added"])
        return changed and bool(self.content["recovered"])

    @property
    def added(self) -> frozenset[str]:
        """Initializers that the cut model alone has."""
        return frozenset(self._names("added"))

    @property
    def rotated(self) -> frozenset[str]:
        """Initializers that hold the dims of heads in another basis."""
        return frozenset(self._names("rotated"))

    def constants(self, found: Analysis) -> Constants:
        """Return what removed channels always held where biases took it over; NaN elsewhere."""
        sizes = found.coupling.collected.sizes
        held: dict[Axis, NDArray[np.float64]] = {}
        entries = self.content["constants"]
        assert isinstance(entries, list)
        for entry in entries:
            axis = Axis(entry["value"], entry["axis"])
            if axis in sizes and max(entry["positions"], default=0) < sizes[axis]:
                held[axis] = np.full(sizes[axis], np.nan)
                held[axis][entry["positions"]] = entry["held"]
        return held

    def without_refit(self, given: onnx.ModelProto, recut: onnx.ModelProto) -> onnx.ModelProto:
        """Return a copy of a model with the numbers of refitted weights, and added biases, undone.

        Parameters
        ----------
        given : ModelProto
            What was written.
        recut : ModelProto
            The pure cut.

        Returns
        -------
        ModelProto
            Equal to ``recut`` if nothing but what the plan lists was changed.
        """
        refitted, added = set(self._names("refitted")), self.added
        model = onnx.ModelProto()
        model.CopyFrom(given)
        wanted = {t.name: t for t in recut.graph.initializer}
        kept = [t for t in model.graph.initializer if t.name not in added]
        for tensor in kept:
            other = wanted.get(tensor.name)
            same = other is not None and (other.dims, other.data_type) == (
                tensor.dims,
                tensor.data_type,
            )
            if tensor.name in refitted and other is not None and same:
                tensor.CopyFrom(other)
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        constants = {n.output[0]: n for n in recut.graph.node if n.op_type == "Constant"}
        for node, plain in zip(model.graph.node, recut.graph.node, strict=False):
            if node.op_type == "Constant" and node.output[0] in refitted & constants.keys():
                node.CopyFrom(constants[node.output[0]])
            elif added & set(node.input):
                del node.input[:]
                node.input.extend(plain.input)
        return model

    def _names(self, field: str) -> list[str]:
        names = self.content[field]
        assert isinstance(names, list)
        return names

    def removed_channels(self, groups: Sequence[Group]) -> tuple[tuple[Group, list[int]], ...]:
        """Return what goes by group; groups that the model no longer has are left out."""
        entries = self.content["groups"]
        assert isinstance(entries, list)
        gone = {entry["name"]: entry["removed"] for entry in entries}
        return tuple((group, gone[group.name]) for group in groups if group.name in gone)

    def keeps(self, sizes: Mapping[Axis, int]) -> dict[Axis, Mask]:
        """Return the keep masks.

        Raises
        ------
        InputError
            If the plan names an axis or a position that the model does not have.
        """
        masks: dict[Axis, Mask] = {}
        removed = self.content["removed"]
        assert isinstance(removed, list)
        for entry in removed:
            axis = Axis(entry["value"], entry["axis"], entry.get("by", -1))
            positions = np.array(entry["positions"], int)
            size = sizes.get(axis)
            if size is None or positions.max(initial=0) >= size:
                msg = f"the plan cuts {axis}, which this model does not have; make the plan anew"
                raise InputError(msg)
            masks[axis] = np.ones(size, bool)
            masks[axis][positions] = False
        return counted(masks, sizes)


def make_plan(
    found: Analysis,
    removed: Sequence[tuple[Group, Sequence[int]]],
    keeps: Keeps,
    options: Options,
    *,
    multiple_of: int | None,
    steps: Mapping[str, int] = MappingProxyType({}),
    refitted: Sequence[str] = (),
    added: Sequence[str] = (),
    rotated: Sequence[str] = (),
    constants: Constants = MappingProxyType({}),
) -> Plan:
    """Write down a selection.

    Parameters
    ----------
    found : Analysis
    removed : sequence of (Group, channel numbers)
    keeps : mapping of Axis to mask
        The same, per axis.
    options : Options
        Of the run: a refit can only be repeated on the same samples.
    multiple_of : int, optional
    steps : mapping of group name to int
        Multiples that the widths of single groups kept to, because only those pay.
    refitted, added, rotated : sequence of str
        Initializers that were solved for, and those that were added, after the cut; and which of
        both hold the dims of heads in another basis.
    constants : Constants
        What free channels hold.

    Returns
    -------
    Plan
    """
    return Plan(
        {
            "format": FORMAT,
            "onnxprune": __version__,
            "model": {"sha256": found.model.sha256, "bytes": found.model.bytes},
            "seed": options.seed,
            "samples": options.samples,
            "dims": {name: list(shape) for name, shape in found.shapes.items()},
            "allow_interface_change": options.allow_interface_change,
            "multiple_of": multiple_of,
            "refitted": list(refitted),
            "added": list(added),
            "rotated": list(rotated),
            "recovered": options.recover,
            "constants": [e for a, h in constants.items() if (e := _held(a, h, keeps))],
            "branches": [_branch(one) for one in found.gone],
            "removed": [_cut(found, axis, mask) for axis, mask in named(keeps)],
            "groups": [
                _entry(g, list(map(int, gone)), steps.get(g.name))
                for g, gone in removed
                if len(gone)
            ],
        }
    )


def _branch(gone: StandIn) -> dict[str, object]:
    return {"branch": asdict(gone.branch), "held": gone.held.tolist()}


def _held(axis: Axis, held: NDArray[np.float64], keeps: Keeps) -> dict[str, object] | None:
    """Write down the constants of one axis that were removed; zeros leave nothing to fold."""
    if axis.by >= 0 or axis not in keeps:
        return None
    places = np.flatnonzero(~keeps[axis] & (np.nan_to_num(held) != 0))
    numbers = {"positions": places.tolist(), "held": held[places].tolist()}
    return {"value": axis.value, "axis": axis.axis, **numbers} if len(places) else None


def _cut(found: Analysis, axis: Axis, mask: Mask) -> dict[str, object]:
    return {
        "value": axis.value,
        "axis": axis.axis,
        "initializer": axis.value in found.view.uses,
        "positions": np.flatnonzero(~mask).tolist(),
        **({"by": axis.by} if axis.by >= 0 else {}),
    }


def _entry(group: Group, gone: list[int], step: int | None) -> dict[str, object]:
    return {
        "name": group.name,
        "kind": group.kind,
        "before": group.size,
        "after": group.size - len(gone),
        "exact": group.exact,
        "step": step,
        "removed": gone,
    }


def load_plan(source: Path | Plan, model: Model) -> Plan:
    """Read a plan and check that it belongs to a model.

    Raises
    ------
    InputError
        If the file is missing, is no plan, or was made for another model.
    """
    plan = source if isinstance(source, Plan) else Plan(read(source, FORMAT, "plan"))
    made_for = plan.content["model"]
    assert isinstance(made_for, Mapping)
    if made_for["sha256"] != model.sha256:
        which = "" if isinstance(source, Plan) else f" {source}"
        msg = f"the plan{which} was made for another model (SHA-256 differs from {model.path})"
        raise InputError(msg)
    return plan
