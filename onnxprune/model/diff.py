"""Which fields of two models differ."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import TensorProto

from onnxprune.model.external import is_external
from onnxprune.model.tensors import DATA_FIELDS, raw_bytes

__all__ = ["field_diff"]

_STORAGE = {*DATA_FIELDS, "external_data", "data_location"}
# Messages that hold most of a model: to compare them whole first would serialize all of it.
_CONTAINERS = (onnx.ModelProto, onnx.GraphProto)


def field_diff(
    a: onnx.ModelProto, b: onnx.ModelProto, *, bases: tuple[Path, Path] | None = None
) -> list[str]:
    """List the fields that differ, by path; empty for equal models.

    Fields that this version of ONNX does not know count too, and so does whether an optional
    field is there; NaN equals NaN.

    Parameters
    ----------
    a, b : ModelProto
    bases : tuple of two Path, optional
        The two model files. With them, tensors kept outside are compared by their data, and it
        does not matter where it is kept; without, by their references.

    Returns
    -------
    list of str
        Such as ``graph.node[3].attribute[0].ints: [1, 1] against [2, 2]``.

    Raises
    ------
    InputError
        If external data cannot be read.
    """
    return list(_Diff(bases).messages(a, b, ""))


@dataclass(frozen=True, slots=True)
class _Diff:
    bases: tuple[Path, Path] | None

    def messages(self, a: Message, b: Message, path: str) -> Iterator[str]:
        fields = list(a.DESCRIPTOR.fields)
        if self._kept_elsewhere(a, b):
            yield from self._data(a, b, path)
            fields = [field for field in fields if field.name not in _STORAGE]
        elif not isinstance(a, _CONTAINERS) and _bytes(a) == _bytes(b):
            return
        for field in fields:
            yield from self._field(field, a, b, f"{path}.{field.name}".removeprefix("."))
        if _unknown(UnknownFieldSet(a)) != _unknown(UnknownFieldSet(b)):
            yield f"{path or 'model'}: fields unknown to this version of ONNX"

    def _field(self, field: FieldDescriptor, a: Message, b: Message, where: str) -> Iterator[str]:
        x, y = getattr(a, field.name), getattr(b, field.name)
        if not field.is_repeated:
            here, there = a.HasField(field.name), b.HasField(field.name)
            if field.message_type is None or here != there:
                before, after = (
                    (_short(x) if here else "absent"),
                    (_short(y) if there else "absent"),
                )
                if here != there or _exact(x) != _exact(y):
                    yield f"{where}: {before} against {after}"
            elif here:
                yield from self.messages(x, y, where)
        elif len(x) != len(y):
            yield f"{where}: {len(x)} entries against {len(y)}"
        elif field.message_type is not None:
            for index, (one, other) in enumerate(zip(x, y, strict=True)):
                yield from self.messages(one, other, f"{where}[{index}]")
        elif [*map(_exact, x)] != [*map(_exact, y)]:
            yield f"{where}: {_short([*x])} against {_short([*y])}"

    def _kept_elsewhere(self, a: Message, b: Message) -> bool:
        tensors = isinstance(a, TensorProto) and isinstance(b, TensorProto)
        return self.bases is not None and tensors and (is_external(a) or is_external(b))

    def _data(self, a: Message, b: Message, path: str) -> Iterator[str]:
        assert self.bases is not None
        pairs = zip((a, b), self.bases, strict=True)
        one, other = (raw_bytes(tensor, base) for tensor, base in pairs)
        if one.data != other.data:  # a comparison of arrays would make a third one
            yield f"{path}: {one.nbytes} bytes of data against {other.nbytes}, kept outside"


def _bytes(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _exact(value: Any) -> Any:  # noqa: ANN401
    """Make floats comparable by their bits: NaN is itself, -0 is not 0."""
    return struct.pack("<d", value) if isinstance(value, float) else value


def _unknown(fields: UnknownFieldSet) -> list[Any]:
    return [
        (f.field_number, f.wire_type, _unknown(f.data) if f.wire_type == 3 else f.data)
        for f in fields
    ]


def _short(value: object) -> str:
    if isinstance(value, Message):
        return "present"
    if isinstance(value, bytes) and len(value) > 32:
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
