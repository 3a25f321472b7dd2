"""What a file is that is no ONNX model."""

import codecs
from collections.abc import Mapping

__all__ = ["HEAD_BYTES", "foreign_kind"]

HEAD_BYTES = 512

_STARTS: Mapping[bytes, str] = {
    b"version https://git-lfs": "a Git LFS pointer; fetch the model itself with 'git lfs pull'",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"PK\x03\x04": "a zip archive (or PyTorch's or Keras's own format); unpack or export it first",
    b"\xfd7zXZ\x00": "an xz archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"\x89HDF": "an HDF5 file (Keras's own format); export it to ONNX first",
    b"\x80\x02": "a Python pickle (PyTorch's own format); export it to ONNX first",
    b"\x93NUMPY": "a NumPy array; calibration data goes behind --data",
    b"\xff\xfe": "text",
}
_FLATBUFFERS: Mapping[bytes, str] = {
    b"TFL3": "a TensorFlow Lite model; convert it to ONNX first",
    b"ORTM": "onnxruntime's own ORT format; give the .onnx it was made from",
}


def foreign_kind(head: bytes) -> str | None:
    """Say what a file is, and what to do about it, if it is certainly no ONNX model.

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` of the file.

    Returns
    -------
    str or None
        Reads well after "is".
    """
    for start, what in _STARTS.items():
        if head.startswith(start):
            return what
    if head[4:8] in _FLATBUFFERS:
        return _FLATBUFFERS[head[4:8]]
    return _text_kind(head)


def _text_kind(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    # Fields of a protobuf begin with control characters, so a model never gets past this.
    if not text or not all(char.isprintable() or char in "\t\r\n\f" for char in text):
        return None
    if text.lstrip().startswith("<"):
        return "a web page or XML; the download went wrong, or it is another format"
    if text.lstrip().startswith(("{", "[")):
        return "JSON; give the binary .onnx file"
    return "text; give the binary .onnx file"
