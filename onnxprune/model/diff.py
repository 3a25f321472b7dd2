"""Which fields of two models differ."""

from collections.abc import Iterator

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

__all__ = ["field_diff"]


def field_diff(a: onnx.ModelProto, b: onnx.ModelProto) -> list[str]:
    """List the fields that differ, by path; empty for equal models.

    Parameters
    ----------
    a, b : ModelProto

    Returns
    -------
    list of str
        Such as ``graph.node[3].attribute[0].ints: 2 entries against 3``.
    """
    return list(_messages(a, b, ""))


def _messages(a: Message, b: Message, path: str) -> Iterator[str]:
    if a == b:
        return
    for field in a.DESCRIPTOR.fields:
        where = f"{path}.{field.name}".lstrip(".")
        x, y = getattr(a, field.name), getattr(b, field.name)
        if _repeated(field):
            yield from _lists(field, x, y, where)
        elif field.message_type is not None:
            if a.HasField(field.name) != b.HasField(field.name):
                yield f"{where}: only on one side"
            elif a.HasField(field.name):
                yield from _messages(x, y, where)
        elif x != y or (field.has_presence and a.HasField(field.name) != b.HasField(field.name)):
            yield f"{where}: {_short(x)} against {_short(y)}"


def _repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _lists(field: FieldDescriptor, x: list[object], y: list[object], where: str) -> Iterator[str]:
    if len(x) != len(y):
        yield f"{where}: {len(x)} entries against {len(y)}"
    elif field.message_type is None:
        if list(x) != list(y):
            yield f"{where}: values differ"
    else:
        for index, (one, other) in enumerate(zip(x, y, strict=True)):
            assert isinstance(one, Message)
            assert isinstance(other, Message)
            yield from _messages(one, other, f"{where}[{index}]")


def _short(value: object) -> str:
    text = f"{len(value)} bytes" if isinstance(value, bytes) else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
