"""Drop what a model file tells of the machine that exported it."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import Message


def strip(path: Path) -> None:
    """Remove the metadata entries and doc strings that name source files.

    Parameters
    ----------
    path : Path
        A model file, rewritten in place.
    """
    model = onnx.load(path)
    for message in _messages(model):
        fields = message.DESCRIPTOR.fields_by_name
        if "doc_string" in fields and _names_a_file(message.doc_string):
            message.ClearField("doc_string")
        if "metadata_props" in fields:
            kept = [entry for entry in message.metadata_props if not _names_a_file(entry.value)]
            message.ClearField("metadata_props")
            message.metadata_props.extend(kept)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in [value] if isinstance(value, Message) else value:
            yield from _messages(child)


def _names_a_file(text: str) -> bool:
    return any(sign in text for sign in ('File "', ".py", "site-packages"))
